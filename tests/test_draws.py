"""The units that dropout keeps, beside those that MXNet draws."""

import mxnet as mx
import numpy as onp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mxnet import autograd, gluon

from d2l_autorec.fast.draws import Draws

SHAPE = 30, 70


def by_mxnet(dropout, shape=SHAPE):
    with autograd.train_mode():
        return dropout(mx.np.ones(shape)).asnumpy()


def by(draws, dropout, shape=SHAPE):
    kept = onp.full(shape, -1, onp.float32)
    draws.keep(dropout, kept)
    return kept


def begun(seed):
    """Draws from a seed, as MXNet's are."""
    mx.random.seed(seed)
    draws = Draws()
    draws.begin(seed)
    return draws


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**31 - 1),
    st.lists(
        st.tuples(
            st.integers(1, 99), st.tuples(st.integers(1, 300), st.integers(1, 700))
        ),
        max_size=6,
    ),
)
def test_all_that_follow_a_seed_are_those_of_mxnet(seed, more):
    layers = [
        (gluon.nn.Dropout(percent / 100), shape)
        for percent, shape in [(50, SHAPE), *more]
    ]
    draws = begun(seed)
    found = [by(draws, *layer) for layer in layers]
    mx.random.seed(seed)
    for kept, layer in zip(found, layers):
        onp.testing.assert_array_equal(kept, by_mxnet(*layer))


@pytest.mark.usefixtures("two_threads")
def test_several_threads_draw_what_one_does():
    dropout, shape = gluon.nn.Dropout(0.05), (300, 501)
    draws = begun(7)
    found = [by(draws, dropout, shape) for _ in range(8)]
    mx.random.seed(7)
    for kept in found:
        onp.testing.assert_array_equal(kept, by_mxnet(dropout, shape))


def test_mxnet_draws_the_first_ones_and_no_others():
    dropout, draws = gluon.nn.Dropout(0.5), begun(3)
    _, second, _ = (by(draws, dropout) for _ in range(3))
    onp.testing.assert_array_equal(by_mxnet(dropout), second)
    mx.random.seed(4)
    draws.begin(4)
    first, second = (by(draws, dropout) for _ in range(2))
    onp.testing.assert_array_equal(by_mxnet(dropout), first)
    onp.testing.assert_array_equal(by_mxnet(dropout), second)


@pytest.mark.parametrize(
    "elsewhere",
    [lambda: mx.np.random.uniform(size=5), lambda: mx.random.seed(4)],
    ids=["somebody drew", "another seed"],
)
def test_mxnet_draws_all_where_it_is_elsewhere(elsewhere):
    dropout, draws = gluon.nn.Dropout(0.5), begun(3)
    elsewhere()
    found = [by(draws, dropout) for _ in range(3)]
    mx.random.seed(3)
    elsewhere()
    for kept in found:
        onp.testing.assert_array_equal(kept, by_mxnet(dropout))


def test_mxnet_draws_all_where_the_first_are_too_few_to_tell():
    dropout, draws = gluon.nn.Dropout(0.5), begun(3)
    found = [by(draws, dropout, shape) for shape in ((2, 5), SHAPE, SHAPE)]
    after = by_mxnet(dropout)
    mx.random.seed(3)
    for kept in found:
        onp.testing.assert_array_equal(kept, by_mxnet(dropout, kept.shape))
    onp.testing.assert_array_equal(after, by_mxnet(dropout))


def test_without_a_seed_mxnet_draws_all():
    dropout, draws = gluon.nn.Dropout(0.5), Draws()
    mx.random.seed(3)
    found = [by(draws, dropout) for _ in range(2)]
    mx.random.seed(3)
    for kept in found:
        onp.testing.assert_array_equal(kept, by_mxnet(dropout))
