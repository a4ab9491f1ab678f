"""Numbers packed for the way from one worker to another."""

import numpy as onp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2l_autorec.fast.parcels import FineParcel, Parcel, RoundedParcel

numbers = (
    st.sampled_from([1e-35, 1e-3, 1.0, 1e38])
    .flatmap(lambda most: st.lists(st.floats(-most, most), max_size=1200))
    .map(lambda values: onp.array(values, onp.float32))
)


def sent(kind, values):
    """Put numbers in a parcel; return what comes out of one with the same bytes."""
    there, here = kind(values.size), kind(values.size)
    here.memory[:] = there.pack(values)
    found = onp.full_like(values, 7)
    here.copy_to(found)
    return found


@given(numbers)
def test_a_parcel_keeps_numbers_as_they_are(values):
    before = values.copy()
    onp.testing.assert_array_equal(sent(Parcel, values), before)
    onp.testing.assert_array_equal(values, before)


@pytest.mark.parametrize(
    ("kind", "share"), [(RoundedParcel, 1 / 65_534), (FineParcel, 1 / 3_000_000)]
)
@given(numbers)
@settings(deadline=None)  # the first one compiles
def test_rounded_numbers_are_off_by_a_share_of_the_largest_neighbour(
    kind, share, values
):
    before = values.astype(float)
    found = sent(kind, values)
    # Who sends goes on with what others get.
    onp.testing.assert_array_equal(values, found)
    for first in range(0, before.size, 256):
        its = slice(first, first + 256)
        largest = abs(before[its]).max()
        allowed = largest if largest < 1e-30 else largest * share * 1.01
        assert (abs(found[its] - before[its]) <= allowed).all()


@pytest.mark.parametrize("kind", [Parcel, RoundedParcel, FineParcel])
def test_what_is_in_a_parcel_is_added_to_numbers(kind):
    first, second = onp.random.default_rng(0).normal(size=(2, 1200)).astype(onp.float32)
    parcel = kind(1200)
    parcel.memory[:] = parcel.pack(first)
    expected = first + second
    parcel.add_to(second)
    onp.testing.assert_array_equal(second, expected)


@pytest.mark.parametrize(
    ("kind", "num_bytes"), [(Parcel, 4), (RoundedParcel, 2), (FineParcel, 3)]
)
def test_a_parcel_has_few_bytes(kind, num_bytes):
    beyond = 0 if kind is Parcel else 20 * 4  # the largest of each 256
    assert kind(5120).memory.nbytes == 5120 * num_bytes + beyond


@pytest.mark.parametrize("kind", [RoundedParcel, FineParcel])
@pytest.mark.parametrize("value", [onp.nan, onp.inf, -onp.inf])
@pytest.mark.parametrize("place", [0, 256, 1199])
def test_what_is_not_finite_stays_so(kind, value, place):
    values = onp.ones(1200, onp.float32)
    values[place] = value
    found = sent(kind, values)
    assert not onp.isfinite(found[place])
    assert onp.isfinite(found).sum() >= 1200 - 256
