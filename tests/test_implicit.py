"""Lists by the commands: pairs in, a folder, lists out."""

import json

import pandas as pd
import pytest

from d2l_autorec import load_dataset, load_model, topn
from d2l_autorec.errors import DataError
from d2l_autorec.ratings import read_ratings
from d2l_autorec.serving import recommend_all

# Two groups of users, who take items of their group alone.
PAIRS = [
    (user, f"{'ab'[user % 2]}{item}")
    for user in range(24)
    for item in range(6)
    if (user + item) % 4
]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log of user and item, one pair of which is repeated."""
    file = tmp_path_factory.mktemp("log") / "log.csv"
    pd.DataFrame([*PAIRS, PAIRS[0]], columns=["user", "item"]).to_csv(file, index=False)
    return file


@pytest.fixture
def folder(log, tmp_path, command):
    folder = tmp_path / "model"
    options = ["--test-ratio", "0", "--quiet", "--preset", "ease:l2=5"]
    flags = ["--ratings", log, "--save", folder, *options, "--feedback", "implicit"]
    assert command("train", *flags)[0] == 0
    return folder


def test_each_model_goes_by_its_name():
    for name, model in topn.MODELS.items():
        assert getattr(topn, model)().name == name


def test_a_file_without_ratings_is_recognised_and_said(log, command):
    code, out, _ = command("train", "--ratings", log)
    assert code == 0
    assert "log.csv: has no ratings, or only equal ones" in out
    assert f"24 users x 12 items, {len(PAIRS)} pairs" in out
    assert "\nease: ndcg@10 " in out
    assert "\npopularity: ndcg@10 " in out


def test_equal_ratings_are_pairs_unless_ratings_are_asked_for(tmp_path, command):
    file = tmp_path / "f.csv"
    table = pd.DataFrame(PAIRS, columns=["user", "item"]).assign(rating=3)
    table.to_csv(file, index=False)
    assert "as with --feedback implicit" in command("train", "--ratings", file)[1]
    code, _, err = command("train", "--ratings", file, "--feedback", "explicit")
    assert code == 1
    assert "all ratings are 3" in err
    assert "--feedback implicit" in err
    code, _, err = command("train", "--ratings", file, "--lr", "0.1")
    assert code == 1
    assert "--feedback implicit and --lr exclude each other" in err


def test_a_lowest_rating_makes_pairs(small_data, tmp_path, command):
    result = tmp_path / "r.json"
    flags = ["--feedback", "implicit", "--quiet", "--json", result]
    sizes = []
    for least in ([], ["--min-rating", "4"]):
        assert command("train", *flags, *least)[0] == 0
        found = json.loads(result.read_text())
        sizes.append(found["num_train_pairs"] + found["num_test_pairs"])
    ratings = pd.read_csv(small_data / "ml-100k/u.data", sep="\t", header=None)[2]
    assert sizes == [len(ratings), (ratings >= 4).sum()]


def test_a_folder_recommends_what_is_left_of_the_group(folder):
    model = load_model(folder)
    for user in (0, 1):
        group = "ab"[user % 2]
        taken = {item for one, item in PAIRS if one == user}
        left = {f"{group}{item}" for item in range(6)} - taken
        best = [one.item_id for one in model.recommend(user, len(left))]
        assert set(best) == left
    tables = pd.concat(recommend_all(model, n=1))
    alone = [model.recommend(user, 1)[0] for user in range(24)]
    assert tables["item_id"].tolist() == [one.item_id for one in alone]
    assert tables["score"].tolist() == pytest.approx([one.score for one in alone])


def test_a_new_user_is_a_set_whose_unknown_items_are_named(folder, tmp_path, command):
    items = tmp_path / "items.txt"
    items.write_text("a0\na1\nlamp\n")
    code, out, err = command(
        "recommend", "--model", folder, "--new-user", items, "--json", "-n", "2"
    )
    assert code == 0
    assert [one["item_id"][0] for one in json.loads(out)] == ["a", "a"]
    assert "skipped, as not among the items of the training: 'lamp'" in err
    with pytest.raises(DataError, match="not among the items of the training: 'lamp'"):
        load_model(folder).recommend_new(["lamp"])


def test_similar_items_are_of_the_group(folder):
    assert {one.item_id[0] for one in load_model(folder).similar("b2", 5)} == {"b"}


def test_users_who_are_held_out_are_served_by_what_they_are_given(
    log, tmp_path, command
):
    folder, result = tmp_path / "m", tmp_path / "r.json"
    flags = ["--split-mode", "users", "--test-ratio", "0.5", "--json", result]
    how = ["--feedback", "implicit", "--save", folder, "--quiet"]
    assert command("train", "--ratings", log, *how, *flags)[0] == 0
    found = json.loads(result.read_text())["measures"]
    assert found["ease"]["ndcg@10"] > found["popularity"]["ndcg@10"]
    model = load_model(folder)
    user = int(model.run.parts.test_mat.indices[0])
    assert model.recommend(user, 1)[0].item_id[0] == "ab"[user % 2]


def test_networks_are_saved_and_a_folder_is_not_gone_on_with(log, tmp_path, command):
    folder = tmp_path / "m"
    preset = "mult-vae:num_epochs=2:num_hidden=8:num_factors=4"
    flags = ["--ratings", log, "--feedback", "implicit", "--preset", preset, "--quiet"]
    assert command("train", *flags, "--save", folder)[0] == 0
    assert len(load_model(folder).recommend(3, 2)) == 2
    code, _, err = command("train", "--resume", folder)
    assert code == 1
    assert "holds a model of lists" in err


def test_compare_has_popularity_beside_every_model(log, tmp_path, command):
    result, users = tmp_path / "r.json", tmp_path / "u.csv"
    flags = ["--models", "ease:l2=5/50", "--seeds", "0-1", "--at", "3", "--quiet"]
    files = ["--json", result, "--predictions", users]
    code, out, _ = command(
        "compare", "--feedback", "implicit", "--ratings", log, *flags, *files
    )
    assert code == 0
    assert "| popularity " in out
    found = json.loads(result.read_text())["models"]
    values = [one["measures"]["ndcg@3"] for one in found["ease, l2=5/50"]]
    table = pd.read_csv(users).groupby(["model", "seed"])["ndcg@3"].mean()
    assert table["ease, l2=5/50"].tolist() == pytest.approx(values)
    gaps = table["ease, l2=5/50"] - table["popularity"]
    half = 12.7062 * gaps.std() / 2**0.5  # Student's t with 1 degree of freedom
    ends = [gaps.mean(), gaps.mean() - half, gaps.mean() + half]
    said = "{:+.4f} ({:+.4f} to {:+.4f})".format(*ends)
    assert f"| {said} | {(gaps > 0).sum()}/2 |" in out


def test_a_model_of_ratings_says_how_good_its_lists_are(small_data, tmp_path, command):
    result = tmp_path / "r.json"
    short = ["--num-hidden", "4", "--num-epochs", "1", "--quiet", "--json", result]
    code, out, _ = command("train", *short)
    assert code == 0
    assert "recall@10 (nDCG@10) of its lists: this network" in out
    lists = json.loads(result.read_text())["lists"]
    assert lists.keys() == {"this network", "popularity"}


def test_pairs_are_read_with_what_stands_beside_them(tmp_path):
    file = tmp_path / "f"
    file.write_text("shop,user,item,time\nx,1,2,5\nx,2,3,6\nx,1,2,7\n")
    with pytest.raises(DataError, match="cannot tell which columns"):
        read_ratings(file)
    found = read_ratings(file, pairs=True)
    assert found.timestamp.tolist() == [6, 7]
    assert found.rating.tolist() == [1, 1]


@pytest.mark.parametrize(
    "flags", [["-e", "1"], ["--feedback", "implicit", "--preset", "ease:l2=1"]]
)
def test_generated_ratings_get_no_verdict_on_lists(command, flags):
    out = command("train", "--dataset", "synthetic-100k", "--quiet", *flags)[1]
    assert "popularity" in out and "better lists" not in out


CONTENT = "cvae:num_epochs=80:num_hidden=8:num_factors=4:num_rounds=4:lr=0.01"


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Words of the group of each item, and of two items that nobody has."""
    file = tmp_path_factory.mktemp("features") / "features.csv"
    items = [f"{group}{number}" for group in "ab" for number in [*range(6), 9]]
    lines = ["item,words", *(f"{item},new {item[0]}lpha" for item in items)]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_cvae_ranks_items_that_nobody_has(log, features, tmp_path, command):
    folder = tmp_path / "m"
    flags = ["--ratings", log, "--feedback", "implicit", "--preset", CONTENT, "--quiet"]
    words = ["--item-features", features, "--save", folder, "--test-ratio", "0"]
    assert command("train", *flags, *words)[0] == 0
    model = load_model(folder)
    scores = dict(zip(model.run.parts.item_ids, model.scores([0])[0]))
    assert scores["a9"] > scores["b9"] + 0.1
    assert "a9" in [one.item_id for one in model.recommend(0, 5)]
    assert {one.item_id[0] for one in model.similar("b9", 6)} == {"b"}
    code, out, _ = command("recommend", "--model", folder, "--like", "a9", "-n", "3")
    assert code == 0
    assert out.count("  a") == 3


def test_cvae_is_compared(log, features, tmp_path, command):
    result = tmp_path / "r.json"
    flags = ["--feedback", "implicit", "--ratings", log, "--models", CONTENT]
    more = ["--item-features", features, "--seeds", "0", "--at", "3", "--json", result]
    assert command("compare", *flags, *more, "--quiet")[0] == 0
    name, score = list(json.loads(result.read_text())["models"].items())[1]
    assert name.startswith("cvae, num_epochs=80")
    assert score[0]["settings"]["num_factors"] == 4


def test_films_bring_their_words(small_data, command):
    preset = "cvae:num_epochs=1:num_hidden=4:num_factors=2:num_rounds=1"
    flags = ["--feedback", "implicit", "--preset", preset, "--quiet"]
    films = small_data / "ml-100k/u.item"
    films.write_text("1|Toy Story (1995)|||url|0|1\n9999|Toy Story 9|||url|0|1\n")
    code, out, _ = command("train", *flags)
    assert code == 0
    assert "\ncvae: ndcg@10 " in out
    features = load_dataset("ml-100k", words=True).features
    assert features == {1: "Toy Story (1995) genre1", 9999: "Toy Story 9 genre1"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "cvae"], "cvae: needs the items' words (--item-features)"),
        (["--item-features", "f.csv"], "--item-features is for the model cvae"),
        (["--preset", "cvae", "--item-features", "no.csv"], "no.csv: no such file"),
    ],
)
def test_words_are_asked_for_in_a_line(flags, message, log, command):
    how = ["--ratings", log, "--feedback", "implicit", "--quiet"]
    code, _, err = command("train", *how, *flags)
    assert code in (1, 2)
    assert message in err.splitlines()[-1]


def test_an_item_of_the_features_is_of_the_ratings_kind(small_data, tmp_path, command):
    words = tmp_path / "words.csv"
    words.write_text("item,words\n1,old\nlamp,new\n")
    flags = ["--feedback", "implicit", "--preset", "cvae", "--item-features", words]
    code, _, err = command("train", *flags)
    assert code == 1
    assert "words.csv: 'lamp' is no item id like 1" in err
