"""Tests of the KL divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lgs_jax.losses import kl


@pytest.mark.parametrize(("mean", "log_var"), [(0.0, 0.0), (1.5, -2.0), (-0.3, 0.7), (0.0, -6.0)])
def test_equals_a_monte_carlo_estimate(mean, log_var):
    std = np.exp(0.5 * log_var)
    samples = mean + std * np.random.default_rng(0).normal(size=200_000)
    ratio = stats.norm.logpdf(samples, mean, std) - stats.norm.logpdf(samples)
    error = ratio.std() / np.sqrt(samples.size)
    got = float(kl.to_unit_normal(jnp.float32(mean), jnp.float32(log_var)))
    assert abs(got - ratio.mean()) <= 4 * error + 1e-6  # 4 standard errors of the estimate


def test_is_exact_near_the_unit_normal():
    # log_var = 1e-3: the divergence is log_var^2 / 4 + log_var^3 / 12, about 2.5e-7
    got = kl.to_unit_normal(jnp.float32(0), jnp.float32(1e-3))
    np.testing.assert_allclose(got, 0.25e-6 + 1e-9 / 12, rtol=1e-3)
    assert float(kl.to_unit_normal(jnp.float32(0), jnp.float32(0))) == 0.0


def test_gradients_are_those_of_the_formula():
    mean, log_var = jnp.float32(0.7), jnp.float32(-1.3)
    by_mean, by_log_var = jax.grad(kl.to_unit_normal, argnums=(0, 1))(mean, log_var)
    np.testing.assert_allclose(by_mean, 0.7, rtol=1e-6)
    np.testing.assert_allclose(by_log_var, 0.5 * (np.exp(-1.3) - 1), rtol=1e-6)
