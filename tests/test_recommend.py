"""Predictions: the network's own, from a saved model, for old users and new ones."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from test_checkpoint import CPU, make_run, train
from test_training import BEST, fit, make_parts, recipe_of

from d2l_autorec import evaluate, load_model
from d2l_autorec._mxnet import autograd, mx
from d2l_autorec._mxnet import np as mnp
from d2l_autorec.errors import DataError, ModelError
from d2l_autorec.evaluators import rmse
from d2l_autorec.ratings import ratings_from_frame, synthetic_ratings
from d2l_autorec.serving import Checkpoint, Predictor, recommend_all
from d2l_autorec.training import Biases, Blend, Parts, Recipe, Run, Training


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained toy: users '000' to '011', items 100 to 108, ratings shifted by 2."""
    directory = tmp_path_factory.mktemp("model")
    run = make_run(num_epochs=20, valid=True, lr=0.05)
    # A user and an item that only the test part knows.
    train_mat = run.parts.train_mat.tolil()
    train_mat[8], train_mat[:, 11] = 0, 0
    train_mat = train_mat.tocsr()
    train_mat.eliminate_zeros()
    parts = replace(run.parts, train_mat=train_mat)
    train(directory, replace(run, parts=parts))
    return directory


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


@pytest.fixture(scope="module")
def dense(model):
    """What the network itself reconstructs, shifted back: shape (9, 12)."""
    inputs = mnp.array(model.run.parts.train_mat.toarray())
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
    parts = model.run.parts
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


def test_a_model_is_scored_on_a_table_or_on_ratings_as_its_training_was(model, folder):
    checkpoint = Checkpoint.open(folder)
    training = Training(checkpoint.run, CPU)
    training.load(checkpoint.parameters())
    cells = model.run.parts.valid_mat.tocoo()
    known = (cells.row < 8) & (cells.col < 11)
    users, items = cells.col[known], cells.row[known]
    table = pd.DataFrame({"user_id": map(user, users), "item_id": items + 100})
    error = model.predict(table) - (cells.data[known] - 2)
    table["rating"] = cells.data[known] - 2.0
    found = evaluate(model, table)
    assert found == pytest.approx((np.sqrt(np.mean(error**2)), np.abs(error).mean()))
    shifted = ratings_from_frame(table)
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
    with pytest.raises(
        DataError, match="'101'; the model's items are of type int: 101"
    ):
        model.similar("101")
    with pytest.raises(DataError, match="unknown item 999"):
        model.predict([("001", 100), ("001", 999)])
    with pytest.raises(DataError, match="user '011' has no rating in the training"):
        model.recommend("011")
    with pytest.raises(DataError, match="item 108 has no rating in the training"):
        model.predict([("001", 108)])
    with pytest.raises(ValueError, match="item-mean"):
        model.predict([("001", 100)], "mean")


def test_item_means_where_they_are_asked_for(model):
    dense_train = model.run.parts.train_mat.toarray()
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


def test_all_users_are_those_who_have_been_trained_on(model):
    def users(*how):
        return set(pd.concat(recommend_all(model, *how))["user_id"])

    assert users() == {user(u) for u in range(11)}
    assert users(None, 10, False, "item-mean") == {user(u) for u in range(12)}
    with pytest.raises(DataError, match="user '011' has no rating in the training"):
        users(["003", "011"])
    for user_id in ("nobody", "011"):
        found = pd.concat(recommend_all(model, [user_id], unknown="item-mean"))
        alone = model.recommend(user_id, unknown="item-mean")
        assert found["item_id"].tolist() == [item.item_id for item in alone]
    # Whoever has ratings in another part alone has rated those items all the same.
    parts = [model.run.parts.test_mat, model.run.parts.valid_mat]
    rated = sum(parts).tocsc()[:8, 11].indices + 100
    assert len(rated) and not set(rated) & set(found["item_id"])


def test_items_with_few_ratings_are_left_out_when_asked_for(model):
    counts = np.diff(model.run.parts.train_mat.indptr)
    least = int(np.median(counts)) + 1
    enough = set(np.flatnonzero(counts >= least) + 100)
    assert 1 < len(enough) < 8
    how = {"n": 100, "include_rated": True, "min_ratings": least}
    for found in (
        model.recommend("003", **how),
        model.recommend("nobody", unknown="item-mean", **how),
        model.recommend_new({100: 3}, **how),
    ):
        assert {item.item_id for item in found} == enough
    table = pd.concat(recommend_all(model, ["003"], **how))
    assert set(table["item_id"]) == enough
    liked = model.similar(100, 100, min_ratings=least)
    assert {item.item_id for item in liked} == enough - {100}


def test_of_equal_scores_the_items_with_more_ratings_come_first():
    run = Run(make_parts(), recipe_of({}), 7)
    net = fit(run.recipe)[0].net
    for parameter in net.collect_params().values():
        parameter.set_data(parameter.data() * 0)
    found = Predictor(net, run).recommend(4, 99, include_rated=True)
    counts = np.diff(run.parts.train_mat.indptr)
    assert [one.item_id for one in found] == [
        item for item in np.argsort(-counts, kind="stable") if counts[item]
    ]


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
    "clipped": {"clip": True, "input_dropout": 0.2},
    "balanced": {"balance": 0.6},
    "bounded": {"output": "sigmoid", "schedule": "cosine"},
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
    members = settings.pop("members", 1)
    directory = tmp_path_factory.mktemp("variant")
    with pytest.MonkeyPatch.context() as shorter:
        shorter.setattr("d2l_autorec.training.member.NUM_EPOCHS", 10)
        run = make_run(kind=kind, **settings)
        train(directory, replace(run, recipe=run.recipe.averaged(members)))
    return directory


def networks(model):
    """The networks of a model, one or several, and the recipe of each."""
    is_blend = isinstance(model.run.recipe, Blend)
    return [*model.net] if is_blend else [model.net], model.run.recipe.recipes[0]


def reconstruct(model, clipped=True):
    """Let the networks reconstruct all rows: shape (num_items, num_users)."""
    nets, recipe = networks(model)
    rows = mnp.array(recipe.rows(model.run.parts.train_mat).toarray())
    if clipped:
        outputs = [net(rows) for net in nets]
    else:
        hidden = [net.encode(rows) for net in nets]
        with autograd.train_mode():
            outputs = [net.decoder(h) for net, h in zip(nets, hidden)]
    dense = sum(outputs).asnumpy() / len(nets) - 2.0
    return dense.T if recipe.kind == "user" else dense


def test_predictions_are_those_of_any_network(variant):
    model = load_model(variant)
    found = model.predict([(user(u), i + 100) for i in range(9) for u in range(12)])
    expected = reconstruct(model).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    valid = model.run.parts.valid_mat.tocoo()
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


def test_many_users_get_what_each_of_them_gets(variant, monkeypatch):
    monkeypatch.setattr("d2l_autorec.serving.lists._CELLS", 40)  # four users at a time
    model = load_model(variant)
    tables = list(recommend_all(model, n=4))
    assert [table["user_id"].nunique() for table in tables] == [4, 4, 4]
    table = pd.concat(tables)
    for user_id, found in table.groupby("user_id"):
        alone = model.recommend(user_id, 4)
        assert found["place"].tolist() == list(range(1, len(alone) + 1))
        assert found["item_id"].tolist() == [item.item_id for item in alone]
        ratings = [item.rating for item in alone]
        assert found["rating"].tolist() == pytest.approx(ratings, 1e-4, 1e-4)
        titles = found["title"].where(found["title"].notna(), None).tolist()
        assert titles == [item.title for item in alone]


def test_similar_items_have_similar_codes(variant):
    model = load_model(variant)
    nets, recipe = networks(model)
    rows = recipe.rows(model.run.parts.train_mat)
    if recipe.kind == "user":
        layers = [net.decoder.weight.data() for net in nets]
    else:
        layers = [net.encode(mnp.array(rows.toarray())) for net in nets]
    codes = np.hstack([layer.asnumpy() for layer in layers])
    codes -= codes.mean(axis=0)
    lengths = np.linalg.norm(codes, axis=1)
    cosines = codes @ codes[4] / (lengths * lengths[4]).clip(1e-30)
    found = model.similar(104, 8)
    values = [item.similarity for item in found]
    assert values == sorted(values, reverse=True)
    # The toy's hidden layers differ in their last digits alone.
    expected = {i + 100: cosines[i] for i in range(9) if i != 4}
    assert dict(item[:2] for item in found) == pytest.approx(expected, abs=0.02)
    assert model.similar(104, 3) == found[:3]


def test_new_users_are_served_or_told_what_to_do(variant):
    model = load_model(variant)
    recipe, train_mat = networks(model)[1], model.run.parts.train_mat.tocsc()
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


# What is learned of the ratings, and mixed.


def test_residuals_are_ranked_before_clipping():
    run = Run(make_parts(), recipe_of({"residual": True, "clip": True}), 7)
    net = fit(run.recipe)[0].net
    weight = net.decoder.weight
    weight.set_data(weight.data() * 1000)  # far off the scale
    free = replace(run, recipe=run.recipe.changed(clip=False))
    best, others = (
        Predictor(net, one).recommend(4, 99, include_rated=True) for one in (run, free)
    )
    assert [one.item_id for one in others] == [one.item_id for one in best]
    assert len({one.rating for one in best}) < len({one.rating for one in others})


@pytest.mark.parametrize("kind", ["item", "user"])
def test_a_user_with_an_old_users_ratings_has_their_bias(kind):
    run = Run(make_parts(), recipe_of({"residual": True, "kind": kind}), 7)
    column = run.parts.train_mat.tocsc()[:, 4]
    biases = Biases(run.parts.train_mat)
    levels = biases.of_new_user(column.indices, column.data)
    assert levels == pytest.approx(biases.at(4, slice(None)))
    if kind == "user":
        model = Predictor(fit(run.recipe)[0].net, run)
        given = dict(zip(column.indices.tolist(), column.data.tolist()))
        old = model.recommend(4, 99, include_rated=True)
        new = model.recommend_new(given, 99, include_rated=True)
        assert [i.rating for i in new] == pytest.approx([i.rating for i in old], 1e-5)


def test_many_users_of_a_blend_get_what_each_of_them_gets():
    run = Run(make_parts(), BEST, 0)
    model = Predictor(fit(BEST)[0].net, run)
    (table,) = recommend_all(model, n=9)
    users = [user for user in range(17) if user != 2]  # who has no rating
    alone = [one for user in users for one in model.recommend(user, 9)]
    assert table["item_id"].tolist() == [one.item_id for one in alone]
    assert table["rating"].tolist() == pytest.approx([one.rating for one in alone])


def test_a_list_is_in_the_order_of_the_ratings_that_it_shows():
    """Networks that err far beyond the scale are clipped before they are mixed."""
    net = fit(BEST)[0].net
    for one in net:
        one.decoder.weight.set_data(3 * one.decoder.weight.data())
    model = Predictor(net, Run(make_parts(), BEST, 0))
    found = [model.recommend(user, 9, include_rated=True) for user in (0, 1, 3, 4)]
    found.append(model.recommend_new({0: 5, 5: 1}, 9))
    for items in found:
        ratings = [one.rating for one in items]
        assert len(set(ratings)) > 3
        assert ratings == sorted(ratings, reverse=True)


def test_an_average_of_equals_serves_new_users_as_one_of_them(model):
    given = {100: 3, 102: -1, 105: 2}
    twice = Predictor(
        [model.net] * 2, replace(model.run, recipe=model.run.recipe.averaged(2))
    )
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
    others = ratings_from_frame(ratings.data[~new], name=ratings.name)
    test = np.random.default_rng(0).random(others.num_ratings) < 0.1
    parts = Parts.of(others, np.flatnonzero(~test), np.flatnonzero(test))
    training = Training(Run(parts, recipe, 0), CPU)
    list(training.epochs())
    return Predictor(training.net, Run(parts, recipe, 0))


def rmse_of_new_users(model, data, share):
    """Give a share of each new user's ratings; return the RMSE on the rest, twice."""
    rng = np.random.default_rng(0)
    known = np.isin(
        data["item_id"],
        model.run.parts.item_ids[np.diff(model.run.parts.train_mat.indptr) > 0],
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


def test_an_old_users_ratings_fold_in_to_what_the_model_says_of_them(newcomers):
    model, _ = newcomers
    user_index = int(np.argmax(np.bincount(model.run.parts.train_mat.indices)))
    column = model.run.parts.train_mat[:, user_index].tocoo()
    given = dict(
        zip(model.run.parts.item_ids[column.row].tolist(), column.data.tolist())
    )
    old = {
        i.item_id: i.rating
        for i in model.recommend(
            model.run.parts.user_ids[user_index], 10**6, include_rated=True
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


def test_a_new_users_unknown_items_are_skipped_and_named(model, logged):
    # Item 108 has no training rating.
    found = model.recommend_new([(100, 3), (5, 1), ("101", 1), (108, 2)])
    assert found == model.recommend_new({100: 3})
    assert "not among the items of the training: 5, '101', 108; the" in logged.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({5: 1.0}, "not among the items of the training: 5$"),
        ({"101": 1.0}, "'101'; the model's items are of type int: 101"),
        ({100: 3, 101: 3.5}, "rating 3.5 of item 101 is outside .*, -1 to 3"),
        ({100: float("nan")}, "rating nan of item 100 is outside"),
        ([(100, 1), (100, 2)], "item 100 is rated more than once"),
    ],
)
def test_new_ratings_that_do_not_fit_are_refused(model, given, said):
    with pytest.raises(DataError, match=said):
        model.recommend_new(given)


# The command.


@pytest.fixture
def ask(command, folder):
    """Ask the model by the command: what it prints, or the line of an error."""

    def ask(*argv, error=False):
        code, out, err = command("recommend", "--model", folder, *argv)
        assert code == error, err
        return err if error else out

    return ask


def table_of(text):
    return pd.read_csv(io.StringIO(text), dtype={"user_id": str})


def test_the_command_recommends_as_text_and_as_json(ask, model):
    best = model.recommend("003", 3)
    first, *lines = ask("--user", "003", "-n", 3).splitlines()
    assert "user 003" in first and len(lines) == len(best)
    for line, item in zip(lines, best):
        assert str(item.item_id) in line and f"{item.rating:.2f}" in line
    found = json.loads(ask("--user", "003", "--json", "--include-rated"))
    assert [item["item_id"] for item in found] == [
        item.item_id for item in model.recommend("003", 10, include_rated=True)
    ]
    assert set(found[0]) == {"item_id", "rating", "title"}


def test_the_command_predicts_pairs(ask, model, tmp_path):
    (tmp_path / "pairs").write_text("item,user\n100,001\n107,002\n")
    table = table_of(ask("--pairs", tmp_path / "pairs"))
    assert table["user_id"].tolist() == ["001", "002"]
    assert table["item_id"].tolist() == [100, 107]
    expected = model.predict([("001", 100), ("002", 107)])
    assert table["rating"].tolist() == pytest.approx(expected)
    asked = ["--pairs", tmp_path / "pairs", "--output", tmp_path / "out.csv"]
    assert ask(*asked) == ""
    pd.testing.assert_frame_equal(table_of((tmp_path / "out.csv").read_text()), table)


def test_predictions_are_utf_8_whatever_the_terminal_is(ask, tmp_path, monkeypatch):
    (tmp_path / "pairs").write_text("user,item\n\u00e9,100\n", encoding="utf-8")
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, "ascii"))
    ask("--pairs", tmp_path / "pairs", "--item-mean")
    assert out.getvalue().decode().splitlines()[1].startswith("\u00e9,100,")


def test_ids_in_files_mean_what_they_mean_in_the_model(ask, tmp_path):
    # One unknown item makes a column of strings; 100 is still the model's 100.
    (tmp_path / "pairs").write_text("001,100\n001,x\n")
    assert "unknown item 'x'" in ask("--pairs", tmp_path / "pairs", error=True)
    out = ask("--pairs", tmp_path / "pairs", "--item-mean").splitlines()
    assert out[1].startswith("001,100,") and out[2].startswith("001,x,")


def test_the_command_takes_a_new_users_file(ask, model, tmp_path):
    (tmp_path / "mine").write_text("item,rating\n100,3\n102,-1\n")
    found = json.loads(ask("--new-user", tmp_path / "mine", "--json"))
    expected = model.recommend_new({100: 3, 102: -1})
    assert [item["item_id"] for item in found] == [item.item_id for item in expected]


@pytest.fixture
def narrow(monkeypatch):
    """A scale that the toy's predictions go beyond."""
    monkeypatch.setattr(Parts, "rating_range", (0.95, 1.2))
    return 0.95, 1.2


def test_the_command_recommends_to_many_users(ask, model, narrow, tmp_path):
    table = table_of(ask("--all-users", "-n", 2))
    expected = pd.concat(recommend_all(model, n=2))
    held = expected["rating"].clip(*narrow).tolist()
    assert held != expected["rating"].tolist()
    assert table["rating"].tolist() == pytest.approx(held)
    for name in ("user_id", "place", "item_id"):
        assert table[name].tolist() == expected[name].tolist()
    (tmp_path / "users").write_text("003\n010\n")
    wanted = table[table["user_id"].isin(["003", "010"])].reset_index(drop=True)
    for name in ("some.csv", "some.csv.gz"):
        asked = ["--users", tmp_path / "users", "-n", 2, "--output", tmp_path / name]
        assert ask(*asked) == ""
        some = pd.read_csv(tmp_path / name, dtype={"user_id": str})
        pd.testing.assert_frame_equal(some, wanted, check_dtype=False)


def test_many_users_go_into_a_parquet_file(ask, model, tmp_path, monkeypatch):
    monkeypatch.setattr("d2l_autorec.serving.lists._CELLS", 9)  # a user at a time
    titles = {user(u): model.recommend(user(u), 1)[0].title or "" for u in range(11)}
    (tmp_path / "users").write_text("\n".join(sorted(titles, key=titles.get)))
    asked = ["--users", tmp_path / "users", "-n", 1]
    ask(*asked, "--output", tmp_path / "all.parquet")
    expected = table_of(ask(*asked))
    titled = expected["title"].notna()
    assert not titled[0] and titled.any(), "a first table without any title"
    found = pd.read_parquet(tmp_path / "all.parquet")
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_a_failure_leaves_the_output_as_it_was(ask, tmp_path):
    (tmp_path / "users").write_text("003\nnobody\n")
    (tmp_path / "out.csv").write_text("old")
    asked = ["--users", tmp_path / "users", "--output", tmp_path / "out.csv"]
    assert "unknown user 'nobody'" in ask(*asked, error=True)
    assert (tmp_path / "out.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_shown_is_held_to_the_scale(ask, model, narrow, tmp_path):
    low, high = narrow
    best = model.recommend("003", 9, include_rated=True)
    assert max(item.rating for item in best) > high
    shown = json.loads(ask("--user", "003", "--include-rated", "--json"))
    assert [item["item_id"] for item in shown] == [item.item_id for item in best]
    held = [min(max(item.rating, low), high) for item in best]
    assert [item["rating"] for item in shown] == pytest.approx(held)
    (tmp_path / "pairs").write_text(f"003,{best[0].item_id}\n")
    assert float(ask("--pairs", tmp_path / "pairs").split(",")[-1]) == high


def test_the_command_lists_similar_items_with_titles_of_a_file(ask, model, tmp_path):
    (tmp_path / "titles.csv").write_text('item,title\n101,"A, B"\n105,C\n999,x\n')
    asked = ["--like", 100, "--titles", tmp_path / "titles.csv"]
    first, *lines = ask(*asked).splitlines()
    assert first.startswith("items like The Hundred (toy), by the cosine")
    lines = {line.split()[2]: line for line in lines}
    expected = {str(i.item_id): i.similarity for i in model.similar(100)}
    assert list(lines) == list(expected)
    assert all(f"{expected[i]:5.2f}" in line for i, line in lines.items())
    assert lines["101"].endswith("  A, B") and lines["105"].endswith("  C")
    found = json.loads(ask(*asked, "--json"))
    assert set(found[0]) == {"item_id", "similarity", "title"}
    (tmp_path / "titles.csv").write_text("7,x\n8,y\n")
    assert "titles none of the items, but such as 7" in ask(*asked, error=True)


@pytest.mark.parametrize(
    ("asked", "text", "columns", "plain"),
    [
        ("--pairs", "a,x,who\n100,1,001\n", "who,a", "001,100\n"),
        ("--pairs", "100,1,001\n", "3,1", "001,100\n"),
        ("--users", "n|who\n1|001\n2|002\n", "who", "001\n002\n"),
        ("--new-user", "x;s;film\na;3;100\nb;-1;102\n", "film,s", "100,3\n102,-1\n"),
    ],
)
def test_columns_of_files_may_be_named(ask, tmp_path, asked, text, columns, plain):
    (tmp_path / "file").write_text(text)
    found = ask(asked, tmp_path / "file", "--columns", columns)
    (tmp_path / "file").write_text(plain)
    assert ask(asked, tmp_path / "file") == found


def test_what_an_error_of_a_file_proposes_can_be_done(ask, tmp_path):
    assert "unknown user '42'" in ask("--user", 42, error=True)
    file = tmp_path / "file"
    file.write_bytes("Titel;Nr\nZw\u00f6lf;101\n".encode("latin-1"))
    asked = ["--user", "001", "-n", 9, "--titles", file]
    said = ask(*asked, error=True)
    assert "is not utf-8; " in said and "(--encoding latin-1)" in said
    asked += ["--encoding", "latin-1", "--include-rated"]
    said = ask(*asked, error=True)
    assert "but such as 'Titel'; " in said and "(--title-columns)" in said
    assert "Zw\u00f6lf" in ask(*asked, "--title-columns", "Nr,Titel")
    file.write_bytes("Note;Werk\n3;100\n".encode("latin-1"))
    asked = ["--new-user", file]
    assert "such as --columns Note,Werk" in ask(*asked, error=True)
    ask(*asked, "--columns", "Werk,Note", "--encoding", "latin-1")
