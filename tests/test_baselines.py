"""The models of the paper's table (c), each against a case that is worked by hand."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from d2l_autorec.errors import TrainingDiverged
from d2l_autorec.fast import Factors
from d2l_autorec.ratings import Ratings, ratings_from_frame
from d2l_autorec.study import LLORMA, RBM, BiasedMF
from d2l_autorec.study.llorma import angles, kernel
from d2l_autorec.study.rbm import Boltzmann, level_shares, polynomials, rating_levels


def table(*rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


def random_table(scale=1.0, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((30, 20)) < 0.5)
    liking = rng.normal(size=30)[users] * rng.normal(size=20)[items]
    rating = np.clip(np.round(3 + liking), 1, 5)
    return table(*zip(users, items, rating * scale + shift))


def fitted(cls, data, seed=0, **settings):
    ratings = data if isinstance(data, Ratings) else ratings_from_frame(data)
    model = cls(ratings, [], **settings)
    for _ in model.fit(np.arange(ratings.num_ratings), seed):
        pass
    return model


# Factors: of two models, the second has no weight for the pair's user.


@pytest.fixture
def factors():
    weights = np.array([[1.0, 0.5], [1.0, 0.0]]), np.array([[0.5], [1.0]])
    made = Factors(2, *weights, np.random.default_rng(0))
    made.user_factors[:] = [[[9, 9], [1, 2]], [[9, 9], [9, 9]]]
    made.item_factors[:] = [[[3, -1]], [[9, 9]]]
    made.user_bias[:], made.item_bias[:] = 0.25, -0.5
    return made


def test_a_step_goes_down_the_weighted_gradient(factors):
    before = factors.user_factors.copy()
    penalties = np.array([9.0, 0.4]), np.array([0.8])
    factors.step(np.array([1]), np.array([0]), np.array([2.0]), 0.1, *penalties)
    # The error is 2 - (0.25 - 0.5 + 3 - 2) = 1.25, the step 0.1 * 0.5 * 0.5 = 0.025.
    bias = 0.25 + 0.025 * (1.25 - 0.4 * 0.25), -0.5 + 0.025 * (1.25 + 0.8 * 0.5)
    assert [factors.user_bias[0, 1], factors.item_bias[0, 0]] == pytest.approx(bias)
    p = [1 + 0.025 * (1.25 * 3 - 0.4 * 1), 2 + 0.025 * (1.25 * -1 - 0.4 * 2)]
    q = [3 + 0.025 * (1.25 * 1 - 0.8 * 3), -1 + 0.025 * (1.25 * 2 + 0.8 * 1)]
    assert factors.user_factors[0, 1].tolist() == pytest.approx(p)
    assert factors.item_factors[0, 0].tolist() == pytest.approx(q)
    # The other user, and the model without a weight, stay.
    before[0, 1] = p
    np.testing.assert_allclose(factors.user_factors, before)
    assert factors.item_factors[1].tolist() == [[9, 9]]


def test_a_prediction_is_the_mean_of_the_models_by_their_weights(factors):
    found = factors.predict(np.array([0, 1]), np.array([0, 0]))
    first, second = 9 * 3 - 9 - 0.25, 9 * 9 + 9 * 9 - 0.25
    assert found[0] == pytest.approx((0.5 * first + second) / 1.5)
    assert found[1] == pytest.approx(0.75)
    factors.item_weight[:] = 0
    assert np.isnan(factors.predict(np.array([0]), np.array([0]))).all()


def test_one_epoch_of_biased_mf_is_one_pass_in_units_of_the_deviation():
    index, rating = np.arange(2, dtype=np.int32), np.array([1, 5], np.float32)
    data = Ratings("toy", 0 * index, index, rating, None, np.array([1]), index)
    model = fitted(BiasedMF, data, num_factors=1, num_epochs=1, lr=0.5, wd=0.0)
    assert (model.mean, model.unit) == (3, 2)
    # Whichever rating comes first moves the user's bias by half its error.
    rng = np.random.default_rng(0)
    p, (qx, qy) = rng.normal(0, 0.1, (1, 1, 1)).item(), rng.normal(0, 0.1, (1, 2, 1))[0]
    bias, q, b = 0.0, [qx.item(), qy.item()], [0.0, 0.0]
    for n in rng.permutation(2):
        error = (-1, 1)[n] - bias - b[n] - p * q[n]
        bias, b[n] = bias + 0.5 * error, b[n] + 0.5 * error
        p, q[n] = p + 0.5 * error * q[n], q[n] + 0.5 * error * p
    expected = [3 + 2 * (bias + b[n] + p * q[n]) for n in (0, 1)]
    assert model.predict(index).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_penalty_shrinks_with_the_root_of_the_ratings(monkeypatch):
    seen = []
    monkeypatch.setattr(Factors, "step", lambda self, *args: seen.append(args[4:]))
    data = table(*(("a", item, 1.0 + item % 5) for item in range(9)), ("b", 0, 2.0))
    fitted(BiasedMF, data, num_epochs=1, wd=6.0)
    (users, items) = seen[0]
    assert users.tolist() == [2, 6]
    assert items.tolist() == pytest.approx([6 / 2**0.5] + [6] * 8)


@pytest.mark.parametrize("cls", [BiasedMF, LLORMA, RBM])
def test_another_scale_gives_the_same_predictions_on_it(cls):
    near, far = random_table(), random_table(20, 7)
    found = fitted(cls, near, num_epochs=3).predict(np.arange(len(near)))
    scaled = fitted(cls, far, num_epochs=3).predict(np.arange(len(far)))
    np.testing.assert_allclose(scaled, 20 * found + 7, rtol=1e-4)


def test_what_diverges_is_said():
    with pytest.raises(TrainingDiverged, match="try a smaller lr than 50"):
        fitted(BiasedMF, random_table(), lr=50.0)


# LLORMA


def test_distances_are_angles():
    factors = np.array([[2.0, 0], [0, 5], [-1, 0], [0, 0], [3, 3]])
    found = angles(factors, np.array([0, 3])) / np.pi
    np.testing.assert_allclose(found[0], [0, 0.5, 1, 0.5, 0.25], atol=1e-3)
    np.testing.assert_allclose(found[1], 0.5)


def test_the_kernel_is_epanechnikovs():
    assert kernel(np.array([0.0, 1, 2, 3]), 2.0).tolist() == [1, 0.75, 0, 0]


def test_neighborhoods_are_around_training_ratings():
    data = random_table()
    model = fitted(LLORMA, data, num_anchors=7, width=1.0, num_epochs=2)
    assert model.factors.user_weight.shape == (7, 30)
    pairs = model.ratings.indices()
    for user_weight, item_weight in zip(
        model.factors.user_weight, model.factors.item_weight
    ):
        at_both = (user_weight[pairs[0]] > 0.999) & (item_weight[pairs[1]] > 0.999)
        assert at_both.any()


def test_where_no_neighborhood_reaches_the_model_for_all_predicts():
    data = random_table()
    model = fitted(LLORMA, data, num_anchors=3, width=1e-3, num_epochs=2)
    same = {"num_factors": 20, "wd": 0.25, "lr": 0.05, "num_epochs": 2}
    whole = fitted(BiasedMF, data, **same)
    far = np.isnan(model.factors.predict(*model.ratings.indices()))
    assert 0 < far.sum() < len(data)
    expected = whole.predict(np.arange(len(data)))[far]
    np.testing.assert_allclose(
        model.predict(np.arange(len(data)))[far], expected, rtol=1e-6
    )


# RBM


@pytest.fixture
def machine():
    made = Boltzmann(np.full((3, 3), 1 / 3), 4, 2, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for parameter in made.parameters:
        parameter[:] = rng.normal(size=parameter.shape)
    return made


def full(machine):
    """Return the weights of columns x levels x hidden units, and the two biases."""
    level_factors, hidden_factors, level_bias, hidden_bias = machine.parameters
    terms = level_factors.reshape(3, 1, 3, 2) * machine.polynomials[..., None]
    weights = terms.sum(axis=2) @ hidden_factors
    return weights.astype(float), level_bias.reshape(3, 3), hidden_bias


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def test_the_gradients_of_cd_1_on_two_rows(machine):
    rows = sp.csr_matrix(([1, 0, 2], [0, 2, 1], [0, 2, 3]), shape=(2, 3))
    weights, level_bias, hidden_bias = full(machine)
    given = [{0: 1, 2: 0}, {1: 2}]
    # The same numbers are drawn.
    draws = np.random.default_rng(5).random((2, 4), np.float32)
    d_weights, d_levels = np.zeros_like(weights), np.zeros_like(level_bias)
    d_hidden = np.zeros_like(hidden_bias)
    for row, levels in enumerate(given):
        data = sigmoid(hidden_bias + sum(weights[j, k] for j, k in levels.items()))
        drawn = draws[row] < data
        chances = {j: softmax(level_bias[j] + weights[j] @ drawn) for j in levels}
        inputs = sum(p[k] * weights[j, k] for j, p in chances.items() for k in range(3))
        model = sigmoid(hidden_bias + inputs)
        for j, k in levels.items():
            d_weights[j, k] += data / 2
            d_weights[j] -= np.outer(chances[j], model) / 2
            d_levels[j, k] += 0.5
            d_levels[j] -= chances[j] / 2
        d_hidden += (data - model) / 2
    # By the chain rule, to the factors of the weights.
    level_factors, hidden_factors = machine.parameters[:2]
    d_terms = np.einsum("kt,jkf->jtf", machine.polynomials, d_weights).reshape(9, 4)
    expected = (
        *(d_terms @ hidden_factors.T, level_factors.T @ d_terms),
        *(d_levels.ravel(), d_hidden),
    )
    found = machine.gradients(rows, np.random.default_rng(5))
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_step_goes_up_the_gradients_less_the_decay(machine):
    rows = sp.csr_matrix(([1, 0, 2], [0, 2, 1], [0, 2, 3]), shape=(2, 3))
    before = [parameter.copy() for parameter in machine.parameters]
    gradients = machine.gradients(rows, np.random.default_rng(5))
    machine.step(rows, 0.8, 10.0, np.random.default_rng(5))
    # The first step by Adam is the sign of the gradient, as long as lr says.
    for parameter, old, gradient, lr, wd in zip(
        machine.parameters, before, gradients, (0.8, 0.1, 0.8, 0.8), (10, 10, 0, 0)
    ):
        uphill = gradient - wd * old
        known = abs(uphill) > 1e-3
        expected = lr * np.sign(uphill)
        np.testing.assert_allclose((parameter - old)[known], expected[known], rtol=1e-3)


def test_chances_of_levels_given_the_ratings_of_the_row(machine):
    rows = sp.csr_matrix(([1], [0], [0, 1, 1]), shape=(2, 3))
    cells = sp.csr_matrix(([1, 1], [2, 1], [0, 1, 2]), shape=(2, 3))
    found = machine.chances(rows, cells)
    weights, level_bias, hidden_bias = full(machine)
    for n, (j, inputs) in enumerate([(2, weights[0, 1]), (1, 0)]):
        hidden = sigmoid(hidden_bias + inputs)
        expected = softmax(level_bias[j] + weights[j] @ hidden)
        np.testing.assert_allclose(found[n], expected, rtol=1e-4)


def test_a_prediction_is_the_expected_level():
    data = table(("a", "x", 2.0), ("a", "y", 4.0), ("b", "x", 4.0))
    model = fitted(RBM, data, num_epochs=1)
    model.machine.chances = lambda rows, cells: np.tile([0.25, 0.75], (cells.nnz, 1))
    assert model.predict(np.arange(len(data))).tolist() == [3.5] * 3


def test_weights_of_levels_are_polynomials_of_them():
    found = polynomials(5)
    expected = [[1] * 5, [-2, -1, 0, 1, 2], [2, -1, -2, -1, 2]]
    for column, values in zip(found.T, expected):
        share = np.array(values) / np.linalg.norm(values)
        np.testing.assert_allclose(abs(column @ share), 1, rtol=1e-5)
    assert polynomials(2).shape == (2, 2)


def test_levels_are_the_distinct_ratings_and_few():
    levels, codes = rating_levels(np.array([4.5, 1.0, 4.5, 3.0]))
    assert (levels.tolist(), codes.tolist()) == ([1, 3, 4.5], [2, 0, 2, 1])
    rating = np.arange(1.0, 101)
    levels, codes = rating_levels(rating)
    assert levels.tolist() == [5.5 + 10 * n for n in range(10)]
    assert codes.tolist() == [n // 10 for n in range(100)]


def test_levels_start_as_often_as_they_are_given():
    visible = sp.csr_matrix(([0, 1, 1], [0, 0, 1], [0, 2, 3]), shape=(2, 3))
    shares = level_shares(visible, 2, prior=3)
    expected = [[2 / 5, 3 / 5], [1 / 4, 3 / 4], [1 / 3, 2 / 3]]
    np.testing.assert_allclose(shares, expected)


@pytest.mark.parametrize("kind", ["item", "user"])
def test_an_rbm_learns(kind):
    data = random_table()
    settings = {"num_hidden": 10, "num_factors": 4, "batch_size": 5}
    model = fitted(RBM, data, kind=kind, lr=0.3, num_epochs=30, **settings)
    assert model.title == f"{kind[0].upper()}-RBM"
    columns = 30 if kind == "item" else 20
    assert model.num_parameters == columns * (3 * 4 + 5) + 4 * 10 + 10
    error = model.predict(np.arange(len(data))) - data["rating"]
    assert np.sqrt(np.mean(error**2)) < 0.8 * data["rating"].std()
