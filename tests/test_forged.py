"""A model folder from a stranger: one line that says what is wrong, and never a crash.

Folders are forged and then signed anew, so that no checksum gives them away.
"""

import copy
import dataclasses
import os
import random
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from forging import (
    LARGE,
    Forgery,
    calls,
    forge,
    make_blend_run,
    outcome,
    write_questions,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoint import CPU, content, make_run, train

from d2l_autorec import evaluators, seed_everything, train_recsys_rating
from d2l_autorec._mxnet import gluon
from d2l_autorec.commands import recommend
from d2l_autorec.commands import train as command
from d2l_autorec.data import row_batches
from d2l_autorec.errors import DataError, ModelError, TrainingDiverged
from d2l_autorec.fast import SparseNetwork, predict_cells
from d2l_autorec.ratings import ratings_from_frame
from d2l_autorec.serving import MODEL_FILE, Checkpoint, load_model
from d2l_autorec.training import (
    Parts,
    Recipe,
    Training,
    network,
)

NUM_FORGED = int(os.environ.get("D2L_AUTOREC_FORGED", 15))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("honest")
    train(directory / "m", make_run(valid=True, num_epochs=2, lr=0.5))
    return directory


@pytest.fixture(scope="module")
def honest(folder):
    return Forgery(folder / "m")


@pytest.fixture(scope="module")
def blend(tmp_path_factory):
    directory = tmp_path_factory.mktemp("blend")
    train(directory / "m", make_blend_run())
    return Forgery(directory / "m")


@settings(max_examples=NUM_FORGED, deadline=None, database=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_a_forged_folder_is_used_or_refused(tmp_path_factory, honest, blend, seed):
    directory = tmp_path_factory.mktemp("forged")
    forgery = copy.deepcopy((honest, blend)[seed % 2])
    forge(forgery, random.Random(seed))
    forgery.write(directory / "m")
    for _, call in calls(directory / "m", *write_questions(directory)):
        assert outcome(call) in ("fine", "refused")


def field(*path, value, of="model"):
    def change(forgery):
        place = getattr(forgery, of)
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


def setting(name, value):
    return field("recipes", 0, name, value=value)


def ids(key, value):
    return field(key, value=value, of="data")


def array(name, change):
    return lambda f: f.arrays.update({name: change(f.arrays[name])})


def element(name, value, dtype=None):
    def change(array):
        array = array.astype(dtype or array.dtype)
        array.flat[3] = value
        return array

    return array(name, change)


def header(name, **fields):
    """Change what the header says of an array, and leave the numbers."""
    return lambda f: f.header_changes.append(lambda found: found[name].update(fields))


def raw(change):
    return lambda forgery: forgery.changes.append(change)


DATA, INDICES, BIAS = "train_mat.data", "train_mat.indices", "last.encoder.bias"
COUNT, STATE = "optimizer.num_updates", "optimizer.decoder.bias.var"
NO_EPOCH, NO_SHAPE = "history: epoch 1 is", "belong to the recipe"
FORGED = {
    # name: what is forged, and what the message has to say
    "format": (lambda f: f.metadata.update(format="4"), "in format '4', written by"),
    "another program": (lambda f: f.metadata.clear(), "in format None"),
    "index": (element("valid_mat.indices", 10**6), "valid_mat: not a matrix"),
    "large index": (element(INDICES, 2**40, np.int64), "train_mat"),
    "NaN": (element(DATA, np.nan), "train_mat.data: a number is not finite"),
    "float64": (array(DATA, lambda a: a.astype(float)), "train_mat.data is of F64"),
    "whole numbers": (array(DATA, lambda a: a.astype(np.int32)), "no matrix in CSR"),
    "two axes": (array(DATA, lambda a: a.reshape(2, -1)), "no matrix in CSR format"),
    "no matrix": (lambda f: f.arrays.pop(INDICES), INDICES),
    "units": (setting("num_hidden", [3, 10**9]), f"deeper.0.weight .* {NO_SHAPE}"),
    "optimizer": (setting("optimizer", "x"), "optimizer='x'"),
    "new setting": (setting("new", 1), "'new'"),
    "more networks": (
        lambda f: f.model.update(recipes=f.model["recipes"] * 2, weights=[0.5, 0.5]),
        "last.0.encoder.weight",
    ),
    "no networks": (lambda f: f.model.update(recipes=[], weights=[]), "as many epochs"),
    "no weights": (lambda f: f.model.update(recipes=[{}, {}]), "too many values"),
    "no recipe": (field("recipes", value=None), "recipes"),
    "task": (field("task", value="films"), "'films'"),
    "text for a seed": (field("seed", value="x"), r"got `str` - at `\$.seed`"),
    "seed": (field("seed", value=-1), "seed"),
    "patience": (field("patience", value=0), "patience"),
    "another field": (field("more", value=1), "`more`"),
    "no history": (field("history", value=[]), "history"),
    "loss": (field("history", 0, 1, value=-1), NO_EPOCH),
    "no seconds": (field("history", 0, 4, value=0), NO_EPOCH),
    "epochs": (field("history", 1, 0, value=7), "history: epoch 2 is"),
    "RMSE": (field("history", 0, 3, value=None), NO_EPOCH),
    "long history": (
        lambda f: f.model["history"].append([3, *f.model["history"][1][1:]]),
        "more epochs",
    ),
    "no split": (ids("split", None), "split"),
    "offset": (ids("rating_offset", 1e39), "rating_offset"),
    "name": (ids("name", "\ud800"), "autorec.safetensors"),
    "users": (ids("user_ids", ["a", "b"]), "train_mat: not a matrix"),
    "user twice": (ids("user_ids", ["a"] * 12), "user_ids: an id occurs twice"),
    "mixed ids": (ids("user_ids", [1, *map(str, range(11))]), "user_ids: '0' of type"),
    "large ids": (ids("item_ids", [2**70] * 9), "item_ids"),
    "titles": (ids("titles", []), "titles"),
    "deep ids": (lambda f: setattr(f, "data", b"[" * 99999), "got `array`"),
    "empty": (raw(lambda r: b""), "does not fit"),
    "no header": (raw(lambda r: r[:8] + bytes(32)), "invalid header"),
    "long header": (raw(lambda r: b"\xff" * 8 + r[8:]), "its header has"),
    "cut short": (raw(lambda r: r[:-35]), "not fully covered"),
    "more bytes": (raw(lambda r: r + b"abcd"), "not fully covered"),
    "dtype": (header(BIAS, dtype="I32"), f"{BIAS} is of int32"),
    "other dtype": (header(BIAS, dtype="x"), "unknown variant"),
    "large shape": (header(BIAS, shape=[2**62, 8]), "does not fit"),
    "offsets": (header(BIAS, data_offsets=[0, 12]), "does not fit"),
    "no numbers": (array(BIAS, lambda a: a[:0]), rf"{BIAS} is of F32 and of shape"),
    "shape": (array(BIAS, lambda a: a[:1]), f"{BIAS} .* {NO_SHAPE}"),
    "one more": (
        lambda f: f.arrays.update({"last.x": f.arrays[BIAS]}),
        f"last.x .* {NO_SHAPE}",
    ),
    "one less": (lambda f: f.arrays.pop(BIAS), f"{BIAS} .* {NO_SHAPE}"),
    "best": (lambda f: f.arrays.pop(BIAS.replace("last", "best")), "best.encoder.bias"),
    "state": (array(STATE, lambda a: a.astype(np.int64)), STATE),
    "updates": (array(COUNT, lambda a: a + 10**9), COUNT),
    "negative updates": (array(COUNT, lambda a: -a), COUNT),
    "two updates": (array(COUNT, lambda a: np.array([1, 2])), COUNT),
    **LARGE,
}


@pytest.mark.parametrize("change, said", FORGED.values(), ids=FORGED)
def test_what_is_forged_is_named(tmp_path, honest, change, said):
    forgery = copy.deepcopy(honest)
    change(forgery)
    with pytest.raises(ModelError, match=said) as caught:
        load_model(forgery.write(tmp_path / "m"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


STATES = {
    "another optimizer": (setting("optimizer", "sgd"), "missing, or not of SGD"),
    "shape": (array(STATE, lambda a: a[:1]), STATE.removeprefix("optimizer.")),
    "one more": (lambda f: f.arrays.update({"optimizer.x": f.arrays[STATE]}), "x is"),
}


@pytest.mark.parametrize("change, said", STATES.values(), ids=STATES)
def test_a_state_of_another_optimizer_is_not_restored(tmp_path, honest, change, said):
    forgery = copy.deepcopy(honest)
    change(forgery)
    forgery.write(tmp_path / "m")
    with pytest.raises(ModelError, match=said):
        command.main(["--resume", str(tmp_path / "m"), "-e", "3", "--quiet"])


def test_a_file_without_an_end_is_not_read(tmp_path, honest):
    honest.write(tmp_path / "m")
    os.truncate(tmp_path / "m" / MODEL_FILE, 2**43)  # which takes no room on the disk
    with pytest.raises(ModelError, match="8,796,093,022,208 bytes are more than"):
        load_model(tmp_path / "m")


# What trains or saves.


def test_a_training_that_diverges_leaves_the_good_model(tmp_path, small_data):
    # In batches: an error of the second is the length of the first one's step, and its
    # square is beyond what a float32 can hold, whatever the weights.
    argv = ["--dataset", "ml-100k", "-k", "2", "-b", "8", "-e", "1", "--quiet"]
    command.main([*argv, "--save", str(tmp_path / "m")])
    before = content(tmp_path / "m")
    for saving in (["--save", str(tmp_path / "m"), "--overwrite"], []):
        with pytest.raises(TrainingDiverged, match="in epoch 1; a lower learning rate"):
            command.main([*argv, *saving, "--lr", "1e30"])
    assert content(tmp_path / "m") == before


@pytest.mark.parametrize("what", ["parameter", "state"])
def test_what_is_not_finite_is_not_saved(tmp_path, what):
    run = make_run()
    train(tmp_path, run)
    before = content(tmp_path)
    training = Training(run, CPU)
    epoch = next(training.epochs())
    arrays = {"parameter": training.parameters(), "state": training.state()}
    bias = {"parameter": "decoder.bias", "state": "decoder.bias.var"}[what]
    arrays[what][bias][3] = np.inf
    with pytest.raises(TrainingDiverged, match="in epoch 1"):
        Checkpoint(tmp_path, run, overwrite=True).save(epoch, *arrays.values())
    assert content(tmp_path) == before


def test_what_no_machine_holds_is_refused_before_it_is_made(monkeypatch):
    parts = make_run().parts
    with pytest.raises(DataError, match="the parameters would take"):
        network(Recipe(num_hidden=2**31 - 1), parts.train_mat)
    monkeypatch.setattr("d2l_autorec.training.networks.memory", lambda: 400)
    with pytest.raises(DataError, match="a batch of 9 rows would take"):
        network(Recipe(num_hidden=1, batch_size=None), parts.train_mat)


# New users.


def test_an_item_that_a_new_user_rates_twice_is_named(folder, tmp_path):
    model = load_model(folder / "m")
    with pytest.raises(DataError, match="item 101 is rated more than once"):
        model.recommend_new([(101, 1.0), (102, 2.0), (101, 3.0)])
    assert model.recommend_new([(101, 1.0)]) == model.recommend_new({101: 1.0})
    (tmp_path / "new.csv").write_text("item_id,rating\n101,1\n102,2\n101,3\n")
    with pytest.raises(DataError, match="item 101 is rated more than once"):
        recommend.main(
            ["--model", str(folder / "m"), "--new-user", str(tmp_path / "new.csv")]
        )


@pytest.mark.parametrize("rating", [-2.0, 1e39, float("nan")])
def test_a_new_users_rating_is_one_that_float32_holds(folder, rating):
    said = re.escape(f"rating {rating} of item 101 is outside the scale")
    with pytest.raises(DataError, match=said):
        load_model(folder / "m").recommend_new({101: rating})


def test_predictions_that_are_not_finite_are_an_error(folder):
    model = load_model(folder / "m")
    model.net.decoder.weight.set_data(model.net.decoder.weight.data() * 0 + 3e38)
    for call in (
        lambda: model.recommend("003"),
        lambda: model.predict([("003", 101)]),
        lambda: model.recommend_new({101: 1.0}),
    ):
        with pytest.raises(ModelError, match="no finite numbers"):
            call()


# What Python is given.


def by_the_book(batch):
    """Train on a batch by the book's function."""
    net = network(Recipe(num_hidden=2), make_run().parts.train_mat)
    net.initialize(ctx=CPU)
    trainer = gluon.Trainer(net.collect_params(), "adam")
    score = {"evaluator": lambda *args: 1.0}
    return train_recsys_rating(
        net, [batch], [], gluon.loss.L2Loss(), trainer, 1, CPU, **score
    )


def member(run):
    return Training(run, CPU).members[0]


ENTRANCES = {
    "train_recsys_rating": lambda run, bad: by_the_book(bad),
    "Parts": lambda run, bad: Parts(bad),
    "held out": lambda run, bad: Parts(run.parts.train_mat, bad),
    "valid": lambda run, bad: dataclasses.replace(run.parts, valid_mat=bad),
    "network": lambda run, bad: network(Recipe(kind="user"), bad),
    "FastStep": lambda run, bad: member(run).step(bad),
    "Step": lambda run, bad: member(make_run(optimizer="sgd")).step(bad),
    "predict_cells": lambda run, bad: predict_cells(
        None, run.parts.train_mat, bad, CPU
    ),
    "rows": lambda run, bad: predict_cells(None, bad, run.parts.train_mat, CPU),
    "batches": lambda run, bad: row_batches(bad, 4),
    "evaluator": lambda run, bad: evaluators.evaluator(None, [], bad, CPU),
}


def outside(index):
    """Change an index to one outside the shape, which SciPy does not look for."""

    def change(matrix):
        matrix.indices[3] = index
        return matrix

    return change


def with_indptr(indptr):
    def change(matrix):
        empty = sp.csr_matrix(matrix.shape, dtype=np.float32)
        empty.indptr = np.array(indptr, np.int32)
        return empty

    return change


def twice(matrix):
    """Store each rating as two halves."""
    return sp.csr_matrix(
        (matrix.data.repeat(2) / 2, matrix.indices.repeat(2), 2 * matrix.indptr),
        matrix.shape,
    )


TAKE_DENSE = {"evaluator", "train_recsys_rating", "Step"}
TAKE_RATINGS = {"Parts", "held out", "valid", "evaluator"}
SPARSE = ENTRANCES.keys() - TAKE_DENSE
ANY_NUMBERS = ENTRANCES.keys() - {"FastStep"}  # which takes batches of what came in
NO_INDEX = r"not a matrix of shape \(9, 12\)"
UNFIT = {
    # name: what is changed, the message, and the entrances that refuse it
    "index above": (outside(12), NO_INDEX, ENTRANCES),
    "index far above": (outside(10**9), NO_INDEX, ENTRANCES),
    "index below": (outside(-1), NO_INDEX, ENTRANCES),
    "falling indptr": (with_indptr([*4 * [0], 10**6, *5 * [0]]), "indptr", ENTRANCES),
    "fewer rows": (with_indptr(8 * [0]), NO_INDEX, SPARSE),
    "more rows": (with_indptr(11 * [0]), NO_INDEX, SPARSE),
    # Columns taken for rows would be walked beyond their end.
    "columns": (sp.csr_matrix.tocsc, "CSR format is needed", ENTRANCES),
    "dense": (sp.csr_matrix.toarray, "CSR", SPARSE),
    "twice": (twice, "a cell is stored more than once", ANY_NUMBERS),
    "complex": (lambda m: m * 1j, "complex64 is no finite, real number", ANY_NUMBERS),
    "infinite": (lambda m: m * np.float32(np.inf), "float32 is no fin", ANY_NUMBERS),
    "no rows": (lambda m: m[:0], "no rows", ANY_NUMBERS),
    # Ratings are positive; other numbers that are learned need not be.
    "all 0": (lambda m: m * 0, "holds no rating", TAKE_RATINGS),
    "negative": (lambda m: -m, "ratings from -5 to -1 are not positive", TAKE_RATINGS),
    "tiny": (
        lambda m: m.astype(float) * 1e-45,
        "are not positive float32 numbers",
        TAKE_RATINGS,
    ),
    "large": (
        lambda m: m.astype(float) * 1e38,
        "to inf are not positive float32 numbers",
        TAKE_RATINGS,
    ),
}


@pytest.mark.parametrize(
    "entrance, unfit",
    [(one, name) for name, (*_, refuse) in UNFIT.items() for one in sorted(refuse)],
)
def test_a_matrix_that_is_unfit_does_not_come_in(entrance, unfit):
    change, said, _ = UNFIT[unfit]
    with pytest.raises(DataError, match=said):
        ENTRANCES[entrance](make_run(), change(make_run().parts.train_mat))


def with_zeros(matrix):
    """Store a 0 in each cell without a rating."""
    indptr = np.arange(0, matrix.shape[0] * matrix.shape[1] + 1, matrix.shape[1])
    every = np.tile(np.arange(matrix.shape[1]), matrix.shape[0])
    return sp.csr_matrix((matrix.toarray().ravel(), every, indptr), matrix.shape)


def backwards(matrix):
    """Store the cells of each row in the order of falling columns."""
    flipped = matrix[::-1]
    return sp.csr_matrix(
        (flipped.data[::-1], flipped.indices[::-1], matrix.indptr), matrix.shape
    )


@pytest.mark.parametrize(
    "change",
    [with_zeros, backwards, lambda m: m.astype(np.int8), sp.csr_matrix.todense],
)
def test_ratings_mean_the_same_however_they_are_stored(change):
    run = make_run()
    parts, net = run.parts, Training(run, CPU).net
    batches = list(row_batches(parts.train_mat, 4))
    expected = evaluators.evaluator(net, batches, parts.test_mat, CPU)
    other = change(parts.test_mat)
    assert evaluators.evaluator(net, batches, other, CPU) == pytest.approx(expected)
    if sp.issparse(other):
        changed = dataclasses.replace(parts, train_mat=change(parts.train_mat))
        assert (changed.train_mat != parts.train_mat).nnz == 0
        histories = []
        for its in (parts, changed):
            seed_everything(0)
            epochs = Training(dataclasses.replace(run, parts=its), CPU).epochs()
            histories.append([epoch[:3] for epoch in epochs])
        assert histories[0] == histories[1]


def test_cells_beyond_the_networks_outputs_are_refused():
    run = make_run()
    net = Training(run, CPU).net
    wide = sp.csr_matrix(np.ones((9, 500), np.float32))
    for known in (net, SparseNetwork(net)):
        with pytest.raises(DataError, match="cells of"):
            predict_cells(known, run.parts.train_mat, wide, CPU)
    with pytest.raises(DataError, match=r"\(9, 500\) for cells of \(9, 12\)"):
        predict_cells(SparseNetwork(net), wide, wide, CPU)


@pytest.mark.parametrize("rating", [1e-45, 1e39])
def test_a_rating_that_float32_does_not_hold_is_named(rating):
    data = pd.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "rating": [3.0, rating]})
    with pytest.raises(DataError, match="row 1: .*rating .*float32"):
        ratings_from_frame(data)
