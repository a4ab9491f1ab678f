"""Predictions: the network's own, from a saved model, for old users and new ones."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from test_checkpoint import CPU, make_run, train

from d2l_autorec import evaluate, load_model
from d2l_autorec._mxnet import autograd, mx
from d2l_autorec._mxnet import np as mnp
from d2l_autorec.commands import recommend
from d2l_autorec.errors import DataError, ModelError
from d2l_autorec.evaluators import rmse
from d2l_autorec.fast import members
from d2l_autorec.ratings import Ratings, synthetic_ratings
from d2l_autorec.serving import Checkpoint, Predictor
from d2l_autorec.training import Average, Recipe, Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained toy: users '000' to '011', items 100 to 108, ratings shifted by 2."""
    directory = tmp_path_factory.mktemp("model")
    run = make_run(num_epochs=20, valid=True, lr=0.05)
    # A user and an item that only the test part knows.
    train_mat = run.train_mat.tolil()
    train_mat[8], train_mat[:, 11] = 0, 0
    train_mat = train_mat.tocsr()
    train_mat.eliminate_zeros()
    object.__setattr__(run, "train_mat", train_mat)
    train(directory, run)
    return directory


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def dense(model):
    """What the network itself reconstructs, shifted back: shape (9, 12)."""
    inputs = mnp.array(model.run.train_mat.toarray())
    return model.net(inputs).asnumpy() - 2.0


def user(index):
    return f"{index:03}"


def test_predictions_are_the_networks(model, dense):
    pairs = [(user(u), i + 100) for i in range(8) for u in range(11)]
    np.testing.assert_allclose(
        model.predict(pairs), dense[:8, :11].ravel(), rtol=1e-5, atol=1e-5
    )
    frame = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    assert (model.predict(frame) == model.predict(pairs)).all()
    assert model.predict([]).shape == (0,)


def test_recommendations_are_the_best_unrated_items(model, dense):
    parts = model.run
    rated = (parts.train_mat + parts.test_mat + parts.valid_mat).toarray() > 0
    for index in range(11):
        expected = [
            i + 100
            for i in np.argsort(-dense[:, index])
            if i < 8 and not rated[i, index]
        ]
        found = model.recommend(user(index), 100)
        assert [item.item_id for item in found] == expected
        assert [item.item_id for item in model.recommend(user(index), 1)] == expected[
            :1
        ]
        ratings = [dense[item.item_id - 100, index] for item in found]
        assert [item.rating for item in found] == pytest.approx(ratings, abs=1e-5)


def test_rated_items_come_up_when_asked_for(model):
    items = [item.item_id for item in model.recommend("003", 100, include_rated=True)]
    assert sorted(items) == list(range(100, 108))


def test_titles_are_kept(model):
    titles = {i.item_id: i.title for i in model.recommend("003", 100, True)}
    assert titles[100] == "The Hundred"
    assert titles[105] is None


def test_a_model_is_scored_on_a_table_or_on_ratings_as_its_training_was(model, folder):
    checkpoint = Checkpoint.open(folder)
    training = checkpoint.run.train(CPU)
    training.net = checkpoint.network(CPU)
    cells = model.run.valid_mat.tocoo()
    known = (cells.row < 8) & (cells.col < 11)
    users, items = cells.col[known], cells.row[known]
    table = pd.DataFrame({"user_id": map(user, users), "item_id": items + 100})
    error = model.predict(table) - (cells.data[known] - 2)
    table["rating"] = cells.data[known] - 2.0
    found = evaluate(model, table)
    assert found == pytest.approx((np.sqrt(np.mean(error**2)), np.abs(error).mean()))
    shifted = Ratings("t", table.assign(rating=cells.data[known]), rating_offset=2.0)
    assert evaluate(model, shifted) == pytest.approx(found)
    known_mat = csr_matrix((cells.data[known], (items, users)), (9, 12))
    assert evaluate(training, known_mat) == pytest.approx(found, rel=1e-5)
    with pytest.raises(DataError, match="unknown user 'nobody'"):
        evaluate(model, table.assign(user_id="nobody"))
    assert evaluate(model, table.assign(user_id="nobody"), "item-mean").rmse > 0


def test_unknown_ids(model):
    with pytest.raises(DataError, match="unknown user 'nobody'; .* 12 users, such as"):
        model.recommend("nobody")
    with pytest.raises(DataError, match="unknown user 3;"):
        model.recommend(3)
    with pytest.raises(DataError, match="unknown item 999"):
        model.predict([("001", 100), ("001", 999)])
    with pytest.raises(DataError, match="user '011' has no rating in the training"):
        model.recommend("011")
    with pytest.raises(DataError, match="item 108 has no rating in the training"):
        model.predict([("001", 108)])
    with pytest.raises(ValueError, match="item-mean"):
        model.predict([("001", 100)], "mean")


def test_item_means_where_they_are_asked_for(model):
    dense_train = model.run.train_mat.toarray()
    mean = dense_train[0][dense_train[0] > 0].mean() - 2
    overall = dense_train[dense_train > 0].mean() - 2
    pairs = [("nobody", 100), ("nobody", 999), ("001", 999), ("001", 108), ("011", 100)]
    expected = [mean, overall, overall, overall, mean]
    assert model.predict(pairs, "item-mean") == pytest.approx(expected, rel=1e-5)
    known = [("001", 100)]
    assert model.predict(known, "item-mean") == model.predict(known)
    best = model.recommend("nobody", 1, unknown="item-mean")[0]
    means = model.predict([("nobody", i) for i in range(100, 108)], "item-mean")
    assert best.rating == pytest.approx(means.max())


def test_loading_and_predicting_draw_nothing(folder):
    mx.random.seed(1)
    expected = mnp.random.uniform(size=3).asnumpy()
    mx.random.seed(1)
    load_model(folder).recommend("001")
    assert (mnp.random.uniform(size=3).asnumpy() == expected).all()


# The whole family.

KINDS = ("item", "user")
VARIANTS = {
    "book": {},
    "linear": {"activation": "identity"},
    "deep": {"num_hidden": (4, 3, 5), "activation": "elu"},
    "selu": {"activation": "selu"},
    "relu output": {"output": "relu"},
    "sigmoid output": {"output": "sigmoid", "activation": "relu"},
    "tanh output": {"output": "tanh", "activation": "tanh"},
    "average": {"members": 3, "loss": "paper"},
    "clipped average": {"members": 3, "clip": True, "input_dropout": 0.2},
    "average of bounded": {"members": 2, "output": "sigmoid", "schedule": "cosine"},
    "pretrained": {"num_hidden": (4, 3, 4), "pretrain_epochs": 3},
    "by rprop": {"optimizer": "rprop", "batch_size": None, "loss": "rmse"},
}


@pytest.fixture(
    scope="module", params=[(k, v) for v in VARIANTS for k in KINDS], ids=str
)
def variant(request, tmp_path_factory):
    """Each model after a training that overfits, so that clipping shows; its folder."""
    kind, name = request.param
    settings = {"lr": 0.1, "num_epochs": 15, "valid": True, **VARIANTS[name]}
    directory = tmp_path_factory.mktemp("variant")
    with pytest.MonkeyPatch.context() as shorter:
        shorter.setattr("d2l_autorec.training.pretraining.NUM_EPOCHS", 10)
        train(directory, make_run(kind=kind, **settings))
    return directory


def reconstruct(model, clipped=True):
    """Let the network reconstruct all rows: shape (num_items, num_users)."""
    recipe, nets = model.run.recipe, members(model.net)
    rows = mnp.array(recipe.rows(model.run.train_mat).toarray())
    if clipped:
        outputs = model.net(rows)
    else:
        hidden = [net.encode(rows) for net in nets]
        with autograd.train_mode():
            outputs = sum(n.decoder(h) for n, h in zip(nets, hidden)) / len(nets)
    dense = outputs.asnumpy() - 2.0
    return dense.T if recipe.kind == "user" else dense


def test_predictions_are_those_of_any_network(variant):
    model = load_model(variant)
    found = model.predict([(user(u), i + 100) for i in range(9) for u in range(12)])
    expected = reconstruct(model).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    valid = model.run.valid_mat.tocoo()
    pairs = [(user(u), i + 100) for i, u in zip(valid.row, valid.col)]
    best = min(epoch.valid_rmse for epoch in Checkpoint.open(variant).history)
    assert rmse(model.predict(pairs), valid.data - 2) == pytest.approx(best, 1e-4)


def test_items_are_ranked_before_clipping_and_shown_after_it(variant):
    model = load_model(variant)
    shown, scores = reconstruct(model), reconstruct(model, clipped=False)
    for index in range(12):
        found = model.recommend(user(index), 100, include_rated=True)
        items = [item.item_id - 100 for item in found]
        assert sorted(items) == list(range(9))
        assert (np.diff(scores[items, index]) <= 1e-4).all()
        ratings = [item.rating for item in found]
        np.testing.assert_allclose(ratings, shown[items, index], rtol=1e-4, atol=1e-4)


def test_new_users_are_served_or_told_what_to_do(variant):
    model = load_model(variant)
    recipe, train_mat = model.run.recipe, model.run.train_mat.tocsc()
    column = train_mat[:, 4]
    given = dict(zip((column.indices + 100).tolist(), (column.data - 2).tolist()))
    if recipe.kind == "item" and recipe.output != "identity":
        said = f"identity output, not {recipe.output}: train with --kind user or"
        with pytest.raises(ModelError, match=said):
            model.recommend_new(given)
        return
    found = model.recommend_new(given, 100, include_rated=True)
    assert sorted(item.item_id for item in found) == list(range(100, 109))
    if recipe.kind == "user":
        # Who has an old user's ratings is told what the old user is.
        old = model.recommend(user(4), 100, include_rated=True)
        assert [item.item_id for item in found] == [item.item_id for item in old]
        ratings = [item.rating for item in old]
        assert [item.rating for item in found] == pytest.approx(ratings, 1e-4)
    if recipe.clip:
        low, high = train_mat.data.min() - 2, train_mat.data.max() - 2
        assert all(low <= item.rating <= high for item in found)
    unrated = [item.item_id for item in model.recommend_new(given, 100)]
    assert unrated == [i.item_id for i in found if i.item_id not in given]


def test_an_average_of_equals_serves_new_users_as_one_of_them(model):
    given = {100: 3, 102: -1, 105: 2}
    twice = Predictor(Average([model.net, model.net]), model.run)
    alone, both = (m.recommend_new(given, 100) for m in (model, twice))
    assert [i.item_id for i in alone] == [i.item_id for i in both]
    assert [i.rating for i in alone] == pytest.approx([i.rating for i in both], 1e-4)


# New users: the model never saw them, so what it says of their held-out ratings counts.


@pytest.fixture(scope="module")
def newcomers():
    """A model of 843 synthetic users, and the ratings of 100 others."""
    ratings = synthetic_ratings()
    new = ratings.data["user_id"] > 843
    return fold_in_model(ratings, new, Recipe(100, lr=0.005)), ratings.data[new]


def fold_in_model(ratings, new, recipe):
    others = Ratings(ratings.name, ratings.data[~new])
    test = np.random.default_rng(0).random(len(others.data)) < 0.1
    run = Run.of(
        *(others, others.data[~test], others.data[test]),
        recipe=recipe,
        seed=0,
        split={},
    )
    training = run.train(CPU)
    list(training.epochs())
    return Predictor(training.net, run)


def rmse_of_new_users(model, data, share):
    """Give a share of each new user's ratings; return the RMSE on the rest, twice."""
    rng = np.random.default_rng(0)
    known = np.isin(
        data["item_id"], model.run.item_ids[np.diff(model.run.train_mat.indptr) > 0]
    )
    errors, baseline = [], []
    for _, theirs in data[known].groupby("user_id"):
        given = rng.random(len(theirs)) < share
        if not 0 < given.sum() < len(theirs):
            continue
        shown, hidden = theirs[given], theirs[~given]
        found = model.recommend_new(dict(zip(shown.item_id, shown.rating)), 10**6)
        predicted = {item.item_id: item.rating for item in found}
        assert not predicted.keys() & set(shown.item_id)
        errors += [predicted[i] - r for i, r in zip(hidden.item_id, hidden.rating)]
        means = model.predict([(None, i) for i in hidden.item_id], "item-mean")
        baseline += list(means - hidden.rating)
    return np.sqrt(np.mean(np.square(errors))), np.sqrt(np.mean(np.square(baseline)))


def test_new_users_ratings_are_predicted_better_than_by_item_means(newcomers):
    model, data = newcomers
    few, mean = rmse_of_new_users(model, data, 0.1)
    many, _ = rmse_of_new_users(model, data, 0.7)
    assert many < few < mean


@pytest.mark.slow
def test_new_users_of_ml_100k():
    root = os.environ.get("D2L_AUTOREC_DATA")
    if not root or not (Path(root) / "ml-100k").is_dir():
        pytest.skip("needs the real ml-100k in $D2L_AUTOREC_DATA")
    from d2l_autorec import load_dataset

    ratings = load_dataset("ml-100k")
    users = np.random.default_rng(1).choice(ratings.user_ids, 150, replace=False)
    new = ratings.data["user_id"].isin(users)
    model = fold_in_model(ratings, new, Recipe())
    for share in (0.1, 0.5, 0.9):
        ours, mean = rmse_of_new_users(model, ratings.data[new], share)
        print(f"{share:.0%} given: RMSE {ours:.3f}, of item means {mean:.3f}")
        assert ours < mean


def test_an_average_serves_new_users_better_than_item_means_too(newcomers):
    _, data = newcomers
    ratings = synthetic_ratings()
    new = ratings.data["user_id"] > 843
    model = fold_in_model(ratings, new, Recipe(100, lr=0.005, members=2))
    few, mean = rmse_of_new_users(model, data, 0.1)
    many, _ = rmse_of_new_users(model, data, 0.7)
    assert many < few < mean


def test_an_old_users_ratings_fold_in_to_what_the_model_says_of_them(newcomers):
    model, _ = newcomers
    user_index = int(np.argmax(np.bincount(model.run.train_mat.indices)))
    column = model.run.train_mat[:, user_index].tocoo()
    given = dict(zip(model.run.item_ids[column.row].tolist(), column.data.tolist()))
    old = {
        i.item_id: i.rating
        for i in model.recommend(
            model.run.user_ids[user_index], 10**6, include_rated=True
        )
    }
    new = {
        i.item_id: i.rating
        for i in model.recommend_new(given, 10**6, include_rated=True)
    }
    assert old.keys() == new.keys()
    both = np.array([[old[i], new[i]] for i in old])
    assert np.corrcoef(both.T)[0, 1] > 0.9


def test_a_new_users_scale_is_shifted_too(model):
    low = model.recommend_new({100: -1, 101: -1, 102: -1}, 3, include_rated=True)
    high = model.recommend_new({100: 3, 101: 3, 102: 3}, 3, include_rated=True)
    assert np.mean([i.rating for i in low]) < np.mean([i.rating for i in high])
    with pytest.raises(DataError, match="unknown item 5"):
        model.recommend_new({5: 1.0})


# The command.


def run_command(capsys, *argv):
    recommend.main([str(word) for word in argv])
    return capsys.readouterr().out


def test_the_command_recommends(folder, model, capsys):
    lines = run_command(
        capsys, "--model", folder, "--user", "003", "-n", 3
    ).splitlines()
    best = model.recommend("003", 3)
    assert "user 003" in lines[0]
    assert len(lines) == 1 + len(best)
    for line, item in zip(lines[1:], best):
        assert str(item.item_id) in line and f"{item.rating:.2f}" in line


def test_the_command_writes_json(folder, model, capsys):
    out = run_command(
        capsys, "--model", folder, "--user", "003", "--json", "--include-rated"
    )
    found = json.loads(out)
    assert [item["item_id"] for item in found] == [
        item.item_id for item in model.recommend("003", 10, include_rated=True)
    ]
    assert set(found[0]) == {"item_id", "rating", "title"}


def test_the_command_predicts_pairs(folder, model, tmp_path, capsys):
    (tmp_path / "pairs").write_text("item,user\n100,001\n107,002\n")
    argv = ["--model", folder, "--pairs", tmp_path / "pairs"]
    table = pd.read_csv(io.StringIO(run_command(capsys, *argv)), dtype={"user_id": str})
    assert table["user_id"].tolist() == ["001", "002"]
    assert table["item_id"].tolist() == [100, 107]
    expected = model.predict([("001", 100), ("002", 107)])
    assert table["rating"].tolist() == pytest.approx(expected)
    assert run_command(capsys, *argv, "--output", tmp_path / "out.csv") == ""
    written = pd.read_csv(tmp_path / "out.csv", dtype={"user_id": str})
    pd.testing.assert_frame_equal(written, table)


def test_predictions_are_utf_8_whatever_the_terminal_is(folder, tmp_path, monkeypatch):
    (tmp_path / "pairs").write_text("user,item\n\u00e9,100\n", encoding="utf-8")
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, "ascii"))
    recommend.main(
        ["--model", str(folder), "--pairs", str(tmp_path / "pairs"), "--item-mean"]
    )
    assert out.getvalue().decode().splitlines()[1].startswith("\u00e9,100,")


def test_ids_in_files_mean_what_they_mean_in_the_model(folder, tmp_path, capsys):
    # One unknown item makes a column of strings; 100 is still the model's 100.
    (tmp_path / "pairs").write_text("001,100\n001,x\n")
    argv = ["--model", folder, "--pairs", tmp_path / "pairs"]
    with pytest.raises(DataError, match="unknown item 'x'"):
        run_command(capsys, *argv)
    out = run_command(capsys, *argv, "--item-mean").splitlines()
    assert out[1].startswith("001,100,") and out[2].startswith("001,x,")


def test_the_command_takes_a_new_users_file(folder, model, tmp_path, capsys):
    (tmp_path / "mine").write_text("item,rating\n100,3\n102,-1\n")
    out = run_command(
        capsys, "--model", folder, "--new-user", tmp_path / "mine", "--json"
    )
    expected = model.recommend_new({100: 3, 102: -1})
    assert [item["item_id"] for item in json.loads(out)] == [
        item.item_id for item in expected
    ]


def test_errors_of_the_command_are_clear(folder, tmp_path, capsys):
    with pytest.raises(DataError, match="unknown user '42'"):
        run_command(capsys, "--model", folder, "--user", 42)
    with pytest.raises(ModelError, match="holds no model"):
        run_command(capsys, "--model", tmp_path, "--user", 42)
    (tmp_path / "mine").write_text("item,rating\n100,-2\n")
    with pytest.raises(DataError, match="mine:2: rating '-2' is not positive"):
        run_command(capsys, "--model", folder, "--new-user", tmp_path / "mine")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "--model"),
        (["--model", "m"], "--user"),
        (["--model", "m", "--user", "1", "--pairs", "f"], "not allowed with"),
        (["--model", "m", "--pairs", "f", "--json"], "CSV"),
        (["--model", "m", "--user", "1", "--output", "f"], "--output is for --pairs"),
        (["--model", "m", "--user", "1", "-n", "0"], "'0' is not a whole number"),
    ],
)
def test_flags_that_do_not_go_together(argv, said, capsys):
    with pytest.raises(SystemExit) as caught:
        recommend.main(argv)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
