"""Models of lists: what each computes, and what all of them keep."""

import functools

import numpy as np
import pytest
import scipy.sparse as sp

from d2l_autorec.errors import DataError, TrainingDiverged
from d2l_autorec.topn import (
    CDAE,
    CVAE,
    EASE,
    Mixture,
    MultDAE,
    MultVAE,
    Popularity,
    UserEASE,
    bag_of_words,
    choose,
    evaluate,
    make,
    split_pairs,
)
from d2l_autorec.topn.cvae import least_squares
from d2l_autorec.topn.mixture import standardized

NETWORK = {"num_hidden": 12, "num_epochs": 60, "batch_size": 32, "lr": 0.01}
MODELS_HERE = {
    "popularity": Popularity(),
    "ease": EASE(5.0, dropout=0.2, power=0.5),
    "user-ease": UserEASE(5.0),
    "cdae": CDAE(**NETWORK),
    "cdae, squared": CDAE(**NETWORK, objective="squared"),
    "mult-dae": MultDAE(**NETWORK, num_factors=4),
    "mult-vae": MultVAE(**NETWORK, num_factors=4),
    "cvae": CVAE(num_hidden=8, num_factors=4, num_epochs=60, num_rounds=3, lr=0.01),
    "best": Mixture([EASE(5.0), MultVAE(**NETWORK, num_factors=4)], [0.4, 0.6]),
}


@pytest.fixture(scope="module")
def inter_mat():
    """Two groups of 40 users, each with half of 30 items, and some noise."""
    rng = np.random.default_rng(0)
    own = np.equal.outer(np.arange(30) % 2, np.arange(80) % 2)  # (items, users)
    return sp.csr_matrix((rng.random((30, 80)) < np.where(own, 0.5, 0.03)) * 1.0)


@pytest.fixture(scope="module")
def words():
    """A word for each group, and one for all."""
    return sp.csr_matrix([[number % 2, 1 - number % 2, 1] for number in range(30)])


@pytest.fixture(scope="module")
def fit(inter_mat, words):
    """Fit a model that has not learned anything yet."""

    def fit(name, train_mat=inter_mat, seed=3):
        model = make(MODELS_HERE[name].name, MODELS_HERE[name].settings)
        if name == "cvae":
            model.words = words
        return model.fit(train_mat, seed)

    return fit


@pytest.fixture(scope="module", params=MODELS_HERE)
def fitted(request, fit):
    """Each model's name, and the model."""
    return request.param, fit(request.param)


def test_a_seed_gives_the_same_scores_twice(fitted, fit, inter_mat):
    name, model = fitted
    rows = inter_mat.T.tocsr()
    assert np.array_equal(fit(name).scores(rows), model.scores(rows))


def test_what_was_learned_opens_again(fitted, inter_mat):
    _, model = fitted
    rows, users = inter_mat.T.tocsr(), np.arange(80)
    opened = make(model.name, model.settings).load(model.arrays)
    assert np.array_equal(opened.scores(rows, users), model.scores(rows, users))
    assert opened.settings == model.settings


def test_how_often_does_not_matter(fitted, fit, inter_mat):
    name, model = fitted
    rows = inter_mat.T.tocsr()
    assert np.array_equal(fit(name, inter_mat * 7).scores(rows * 7), model.scores(rows))


def test_a_row_is_scored_alone(fitted, inter_mat):
    _, model = fitted
    rows = inter_mat.T.tocsr()
    alone = model.scores(rows[5:6])[0]
    assert alone == pytest.approx(model.scores(rows)[5], rel=1e-3, abs=1e-4)


def test_an_empty_row_has_finite_scores(fitted):
    _, model = fitted
    assert np.isfinite(model.scores(sp.csr_matrix((1, 30)))).all()


def test_item_vectors_are_of_the_items(fitted):
    _, model = fitted
    vectors = model.item_vectors()
    assert vectors is None if model.name == "popularity" else len(vectors) == 30


@pytest.mark.parametrize("name", [*MODELS_HERE][1:])
def test_it_finds_what_the_group_takes(name, fit, inter_mat):
    train_mat, test_mat = split_pairs(inter_mat, 0.2, 0)

    def found(model):
        return evaluate(model, train_mat, test_mat, (5,)).mean["ndcg@5"]

    assert found(fit(name, train_mat)) > 1.2 * found(fit("popularity", train_mat))


def test_no_pairs_are_refused(fit):
    with pytest.raises(DataError, match="no pair"):
        fit("ease", sp.csr_matrix((30, 80)))


def test_a_network_that_diverges_says_so(inter_mat):
    with pytest.raises(TrainingDiverged, match="epoch"), np.errstate(all="ignore"):
        MultDAE(num_hidden=4, num_factors=2, lr=1e38, num_epochs=9).fit(inter_mat)


def test_an_epoch_may_be_the_last(inter_mat):
    epochs = []
    model = MultDAE(num_hidden=4, num_factors=2, num_epochs=9)
    model.fit(inter_mat, 0, lambda epoch: epochs.append(epoch) or epoch == 2)
    assert epochs == [1, 2]


def ridge(targets, others, l2):
    """Regress one column on others: the textbook's formula."""
    return np.linalg.solve(
        others.T @ others + l2 * np.eye(others.shape[1]), others.T @ targets
    )


def test_ease_regresses_each_item_on_all_others(inter_mat):
    x = inter_mat.T.toarray()
    others = np.arange(30) != 4
    expected = x[:, others] @ ridge(x[:, 4], x[:, others], 7.0)
    found = EASE(7.0).fit(inter_mat).scores(inter_mat.T.tocsr())[:, 4]
    assert found == pytest.approx(expected, abs=1e-5)


def test_its_twin_orders_items_as_a_regression_of_users_does(inter_mat):
    x = inter_mat.T.toarray()
    others = np.arange(80) != 4
    expected = ridge(x[4], x[others].T, 7.0) @ x[others]
    found = UserEASE(7.0).fit(inter_mat).scores(inter_mat.T.tocsr())[4]
    unseen = x[4] == 0
    ratio = found[unseen] / expected[unseen]
    assert ratio == pytest.approx(ratio[0], rel=1e-3)
    assert ratio[0] > 0


def test_dropout_is_a_penalty_of_its_own(inter_mat):
    x = inter_mat.T.toarray()
    inverse = np.linalg.inv(x.T @ x + np.diag(7 + x.sum(axis=0) / 4))
    expected = -inverse / np.diag(inverse) * (1 - np.eye(30))
    found = EASE(7.0, dropout=0.2).fit(inter_mat).arrays["weight"]
    assert found == pytest.approx(expected, abs=1e-5)


def test_power_weighs_users_by_their_sets(inter_mat):
    x = inter_mat.T.toarray()
    sizes = np.maximum(x.sum(axis=1), 1)
    weighted = x * np.sqrt(1 / sizes * x.sum() / np.sum(x.sum(axis=1) / sizes))[:, None]
    expected = EASE(7.0).fit(inter_mat)
    inverse = np.linalg.inv(weighted.T @ weighted + 7 * np.eye(30))
    expected = -inverse / np.diag(inverse) * (1 - np.eye(30))
    found = EASE(7.0, power=1.0).fit(inter_mat).arrays["weight"]
    assert found == pytest.approx(expected, abs=1e-5)


def test_too_many_items_are_refused_in_a_line():
    wide = sp.csr_matrix(([1.0], ([0], [0])), (10_000_000, 1))
    with pytest.raises(DataError, match=r"^ease: 10,000,000 x .* GB of memory; .*$"):
        EASE().fit(wide)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("cdae", {"objective": "squared"}),
        ("mult-dae", {"dropout": 0.0}),
        ("mult-dae", {"wd": 0.1}),
        ("mult-dae", {"batch_size": 80}),
        ("mult-vae", {"beta": 5.0}),
        ("mult-vae", {"num_annealing": 1}),
        ("cvae", {"l2_users": 5.0}),
        ("cvae", {"l2_items": 1.0}),
        ("cvae", {"other": 0.1}),
        ("cvae", {"num_rounds": 1}),
    ],
)
def test_each_setting_makes_a_difference(name, changed, fitted_ten, words, inter_mat):
    settings = {**MODELS_HERE[name].settings, "num_epochs": 10, **changed}
    model = make(name, settings)
    if name == "cvae":
        model.words = words
    scores = model.fit(inter_mat, 3).scores(inter_mat.T.tocsr())
    assert not np.allclose(scores, fitted_ten(name), rtol=1e-3)


@pytest.fixture(scope="module")
def fitted_ten(words, inter_mat):
    """Scores of a model after ten epochs."""

    def scores(name):
        model = make(name, {**MODELS_HERE[name].settings, "num_epochs": 10})
        if name == "cvae":
            model.words = words
        return model.fit(inter_mat, 3).scores(inter_mat.T.tocsr())

    return functools.cache(scores)


class Listening(MultDAE):
    """Keeps the scores that training computes, a mean over the users."""

    def loss(self, scores, rows):
        self.heard = [*getattr(self, "heard", []), scores.asnumpy().mean(axis=0)]
        return super().loss(scores, rows)


def test_dropout_leaves_the_mean_as_it_is(inter_mat):
    settings = {"num_hidden": 12, "num_factors": 4, "batch_size": 80, "lr": 0.0}
    model = Listening(**settings, dropout=0.5, num_epochs=60).fit(inter_mat)
    expected = model.scores(inter_mat.T.tocsr()).mean(axis=0)
    found = np.mean(model.heard, axis=0)
    assert found @ expected / (expected @ expected) == pytest.approx(1, abs=0.15)
    assert not np.allclose(model.heard[0], expected, rtol=1e-3)


def test_the_middle_layer_is_drawn_with_variances_that_are_learned(inter_mat):
    model = MultVAE(num_hidden=12, num_factors=4, beta=0.0, num_epochs=1)
    before = model.fit(inter_mat).arrays["middle.weight"][4:].copy()
    model.num_epochs = 2
    assert (model.fit(inter_mat).arrays["middle.weight"][4:] != before).all()


def test_cdae_has_a_vector_for_each_known_user(fit, inter_mat):
    model, rows = fit("cdae"), inter_mat.T.tocsr()[[0, 0, 0]]
    new = model.scores(rows)
    assert np.array_equal(model.scores(rows, np.array([-1, -1, -1])), new)
    first, second, unknown = model.scores(rows, np.array([0, 1, -1]))
    assert not np.allclose(first, new[0])
    assert not np.allclose(first, second)
    assert unknown == pytest.approx(new[2])


def test_other_models_do_not_look_who_it_is(fit, inter_mat):
    rows = inter_mat.T.tocsr()
    model = fit("mult-vae")
    assert np.array_equal(model.scores(rows, np.arange(80)), model.scores(rows))


def test_least_squares_are_weighted():
    rng = np.random.default_rng(0)
    factors, means = rng.random((6, 3)), rng.random((1, 3))
    x = np.array([1, 0, 0, 1, 0, 0])
    weight = np.diag(np.where(x, 1, 0.1))
    gram = factors.T @ weight @ factors + 0.5 * np.eye(3)
    expected = np.linalg.solve(gram, factors.T @ weight @ x + 0.5 * means[0])
    found = least_squares(sp.csr_matrix(x), factors, 0.1, 0.5, means)
    assert found[0] == pytest.approx(expected, rel=1e-5)


def test_cvae_ranks_items_that_nobody_has_taken(words, inter_mat):
    kept = sp.diags((np.arange(30) >= 6) * 1.0) @ inter_mat
    kept.eliminate_zeros()
    model = CVAE(**MODELS_HERE["cvae"].settings, words=words).fit(kept.tocsr())
    assert model.cold_items().tolist() == [*range(6)]
    scores = model.scores(inter_mat.T.tocsr())[:, :6]
    even = scores[::2]  # users of the group that takes items 0, 2 and 4
    assert even[:, ::2].mean() > even[:, 1::2].mean() + 0.1


@pytest.mark.parametrize("words", [None, sp.csr_matrix((29, 3))])
def test_cvae_needs_words(words, inter_mat):
    with pytest.raises(DataError, match="words"):
        CVAE(words=words).fit(inter_mat)


def test_standardized_over_what_is_unseen():
    scores = np.array([[1.0, 3.0, 99.0], [5.0, 5.0, 5.0]])
    seen = sp.csr_matrix([[0, 0, 2.0], [0, 0, 0]])
    found = standardized(scores, seen)
    assert found[0, :2].tolist() == [-1, 1]
    assert found[1].tolist() == [0, 0, 0]


def test_a_mixture_adds_up(inter_mat):
    rows = inter_mat.T.tocsr()
    members = [EASE(5.0), UserEASE(50.0)]
    found = Mixture(members, [0.25, 0.75]).fit(inter_mat).scores(rows)
    expected = 0.25 * standardized(members[0].scores(rows), rows)
    expected += 0.75 * standardized(members[1].scores(rows), rows)
    assert found == pytest.approx(expected, abs=1e-5)


class Backwards(EASE):
    """The worst first."""

    def scores(self, rows, users=None):
        return -super().scores(rows)


def test_choose_keeps_the_better_settings_and_epochs(inter_mat):
    options = [[Backwards(5.0), EASE(5.0)], [MultVAE(**NETWORK, num_factors=4)]]
    mixture = choose(inter_mat, 0, options)
    ease, network = mixture.members
    assert type(ease) is EASE
    assert 0 < network.num_epochs <= NETWORK["num_epochs"]
    assert network.num_epochs % 5 == 0
    assert sum(mixture.weights) == pytest.approx(1)


def test_choose_ends_a_network_that_does_not_rise(inter_mat):
    epochs = []
    model = MultDAE(num_hidden=12, num_factors=4, num_epochs=200, lr=0.03)
    mixture = choose(inter_mat, 0, [[model]], epochs.append)
    assert len(epochs) == mixture.members[0].num_epochs + 20 < 200


def test_choose_tries_models_that_have_no_epochs_to_choose(inter_mat, words):
    options = [CVAE(num_hidden=4, num_factors=2, words=words, num_epochs=20)]
    mixture = choose(inter_mat, 0, [options, [EASE(5.0)]])
    assert mixture.members[0].num_epochs == 20


def test_choose_gives_a_useless_member_no_weight(inter_mat):
    assert choose(inter_mat, 0, [[EASE(5.0)], [Backwards(5.0)]]).weights == [1, 0]


class TooLarge(EASE):
    """What no machine holds."""

    def fit_rows(self, rows, seed, on_epoch):
        raise DataError("too large")


def test_choose_leaves_out_what_memory_does_not_hold(inter_mat):
    mixture = choose(inter_mat, 0, [[TooLarge(5.0)], [Popularity()]])
    assert [member.name for member in mixture.members] == ["popularity"]
    with pytest.raises(DataError, match="too large"):
        choose(inter_mat, 0, [[TooLarge(5.0)]])


def test_what_is_chosen_has_learned_nothing_yet(inter_mat):
    options = [[EASE(5.0)], [MultVAE(**NETWORK, num_factors=4)]]
    mixture = choose(inter_mat, 0, options)
    assert not any(member.arrays for member in mixture.members)


def test_choose_does_not_change_what_it_is_given(inter_mat):
    options = [[EASE(5.0)], [MultVAE(**NETWORK, num_factors=4)]]
    choose(inter_mat, 0, options)
    assert not any(model.arrays for one in options for model in one)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [("bpr", {}, "'bpr' is not one of popularity"), ("ease", {"k": 1}, "ease: .*'k'")],
)
def test_unknown_names_are_refused(name, settings, message):
    with pytest.raises(DataError, match=message):
        make(name, settings)


def test_pairs_are_split(inter_mat):
    train_mat, held_out_mat = split_pairs(inter_mat, 0.25, 1)
    assert ((train_mat + held_out_mat) != inter_mat).nnz == 0
    assert held_out_mat.nnz == pytest.approx(0.25 * inter_mat.nnz, rel=0.2)
    assert (split_pairs(inter_mat, 0.25, 1)[0] != train_mat).nnz == 0


def test_a_part_is_not_empty(inter_mat):
    with pytest.raises(DataError, match="too few"):
        split_pairs(inter_mat, 0.0, 0)


def test_words_of_items():
    found = bag_of_words(["Toy Story (1995) Comedy", "comedy", "Heat (1995)"])
    assert found.toarray().tolist() == [[1, 1], [0, 1], [1, 0]]  # 1995, comedy
