"""Classifier-free guidance and autoguidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.diffusion import guidance, parameterization, samplers

families = pytest.mark.parametrize("family", parameterization.PROCESSES)
LEVELS = jnp.array([-4.0, 0.5, 4.0])


def denoiser(seed, family, calls=None):
    """A denoiser whose v is a fixed random map; counts its runs."""

    def denoise(z, log_snr):
        if calls is not None:
            jax.debug.callback(lambda: calls.append(seed))
        v = jnp.sin(z @ jax.random.normal(jax.random.key(seed), (5, 5)))
        return parameterization.predict("v", v, z, log_snr, family)

    return denoise


@pytest.fixture(scope="module")
def z():
    return samplers.initial_noise(jax.random.key(9), (3, 2, 5))


def forms(prediction):
    return np.stack([prediction.x, prediction.eps, prediction.v])


@families
def test_the_scale_runs_from_unconditional_to_beyond_conditional(family, z):
    cond, uncond = denoiser(0, family), denoiser(1, family)
    a, b = (forms(d(z, LEVELS)) for d in (cond, uncond))
    for scale in (0.0, 1.0, 3.0):
        got = forms(guidance.classifier_free(cond, uncond, scale)(z, LEVELS))
        np.testing.assert_allclose(got, b + scale * (a - b), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(guidance.classifier_free(cond, uncond, 0.0)(z, LEVELS).v, b[2])


def test_autoguidance_leads_away_from_the_weaker(z):
    strong, weak = denoiser(0, "vp"), denoiser(1, "vp")
    a, b = (forms(d(z, LEVELS)) for d in (strong, weak))
    np.testing.assert_allclose(
        forms(guidance.autoguided(strong, weak, 2.0)(z, LEVELS)), 2 * a - b, rtol=1e-4, atol=1e-5
    )
    scales = jnp.array([1.0, 2.0, 1.0])
    each = forms(guidance.autoguided(strong, weak, scales)(z, LEVELS))
    np.testing.assert_allclose(each[:, ::2], a[:, ::2], rtol=1e-5, atol=1e-6)


@families
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_x_eps_and_v_still_fit_each_other(family, rescale, z):
    guide = guidance.classifier_free(
        denoiser(0, family), denoiser(1, family), 4.0, rescale=rescale, process=family
    )
    got = guide(z, LEVELS)
    again = parameterization.predict("v", got.v, z, LEVELS, family)
    np.testing.assert_allclose(forms(got), forms(again), rtol=1e-4, atol=1e-5)


def test_scales_may_differ_per_scene_and_be_traced(z):
    cond, uncond = denoiser(0, "vp"), denoiser(1, "vp")
    scales = jnp.array([0.0, 1.0, 5.0])
    run = jax.jit(lambda w: guidance.classifier_free(cond, uncond, w)(z, LEVELS))
    got = run(scales)
    for i, scale in enumerate(scales):
        alone = run(scale)
        np.testing.assert_allclose(got.v[i], alone.v[i], rtol=1e-6)


def test_the_interval_is_half_open_and_per_scene(z):
    cond, uncond = denoiser(0, "vp"), denoiser(1, "vp")
    everywhere = guidance.classifier_free(cond, uncond, 3.0)(z, LEVELS)
    inside = guidance.classifier_free(cond, uncond, 3.0, interval=(-4.0, 4.0))(z, LEVELS)
    np.testing.assert_allclose(inside.v[:2], everywhere.v[:2], rtol=1e-6)
    np.testing.assert_allclose(inside.v[2], cond(z, LEVELS).v[2], rtol=1e-6)
    assert not np.allclose(inside.v[2], everywhere.v[2])


def test_the_unconditional_denoiser_is_not_run_outside_of_the_interval(z):
    calls = []
    guide = guidance.classifier_free(
        denoiser(0, "vp", calls), denoiser(1, "vp", calls), 3.0, interval=(-1.0, 1.0)
    )
    sampler = samplers.ddim("vp")
    grid = np.array([-6.0, -3.0, -0.5, 0.5, 3.0])
    jax.block_until_ready(jax.jit(lambda z: sampler(guide, z, grid, jax.random.key(0)))(z))
    jax.effects_barrier()
    assert calls.count(0) == 5  # every level of the grid
    assert calls.count(1) == 2  # -0.5 and 0.5


def test_the_interval_keeps_the_wider_precision(z):
    def half(seed):
        def denoise(z, log_snr):
            prediction = denoiser(seed, "vp")(z, log_snr)
            return jax.tree.map(lambda a: a.astype(jnp.bfloat16), prediction)

        return denoise

    got = guidance.classifier_free(half(0), half(1), 2.0, interval=(9.0, 10.0))(z, LEVELS)
    assert got.x.dtype == jnp.float32
    np.testing.assert_array_equal(got.x, half(0)(z, LEVELS).x.astype(jnp.float32))


@pytest.mark.parametrize("interval", [guidance.EVERYWHERE, (-4.0, 4.0)])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_half_precision_stays_half_precision(interval, rescale, z):
    def half(seed):
        def denoise(z, log_snr):
            prediction = denoiser(seed, "vp")(z, log_snr)
            return jax.tree.map(lambda a: a.astype(jnp.bfloat16), prediction)

        return denoise

    options = {"interval": interval, "rescale": rescale, "process": "vp"}
    guide = guidance.classifier_free(half(0), half(1), 2.0, **options)
    got = guide(z.astype(jnp.bfloat16), LEVELS)
    assert {a.dtype for a in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}


@families
def test_rescaling_brings_back_the_conditional_spread(family, z):
    cond, uncond = denoiser(0, family), denoiser(1, family)
    wanted = np.std(cond(z, LEVELS).v, axis=(1, 2))
    plain = np.std(guidance.classifier_free(cond, uncond, 5.0)(z, LEVELS).v, axis=(1, 2))
    for rescale in (0.7, 1.0):
        guide = guidance.classifier_free(cond, uncond, 5.0, rescale=rescale, process=family)
        got = np.std(guide(z, LEVELS).v, axis=(1, 2))
        # the factor is a mix of (wanted / plain) and 1, Lin et al. 2023, eq. 16
        np.testing.assert_allclose(got, rescale * wanted + (1 - rescale) * plain, rtol=1e-5)


def test_rescaling_survives_a_prediction_without_spread():
    flat = parameterization.Prediction(*(jnp.zeros((3, 4)) for _ in range(3)))
    got = guidance.combine(flat, flat, jnp.ones((3, 4)), LEVELS, 2.0, rescale=1.0, process="vp")
    assert np.all(np.isfinite(forms(got)))


def test_misuse_is_refused():
    cond = uncond = denoiser(0, "vp")
    with pytest.raises(ValueError, match="low < high"):
        guidance.classifier_free(cond, uncond, 2.0, interval=(1.0, 1.0))
    with pytest.raises(ValueError, match="rescale"):
        guidance.classifier_free(cond, uncond, 2.0, rescale=1.5, process="vp")
    with pytest.raises(ValueError, match="needs process"):
        guidance.classifier_free(cond, uncond, 2.0, rescale=0.5)
    with pytest.raises(ValueError, match="vp, flow"):
        guidance.classifier_free(cond, uncond, 2.0, process="edm")
