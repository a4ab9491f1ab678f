"""What settings, blends of them, and the parts of ratings may be."""

import numpy as np
import pytest
import scipy.sparse as sp

from d2l_autorec.training import PRESETS, Blend, Parts, Recipe, Run
from d2l_autorec.training.settings import ACTIVATIONS, OPTIMIZERS

LAYERS = "a whole number from 1 or a tuple of such"
COLD = "a number or mean or biases or net"
NAN, INF = float("nan"), float("inf")
WRONG = {
    "num_hidden": ([0, 2**31, 2.0, True, (), (8, -1), ((8,),), [8, 4]], LAYERS),
    "kind": (["users", ("item",)], "one of item, user"),
    "activation": (["softmax"], f"one of {', '.join(ACTIVATIONS)}"),
    "output": ([None], "one of identity, "),
    "dropout": ([1, -0.1], "from 0 to below 1"),
    "input_dropout": ([NAN, "0.5"], "from 0 to below 1"),
    "balance": ([1.5, -1], "from 0 to 1"),
    "loss": (["l2"], "one of book, paper, rmse"),
    "optimizer": (["adamax", "Adam", None], f"one of {', '.join(OPTIMIZERS)}"),
    "lr": ([0, INF, True, 10**400, 1e300, 1e-300], "a number above 0"),
    "schedule": (["cos"], "one of constant, cosine"),
    "wd": ([-1.0, NAN, "auto", 10**400, 1e-300], "a number from 0 or auto"),
    "num_epochs": ([0, None, 2**31], "a whole number from 1"),
    "pretrain_epochs": ([-1], "a whole number from 0"),
    "batch_size": ([0, "all"], "a whole number from 1 or all"),
    "clip": ([1, "no"], "one of false, true"),
    "cold": (["zero", "net", -INF, False, 10**400], COLD),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_makes_no_sense_is_refused(name):
    values, wanted = WRONG[name]
    for value in values:
        with pytest.raises(ValueError) as refused:
            Recipe(**{name: value})
        assert str(refused.value).startswith(f"{name}={value!r} is not {wanted}")


LEFT_OUT = {"leave_one_out": True, "dropout": 0, "num_hidden": (8,)}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pretrain_epochs": 2}, "pretrain_epochs=2 needs several hidden layers"),
        ({"pretrain_epochs": 2, "num_hidden": (4, 3)}, "the first as large as the "),
        ({"pretrain_epochs": 2, "num_hidden": (3, 4)}, "the first as large as the "),
        ({"wd": None}, "the book loss needs a weight decay"),
        ({"residual": True, "output": "relu"}, "residual needs the identity output"),
        ({"from_mean": True, "output": "tanh"}, "from_mean needs the identity output"),
        ({"residual": True, "standardize": True}, "nothing to standardize: choose one"),
        ({"optimizer": "rprop"}, "rprop needs all rows in one batch"),
        *(
            ({**LEFT_OUT, name: value}, "leave_one_out needs one layer of sigmoid")
            for name, value in {
                **{"num_hidden": (8, 4), "activation": "tanh", "output": "sigmoid"},
                **{"dropout": 0.05, "loss": "rmse", "optimizer": "sgd"},
            }.items()
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**settings)


def test_settings_that_make_sense_are_taken():
    Recipe((8, 4), optimizer="sgd", lr=1, cold=-2, wd=0, batch_size=None, clip=True)
    Recipe((8, 4, 8), pretrain_epochs=1, loss="paper", wd=None, cold="mean")
    Recipe(**LEFT_OUT, kind="user", loss="paper")
    assert Recipe().averaged(1) == Recipe()


# A blend.


@pytest.mark.parametrize(
    ("recipes", "weights", "said"),
    [
        ((), None, "have as many epochs each"),
        ((Recipe(), Recipe(num_epochs=3)), None, "have as many epochs each"),
        ((Recipe(),), (0.5, 0.5), "are not as many as the recipes"),
        ((Recipe(),), (-0.1,), "weight=-0.1 is not a number from 0 to 100"),
        ((Recipe(),), (NAN,), "weight=nan is not a number from 0 to 100"),
    ],
)
def test_a_blend_that_makes_no_sense_is_refused(recipes, weights, said):
    with pytest.raises(ValueError, match=said):
        Blend(recipes, weights)


def test_a_blend_is_changed_and_averaged_as_its_recipes():
    one, other = Recipe(), Recipe(kind="user", schedule="cosine", num_epochs=25)
    blend = Blend((one, other), (0.4, 0.2)).averaged(2)
    assert blend == Blend((one, other) * 2, (0.2, 0.1, 0.2, 0.1))
    assert Blend((one, other)).averaged(2).weights is None
    assert one.averaged(4) == Blend((one,) * 4, (0.25,) * 4)
    changed = blend.changed(lr=0.5)
    assert changed.weights == blend.weights
    assert {recipe.lr for recipe in changed.recipes} == {0.5}


# Parts and runs.

MATRIX = sp.csr_matrix([[1, 0, 2], [0, 3, 0]], dtype=np.float32)


def make_run(recipe=PRESETS["book"], seed=0, patience=None, train_mat=MATRIX, **fields):
    return Run(Parts(train_mat, **fields), recipe, seed, patience)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"train_mat": None}, "train_mat: "),
        ({"train_mat": -MATRIX}, "train_mat: ratings from -3 "),
        ({"valid_mat": MATRIX[:1]}, r"valid_mat: is of shape \(1, 3\), not of \(2, 3"),
        ({"test_mat": 0 * MATRIX}, "test_mat: holds no rating"),
        ({"test_mat": []}, "test_mat: "),
        ({"user_ids": ["a", "b"]}, r"train_mat: is of shape \(2, 3\), not of \(2, 2"),
        ({"item_ids": ["a", "a"]}, "item_ids: an id occurs twice"),
        ({"item_ids": ["a", 1]}, "item_ids: 1 of type int is no id"),
        ({"recipe": "book"}, "recipe='book' is not a Recipe or a Blend"),
        ({"seed": 1.0}, "seed=1.0 is not a whole number from 0"),
        ({"seed": 2**31}, "seed=2147483648 is not a whole number from 0"),
        ({"patience": 0}, "patience=0 is not a whole number from 1 or None"),
        ({"patience": 2}, "patience=2 needs a validation part"),
    ],
)
def test_parts_and_runs_that_make_no_sense_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        make_run(**fields)


def test_parts_are_put_in_order_and_numbered():
    unsorted = sp.csr_matrix(([2.0, 1.0, 3.0], [2, 0, 1], [0, 2, 3]), MATRIX.shape)
    parts = Parts(unsorted, MATRIX)
    assert parts.train_mat.indices.tolist() == [0, 2, 1]
    assert [parts.item_ids.tolist(), parts.user_ids.tolist()] == [[0, 1], [0, 1, 2]]
    assert parts.matrices == [parts.train_mat, parts.test_mat]
