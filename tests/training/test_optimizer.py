"""The optimizer against AdamW written out in NumPy, and the learning rate by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.training import optimizer


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.25),  # the first of four warm-up steps
        (3, 1.0),
        (4, 1.0),  # progress 0
        (7, 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * 0.5))),  # half of the six remaining steps
        (9, 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * 5 / 6))),
        (10, 0.1),
        (50, 0.1),
    ],
)
def test_learning_rate_by_hand(step, expected):
    settings = optimizer.OptimizerSettings(learning_rate=2.0, warmup_steps=4, final_fraction=0.1)
    got = optimizer.learning_rate(settings, 10, jnp.int32(step))
    assert float(got) == pytest.approx(2.0 * expected, rel=1e-6)  # float32


def test_constant_schedule_without_warmup():
    settings = optimizer.OptimizerSettings(learning_rate=0.3, warmup_steps=0, schedule="constant")
    rates = [float(optimizer.learning_rate(settings, 10, jnp.int32(s))) for s in (0, 5, 99)]
    assert rates == [pytest.approx(0.3)] * 3


def test_decays_kernels_only():
    params = {
        "conv": {"kernel": 1.0, "bias": 1.0},
        "norm": {"scale": 1.0},
        "kernel_norm": {"scale": 1.0},
        "table": {"embedding": 1.0},
    }
    assert optimizer.decay_mask(params) == {
        "conv": {"kernel": True, "bias": False},
        "norm": {"scale": False},
        "kernel_norm": {"scale": False},
        "table": {"embedding": False},
    }


def test_adamw_with_clipping_matches_numpy():
    settings = optimizer.OptimizerSettings(
        b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.1, clip_norm=1.0
    )
    transformation = optimizer.make(settings)
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    state = transformation.init(jax.tree.map(jnp.asarray, params))
    first = {name: np.zeros_like(p) for name, p in params.items()}
    second = {name: np.zeros_like(p) for name, p in params.items()}
    for step in range(1, 4):
        grads = {name: step * rng.normal(size=p.shape) for name, p in params.items()}
        got, state = transformation.update(
            jax.tree.map(jnp.float32, grads), state, jax.tree.map(jnp.float32, params)
        )
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        assert norm > 1.0  # else clipping is not tested
        for name, decay in (("kernel", 0.1), ("bias", 0.0)):
            grad = grads[name] / norm
            first[name] = 0.8 * first[name] + 0.2 * grad
            second[name] = 0.95 * second[name] + 0.05 * grad**2
            scaled = first[name] / (1 - 0.8**step)
            scaled /= np.sqrt(second[name] / (1 - 0.95**step)) + 1e-6
            expected = scaled + decay * params[name]
            np.testing.assert_allclose(got[name], expected, rtol=2e-5)  # float32 roots


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("eps", 0.0),
        ("clip_norm", -1.0),
        ("final_fraction", 2.0),
        ("b1", 1.0),
        ("b2", -0.1),
    ],
)
def test_refuses_values_without_meaning(name, value):
    with pytest.raises(ValueError, match=f"^{name}={value} must"):
        optimizer.OptimizerSettings(**{name: value})
