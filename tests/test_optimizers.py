"""FusedAdam against MXNet's own Adam."""

import mxnet as mx
import numpy as onp
import pytest

from d2l_autorec.fast import FASTER, adam
from d2l_autorec.training import SETTINGS, Rprop

NUM_STEPS = 30


def trained(name, **settings):
    """Return a weight and its state after some steps, and how often they updated."""
    mx.random.seed(3)
    optimizer = mx.optimizer.create(
        name,
        wd=1e-2,
        rescale_grad=1 / 256,
        lr_scheduler=mx.lr_scheduler.FactorScheduler(step=7, factor=0.5, base_lr=0.05),
        param_idx2name={0: "weight"},
        **settings,
    )
    optimizer.set_wd_mult({"weight": 0.5})
    weight = mx.nd.random.normal(0, 1, (37, 11))
    state = optimizer.create_state(0, weight)
    for _ in range(NUM_STEPS):
        optimizer.update(0, weight, mx.nd.random.normal(0, 300, weight.shape), state)
    return [array.asnumpy() for array in (weight, *state)]


@pytest.fixture
def compiled_updates(monkeypatch):
    """Count the calls of the compiled loop."""
    calls, update = [], adam._update
    monkeypatch.setattr(adam, "_update", lambda *args: (calls.append(1), update(*args)))
    return calls


def test_the_compiled_update_is_mxnets(compiled_updates):
    ours = trained(FASTER["adam"])
    assert len(compiled_updates) == NUM_STEPS
    for array, reference in zip(ours, trained("adam")):
        onp.testing.assert_allclose(array, reference, rtol=1e-5, atol=1e-6)


def test_clipped_gradients_are_left_to_mxnet(compiled_updates):
    ours = trained(FASTER["adam"], clip_gradient=0.5)
    assert not compiled_updates
    for array, reference in zip(ours, trained("adam", clip_gradient=0.5)):
        onp.testing.assert_array_equal(array, reference)


def test_the_settings_list_the_optimizers_that_mxnet_knows():
    known = mx.optimizer.Optimizer.opt_registry
    assert Rprop is known["rprop"]
    assert set(SETTINGS["optimizer"].choices) == set(known)
