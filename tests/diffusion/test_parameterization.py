"""Predictions: definitions, round trips, ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.diffusion import parameterization, process

both = pytest.mark.parametrize("family", parameterization.PROCESSES)
kinds = pytest.mark.parametrize("kind", parameterization.KINDS)
LEVELS = jnp.array([-20.0, -8.0, -1.0, 0.0, 2.5, 8.0, 20.0])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(7, 2, 3, 3, 4)), jnp.float32) for _ in range(2))


@both
def test_alpha_and_sigma_obey_their_definition(family):
    log_snr = np.linspace(-40, 40, 81)
    alpha, sigma = parameterization.alpha_sigma(log_snr, family)
    power = 2 if family == "vp" else 1
    np.testing.assert_allclose(alpha**power + sigma**power, 1, rtol=1e-14)
    np.testing.assert_allclose(2 * (np.log(alpha) - np.log(sigma)), log_snr, atol=1e-12)
    got = parameterization.alpha_sigma(jnp.asarray(log_snr, jnp.float32), family)
    np.testing.assert_allclose(got, (alpha, sigma), rtol=1e-5)  # 40 x 2^-24 in the exponent


@both
def test_v_is_the_derivative_of_z(family, data):
    # Independent of the formulas for v: along the angle for vp (Salimans & Ho 2022, section 4),
    # along sigma for flow.
    x, eps = data
    alpha, sigma = parameterization.alpha_sigma(LEVELS, family)

    def z_at(coordinate):
        if family == "vp":
            a, s = jnp.cos(coordinate), jnp.sin(coordinate)
        else:
            a, s = 1 - coordinate, coordinate
        return a[:, None, None, None, None] * x + s[:, None, None, None, None] * eps

    coordinate = jnp.arctan2(sigma, alpha) if family == "vp" else sigma
    z, v = jax.jvp(z_at, (coordinate,), (jnp.ones_like(coordinate),))
    np.testing.assert_allclose(z, process.diffuse(x, eps, LEVELS, family), atol=1e-5)
    got = parameterization.target("v", x, eps, LEVELS, family)
    np.testing.assert_allclose(got, v, atol=1e-5)


@both
@kinds
def test_a_perfect_output_gives_back_x_eps_and_v(family, kind, data):
    x, eps = data
    z = process.diffuse(x, eps, LEVELS, family)
    output = parameterization.target(kind, x, eps, LEVELS, family)
    got = jax.jit(parameterization.predict, static_argnums=(0, 4))(kind, output, z, LEVELS, family)
    alpha, sigma = parameterization.alpha_sigma(np.asarray(LEVELS, np.float64), family)
    # z is rounded to about 3e-7; where x or eps is divided out of it, so is the error.
    rounding = 2e-6
    scale = {
        "x": (np.zeros(7), 1 / sigma),
        "eps": (1 / alpha, np.zeros(7)),
        "v": (np.ones(7), np.ones(7)),
    }[kind]
    for name, wanted, factor in (("x", x, scale[0]), ("eps", eps, scale[1])):
        error = np.abs(np.asarray(getattr(got, name) - wanted)).max((1, 2, 3, 4))
        assert np.all(error <= rounding * factor), (name, error)
    v = parameterization.target("v", x, eps, LEVELS, family)
    error = np.abs(np.asarray(got.v - v)).max((1, 2, 3, 4))
    assert np.all(error <= rounding * (1 + scale[0] + scale[1])), error


@both
@kinds
def test_extreme_levels_stay_finite_with_gradients(family, kind, data):
    z, output = data
    for level in (-80.0, -20.0, 20.0, 80.0):

        def total(output, level=level):
            levels = jnp.full((7,), level)
            forms = parameterization.predict(kind, output, z, levels, family)
            return sum(jnp.sum(jnp.abs(a) / 1e18) for a in jax.tree.leaves(forms))

        value, gradient = jax.jit(jax.value_and_grad(total))(output)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


def test_levels_belong_to_the_leading_dimensions(data):
    x, eps = data
    each = jnp.stack([process.diffuse(x[i], eps[i], LEVELS[i], "vp") for i in range(7)])
    np.testing.assert_allclose(process.diffuse(x, eps, LEVELS, "vp"), each, atol=1e-6)
    per_view = jnp.broadcast_to(LEVELS[:, None], (7, 2))
    np.testing.assert_allclose(process.diffuse(x, eps, per_view, "vp"), each, atol=1e-6)


def test_misuse_is_refused(data):
    x, eps = data
    with pytest.raises(ValueError, match="vp, flow"):
        parameterization.alpha_sigma(0.0, "ve")
    with pytest.raises(ValueError, match="x, eps, v"):
        parameterization.target("score", x, eps, LEVELS, "vp")
    with pytest.raises(ValueError, match="x, eps, v"):
        parameterization.predict("score", x, eps, LEVELS, "vp")
    # 4 levels would broadcast against the 4 channels under NumPy's rules.
    with pytest.raises(ValueError, match="one noise level per scene"):
        process.diffuse(x, eps, LEVELS[:4], "vp")
    with pytest.raises(ValueError, match="shape of z"):
        parameterization.predict("x", x[..., :2], eps, LEVELS, "vp")
