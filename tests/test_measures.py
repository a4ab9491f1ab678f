"""Measures of lists: by hand, and beside ir-measures."""

import ir_measures
import numpy as np
import pytest
import scipy.sparse as sp

from d2l_autorec.errors import DataError
from d2l_autorec.topn import Popularity, evaluate
from d2l_autorec.topn.measures import measure, top_k


def rows(*sets, num_items=6):
    ends = np.cumsum([0, *map(len, sets)])
    indices = [item for one in sets for item in one]
    return sp.csr_matrix((np.ones(len(indices)), indices, ends), (len(sets), num_items))


NOTHING = rows([])


@pytest.mark.parametrize(
    ("scores", "seen", "k", "expected"),
    [
        ([3, 1, 2, 0, 5, 4], NOTHING, 3, [4, 5, 0]),
        ([3, 1, 2, 0, 5, 4], rows([4, 0]), 3, [5, 2, 1]),
        ([1, 2, 2, 2, 0, 2], NOTHING, 3, [1, 2, 3]),  # of equal ones, the lower index
        ([0, 0, 0, 0, 0, 0], rows([0]), 2, [1, 2]),
        ([1, 2, 3, 4, 5, 6], rows([1, 2, 3, 4]), 4, [5, 0, -1, -1]),
        ([np.nan, 2, -np.inf, 1, 0, -1], NOTHING, 6, [1, 3, 4, 5, -1, -1]),
        ([1, 2, 3, 4, 5, 6], NOTHING, 8, [5, 4, 3, 2, 1, 0, -1, -1]),
    ],
)
def test_what_is_listed(scores, seen, k, expected):
    assert top_k(np.array([scores], float), seen, k).tolist() == [expected]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The list 0 1 2 3; held out are 1, 3 and 5.
        ("ndcg@4", (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3) + 1 / 2)),
        ("ndcg@2", (1 / np.log2(3)) / (1 + 1 / np.log2(3))),
        ("recall@4", 2 / 3),
        ("precision@4", 2 / 4),
        ("map@4", (1 / 2 + 2 / 4) / 3),
        ("mrr@4", 1 / 2),
        ("mrr@1", 0),
        ("hit_rate@1", 0),
        ("hit_rate@2", 1),
        ("coverage@2", 2 / 6),
    ],
)
def test_measures_by_hand(name, expected):
    found = measure(np.array([[0, 1, 2, 3]]), rows([1, 3, 5]), at=(1, 2, 4))
    assert found.mean[name] == pytest.approx(expected)


def test_places_without_an_item_are_no_hits():
    found = measure(np.array([[0, -1], [5, -1]]), rows([5], [4]), at=(2,))
    assert found.mean["recall@2"] == 0
    assert found.mean["coverage@2"] == 2 / 6


def test_measures_beside_ir_measures():
    rng = np.random.default_rng(0)
    scores = rng.random((40, 60))
    held_out = sp.csr_matrix(rng.random((40, 60)) < 0.1)
    held_out = held_out[np.flatnonzero(np.diff(held_out.indptr))]
    scores = scores[: held_out.shape[0]]
    nothing = sp.csr_matrix(scores.shape)
    names = {
        "ndcg": ir_measures.nDCG,
        "recall": ir_measures.R,
        "precision": ir_measures.P,
        "map": ir_measures.AP,
        "mrr": ir_measures.RR,
        "hit_rate": ir_measures.Success,
    }
    qrels = [
        ir_measures.Qrel(str(row), str(item), 1)
        for row, item in zip(*held_out.nonzero())
    ]
    run = [
        ir_measures.ScoredDoc(str(row), str(item), scores[row, item])
        for row, item in np.ndindex(scores.shape)
    ]
    theirs = {f"{name}@{k}": its @ k for name, its in names.items() for k in (5, 20)}
    values = ir_measures.calc_aggregate(theirs.values(), qrels, run)
    ours = measure(top_k(scores, nothing, 20), held_out, (5, 20)).mean
    assert {name: ours[name] for name in theirs} == pytest.approx(
        {name: values[its] for name, its in theirs.items()}
    )


def test_evaluate_ranks_what_is_not_given():
    # Items 0, 1, 2 have 3, 2 and 1 pairs; users 1 and 2 have items 0 and 1.
    given = sp.csr_matrix([[1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]])
    test = sp.csr_matrix([[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]])
    found = evaluate(Popularity().fit(given), given, test, at=(1,))
    assert found.per_user["recall@1"].to_dict() == {0: 1, 1: 1, 3: 1}


@pytest.mark.parametrize("test", [np.zeros((3, 3)), np.ones((3, 2))])
def test_evaluate_refuses(test):
    given = sp.csr_matrix(np.eye(3))
    with pytest.raises(DataError):
        evaluate(Popularity().fit(given), given, sp.csr_matrix(test))
