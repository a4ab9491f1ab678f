"""The book's data functions, with `d2l.mxnet` as the oracle."""

import mxnet as mx
import numpy as onp
import pandas as pd
import pytest
import scipy.sparse as sp
from d2l import mxnet as d2l

from d2l_autorec import (
    load_data_ml100k,
    rating_batches,
    read_data_ml100k,
    row_batches,
    seed_everything,
    split_and_load_ml100k,
    split_data_ml100k,
)
from d2l_autorec.errors import DataError
from d2l_autorec.training import hold_out

NAN = float("nan")
BY_ELEMENT = pytest.mark.slow  # as the book walks its arrays


@pytest.fixture(params=["small", "real"])
def oracle(request, monkeypatch):
    """Let d2l and the package read the same u.data."""
    if request.param == "small":
        folder = request.getfixturevalue("small_data") / "ml-100k"
    else:
        folder = request.getfixturevalue("real_ml_100k")
    monkeypatch.setattr(d2l, "download_extract", lambda name: str(folder))
    return folder


@pytest.fixture
def table():
    return pd.DataFrame(
        [(1, 1, 5, 10), (1, 2, 3, 30), (2, 1, 4, 20), (1, 3, 2, 30), (2, 3, 1, 5)],
        columns=["user_id", "item_id", "rating", "timestamp"],
    )


def test_read_equals_the_book(oracle):
    data, num_users, num_items = read_data_ml100k()
    expected, *shape = d2l.read_data_ml100k()
    pd.testing.assert_frame_equal(data, expected)
    assert [num_users, num_items] == shape


@pytest.mark.parametrize(
    "oracle", ["small", pytest.param("real", marks=BY_ELEMENT)], indirect=True
)
def test_random_split_equals_the_book(oracle):
    data, *shape = read_data_ml100k()
    mx.random.seed(7)
    expected = d2l.split_data_ml100k(data, *shape, "random", 0.2)
    mx.random.seed(7)
    parts = split_data_ml100k(data, *shape, "random", 0.2)
    for part, book in zip(parts, expected):
        pd.testing.assert_frame_equal(part, book)


def test_seq_aware_split_equals_the_book_but_names_its_columns(oracle):
    data, *shape = read_data_ml100k()
    parts = split_data_ml100k(data, *shape, "seq-aware")
    for part, book in zip(parts, d2l.split_data_ml100k(data, *shape, "seq-aware")):
        assert part.columns.tolist() == data.columns.tolist()
        pd.testing.assert_frame_equal(part.set_axis(range(4), axis=1), book)


@pytest.mark.parametrize(
    ("oracle", "feedback"),
    [
        *(("small", "explicit"), ("small", "implicit"), ("real", "implicit")),
        pytest.param("real", "explicit", marks=BY_ELEMENT),
    ],
    indirect=["oracle"],
)
def test_load_equals_the_book(oracle, feedback):
    data, *shape = read_data_ml100k()
    users, items, scores, inter = load_data_ml100k(data, *shape, feedback)
    expected = d2l.load_data_ml100k(data, *shape, feedback)
    assert (users, items, scores) == expected[:3]
    if feedback == "implicit":
        assert inter == expected[3]
    else:
        assert inter.dtype == expected[3].dtype
        assert (inter.asnumpy() == expected[3].asnumpy()).all()


@pytest.mark.parametrize("split_mode", ["random", "seq-aware"])
@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
def test_batches_equal_the_book_over_three_epochs(
    small_data, monkeypatch, split_mode, feedback
):
    monkeypatch.setattr(d2l, "download_extract", lambda name: small_data / name)
    drawn = []
    for module in (d2l, None):
        function = (module and d2l.split_and_load_ml100k) or split_and_load_ml100k
        seed_everything(3)
        num_users, num_items, train_iter, test_iter = function(
            split_mode, feedback, test_ratio=0.2, batch_size=32
        )
        batches = [b for _ in range(3) for b in train_iter] + list(test_iter)
        drawn.append([[(v.dtype, v.asnumpy().tolist()) for v in b] for b in batches])
        assert (num_users, num_items) == (30, 40)
    assert drawn[0] == drawn[1]


def test_seq_aware_keeps_each_users_newest_rating_for_the_test(table):
    train_data, test_data = split_data_ml100k(table, 2, 3, "seq-aware")
    assert test_data.to_numpy().tolist() == [[1, 2, 3, 30], [2, 1, 4, 20]]
    assert train_data.to_numpy().tolist() == [
        [1, 1, 5, 10],
        [1, 3, 2, 30],
        [2, 3, 1, 5],
    ]


def test_half_stars_are_kept(table):
    table["rating"] = [0.5, 1.5, 2.5, 3.5, 4.5]
    *_, scores, inter = load_data_ml100k(table, 2, 3)
    assert scores == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert inter.asnumpy().tolist() == [[0.5, 2.5], [1.5, 0.0], [3.5, 4.5]]


@pytest.mark.parametrize(("column", "noun"), [("user_id", "user"), ("item_id", "item")])
@pytest.mark.parametrize("bad", [0, 4])
def test_an_id_outside_the_matrix_is_refused(table, column, noun, bad):
    table.loc[2, column] = bad
    with pytest.raises(DataError, match=f"{noun} id {bad} is not between 1 and 3"):
        load_data_ml100k(table, 3, 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *((("random", ratio), "between 0 and 1") for ratio in (0, 1, -0.1, 1.5, NAN)),
        (("random", 1e-9), "leaves the test part empty"),
        (("time",), "'time'"),
    ],
)
def test_a_split_that_cannot_be_is_refused(table, given, said):
    with pytest.raises(ValueError, match=said):
        split_data_ml100k(table, 2, 3, *given)


def test_seq_aware_needs_two_ratings_and_their_timestamps(table):
    with pytest.raises(DataError, match="leaves the training part empty"):
        split_data_ml100k(table.head(1), 1, 1, "seq-aware")
    with pytest.raises(DataError, match="needs timestamps"):
        split_data_ml100k(table.drop(columns="timestamp"), 2, 3, "seq-aware")


@pytest.mark.parametrize("missing", [[1], [1, 2, 3, 4]])
def test_seq_aware_needs_every_timestamp(table, missing):
    table["timestamp"] = (
        table["timestamp"].astype(float).where(~table.index.isin(missing))
    )
    with pytest.raises(DataError, match=f"of each rating; {len(missing)} of 5 have"):
        split_data_ml100k(table, 2, 3, "seq-aware")


def test_an_unknown_kind_of_feedback_is_refused(table):
    with pytest.raises(ValueError, match="'clicks'"):
        load_data_ml100k(table, 2, 3, "clicks")


def test_hold_out_takes_the_share_and_leaves_the_generators_alone():
    mx.random.seed(1)
    before = mx.np.random.uniform(size=3).asnumpy()
    mx.random.seed(1)
    fit_rows, valid_rows = hold_out(onp.arange(6), 0.4, seed=5)
    assert (mx.np.random.uniform(size=3).asnumpy() == before).all()
    assert len(valid_rows) == 2
    assert sorted([*fit_rows, *valid_rows]) == list(range(6))
    assert hold_out(onp.arange(6), 0.4, seed=5)[1].tolist() == valid_rows.tolist()
    with pytest.raises(DataError, match="leaves a part empty"):
        hold_out(onp.arange(6), 0.01, seed=0)


def test_row_batches_are_the_rows_in_order():
    dense = onp.arange(20, dtype=onp.float32).reshape(5, 4)
    batches = list(row_batches(sp.csr_matrix(dense), 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert (onp.concatenate([b.asnumpy() for b in batches]) == dense).all()


def test_shuffled_batches_carry_over_what_is_left():
    loader = rating_batches(range(10), range(10), range(10), 4, shuffle=True)
    seed_everything(0)
    drawn = [[b[0].asnumpy().tolist() for b in loader] for _ in range(2)]
    assert [len(epoch) for epoch in drawn] == [2, 3]
    assert all(len(batch) == 4 for epoch in drawn for batch in epoch)
    both = sorted(value for epoch in drawn for batch in epoch for value in batch)
    assert both == sorted([*range(10), *range(10)])


def test_no_index_of_a_rating_is_rounded():
    columns = [[2, 1, 0], [0, 2**24 - 1, 2**24 - 3], [0.5, 4, 3.5]]
    (batch,) = rating_batches(*columns, 3)
    assert [v.asnumpy().tolist() for v in batch] == columns


def test_a_batch_larger_than_the_data_is_all_of_it():
    loader = row_batches(sp.csr_matrix(onp.eye(3)), 100, shuffle=True)
    assert [len(batch) for _ in range(2) for batch in loader] == [3, 3]


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (lambda: row_batches(sp.csr_matrix((0, 3)), 2), "has no rows"),
        (lambda: rating_batches([], [], [], 2), "no ratings to batch"),
        (lambda: rating_batches([0, -1], [0, 1], [3, 4], 2), "index is -1; it has"),
        (lambda: rating_batches([2**24], [1], [3], 2), "index is 16777216; it has to"),
        (lambda: rating_batches([0, 1], [-2, 1], [3, 4], 2), "index is -2; it has"),
        (lambda: row_batches(sp.csr_matrix(onp.eye(3)), 0), "batch_size is .* not 0"),
    ],
)
def test_what_cannot_be_batched_is_refused(batch, said):
    with pytest.raises(ValueError, match=said):
        batch()


def test_arrays_are_split_and_laid_out_as_wholes(oracle, monkeypatch):
    """The book walks MXNet arrays element by element, 24 s for the real data."""
    data, *shape = read_data_ml100k()
    steps = []

    def counted(step):
        return lambda *args: (steps.append(1), step(*args))[1]

    with monkeypatch.context() as patched:
        for name in ("__getitem__", "__setitem__"):
            step = getattr(mx.np.ndarray, name)
            patched.setattr(mx.np.ndarray, name, counted(step))
        parts = split_data_ml100k(data, *shape)
        matrices = [load_data_ml100k(part, *shape)[3] for part in parts]
    assert len(steps) <= len(matrices)  # MXNet's own, as it makes an array of another
    assert sum(int((m != 0).sum()) for m in matrices) == len(data)
