"""Draws of noise levels and loss weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.diffusion import parameterization, process, schedules

families = pytest.mark.parametrize("family", parameterization.PROCESSES)
LEVELS = np.linspace(-12, 12, 25)
SNR = np.exp(LEVELS)


@families
def test_diffused_data_have_the_right_moments(family):
    levels = jnp.array([-2.0, 0.0, 3.0])
    eps = jax.random.normal(jax.random.key(0), (3, 40_000))
    z = np.asarray(process.diffuse(jnp.full_like(eps, 1.7), eps, levels, family), np.float64)
    alpha, sigma = parameterization.alpha_sigma(np.asarray(levels, np.float64), family)
    # 5 standard errors: 1 / sqrt(n) for the mean, 1 / sqrt(2 n) for the standard deviation
    np.testing.assert_array_less(np.abs(z.mean(1) - 1.7 * alpha), 5 * sigma / 200)
    np.testing.assert_array_less(np.abs(z.std(1) - sigma), 5 * sigma / 283)


def test_stratified_levels_cover_time_evenly():
    schedule = schedules.Cosine()
    draw = jax.jit(lambda key: process.sample_log_snr(key, (4, 8), schedule))
    for seed in range(3):
        log_snr = draw(jax.random.key(seed))
        assert log_snr.shape == (4, 8)
        times = np.sort(np.asarray(schedule.inverse(log_snr)).ravel())
        np.testing.assert_allclose(np.diff(times), 1 / 32, atol=1e-5)
        assert times[0] >= -1e-6
        assert times[-1] < 1


@pytest.mark.parametrize("stratified", [True, False])
def test_every_level_is_uniform_in_time_by_itself(stratified):
    schedule = schedules.Flow(shift=2.0)
    keys = jax.random.split(jax.random.key(1), 2000)
    log_snr = jax.vmap(
        lambda key: process.sample_log_snr(key, (3,), schedule, stratified=stratified)
    )(keys)
    times = np.asarray(schedule.inverse(log_snr))
    # 4.5 standard errors of the moments of a uniform variable from 2000 draws
    np.testing.assert_array_less(np.abs(times.mean(0) - 1 / 2), 4.5 * np.sqrt(1 / 12 / 2000))
    np.testing.assert_array_less(np.abs((times**2).mean(0) - 1 / 3), 4.5 * 0.3 / np.sqrt(2000))
    spread = times.mean(1).std()  # of the mean over a batch: what stratification lowers
    assert (spread < 0.6 * np.sqrt(1 / 36)) == stratified


@families
@pytest.mark.parametrize("name", ["snr", "min_snr", "sigmoid"])
def test_a_named_loss_does_not_depend_on_the_kind(name, family):
    # One prediction, its error measured in each kind: the weighted losses agree.
    rng = np.random.default_rng(0)
    levels = np.linspace(-6, 6, 7)
    x, eps, output = (rng.normal(size=(7, 5)) for _ in range(3))
    z = process.diffuse(x, eps, levels, family)
    prediction = parameterization.predict("v", output, z, levels, family)
    losses = []
    for kind in parameterization.KINDS:
        target = parameterization.target(kind, x, eps, levels, family)
        error = np.sum((getattr(prediction, kind) - target) ** 2, -1)
        losses.append(process.weighting(name, levels, kind, family, bias=-1.0) * error)
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-9)
    np.testing.assert_allclose(losses[1], losses[2], rtol=1e-9)


def test_weights_are_the_published_ones():
    def weight(name, kind, **options):
        return process.weighting(name, LEVELS, kind, "vp", **options)

    # Hang et al. 2023: min(SNR, 5) for x, / SNR for eps, / (SNR + 1) for v
    np.testing.assert_allclose(weight("min_snr", "x"), np.minimum(SNR, 5))
    np.testing.assert_allclose(weight("min_snr", "eps"), np.minimum(SNR, 5) / SNR)
    np.testing.assert_allclose(weight("min_snr", "v"), np.minimum(SNR, 5) / (SNR + 1))
    np.testing.assert_allclose(weight("min_snr", "x", gamma=2.0), np.minimum(SNR, 2))
    np.testing.assert_allclose(weight("snr", "eps"), 1)
    np.testing.assert_allclose(weight("snr", "x"), SNR)
    np.testing.assert_allclose(weight("sigmoid", "eps", bias=2.0), 1 / (1 + SNR / np.exp(2)))
    for kind in parameterization.KINDS:
        np.testing.assert_array_equal(weight("uniform", kind), 1)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_the_slope_takes_the_schedule_out_of_the_loss(name):
    # mean over t of w(log_snr(t)) slope = integral of w over log-SNR, for any schedule
    schedule = schedules.make(name, min=-8.0, max=8.0, shift=1.5)
    t = (np.arange(20_000) + 0.5) / 20_000
    levels = schedule(t)
    got = np.mean(process.weighting("sigmoid", levels, "eps", "vp", bias=1.0, schedule=schedule))
    exact = np.log1p(np.exp(9.0)) - np.log1p(np.exp(-7.0))  # of sigmoid(1 - log_snr), from -8 to 8
    np.testing.assert_allclose(got, exact, rtol=1e-3)  # midpoint rule, steep at the ends


@families
@pytest.mark.parametrize("name", process.WEIGHTINGS)
@pytest.mark.parametrize("kind", parameterization.KINDS)
def test_weights_in_float32_are_finite_at_the_ends(name, kind, family):
    levels = np.array([-20.0, -10.0, 0.0, 10.0, 20.0])
    got = jax.jit(lambda x: process.weighting(name, x, kind, family))(jnp.float32(levels))
    assert np.all(np.isfinite(got))
    assert np.all(np.asarray(got) > 0)
    # exponents up to 40 in float32: a relative error of 40 x 2^-24 per operation
    np.testing.assert_allclose(got, process.weighting(name, levels, kind, family), rtol=1e-5)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="min_snr"):
        process.weighting("minsnr", LEVELS, "v", "vp")
    with pytest.raises(ValueError, match="gamma"):
        process.weighting("min_snr", LEVELS, "v", "vp", gamma=0.0)
    with pytest.raises(ValueError, match="vp, flow"):
        process.weighting("uniform", LEVELS, "v", "edm")
