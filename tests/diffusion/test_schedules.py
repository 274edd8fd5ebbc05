"""Schedules: ends, inverses, published forms, the shift's direction, float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax import settings
from lgs_jax.diffusion import schedules

ALL = [
    schedules.make(name, min=low, max=high, shift=shift)
    for name in schedules.SCHEDULES
    for low, high, shift in [(-10, 10, 1.0), (-20, 20, 3.0), (-6, 14, 0.25)]
]
everyone = pytest.mark.parametrize("schedule", ALL, ids=str)
TIMES = np.linspace(0, 1, 257)


@everyone
def test_falls_from_max_to_min(schedule):
    log_snr = schedule(TIMES)
    assert log_snr.dtype == np.float64
    np.testing.assert_allclose(log_snr[[0, -1]], [schedule.max, schedule.min], atol=1e-12)
    assert np.all(np.diff(log_snr) < 0)


@everyone
def test_inverse_is_exact(schedule):
    # In t: rounding of values near 1 (and of pi / 2), a few 1e-16.
    np.testing.assert_allclose(schedule.inverse(schedule(TIMES)), TIMES, atol=2e-15)
    log_snr = np.linspace(schedule.min, schedule.max, 100)
    # In log-SNR the same rounding counts slope times.
    error = np.abs(schedule(schedule.inverse(log_snr)) - log_snr)
    assert np.all(error <= 1e-14 + 1e-15 * schedule.slope(log_snr))


@everyone
def test_slope_is_the_negative_derivative(schedule):
    t, step = np.linspace(0.01, 0.99, 50), 1e-6
    numeric = (schedule(t - step) - schedule(t + step)) / (2 * step)
    # central differences: relative error of about (step / distance to the curve's ends)^2
    np.testing.assert_allclose(schedule.slope(schedule(t)), numeric, rtol=1e-6)


@everyone
def test_float32_agrees_with_float64(schedule):
    # Times that float32 holds exactly; then nothing is lost at either end, see Cosine.__call__.
    t = np.arange(257) / 256
    got = jax.jit(schedule)(jnp.asarray(t, jnp.float32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, schedule(t), atol=2e-5)  # 20 x 2^-23 x a few operations
    back = jax.jit(schedule.inverse)(got)
    np.testing.assert_allclose(back, t, atol=1e-5)


def test_cosine_is_the_published_curve():
    # Wide ends, so that the truncation does not show: alpha = cos(pi t / 2).
    t = np.linspace(0.05, 0.95, 19)
    log_snr = schedules.Cosine(min=-60, max=60)(t)
    np.testing.assert_allclose(1 / (1 + np.exp(-log_snr)), np.cos(np.pi * t / 2) ** 2, rtol=1e-9)


def test_flow_is_linear_in_time_with_the_published_shift():
    t = np.linspace(0.05, 0.95, 19)
    sigma = 1 / (1 + np.exp(schedules.Flow(min=-60, max=60)(t) / 2))
    np.testing.assert_allclose(sigma, t, rtol=1e-9)
    shifted = 1 / (1 + np.exp(schedules.Flow(min=-60, max=60, shift=3.0)(t) / 2))
    np.testing.assert_allclose(shifted, 3 * t / (1 + 2 * t), rtol=1e-9)  # Esser et al., eq. 23


def test_linear_is_the_limit_of_ddpm():
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    steps = np.array([50, 300, 600, 999])
    integral = 0.1 + 19.9 / 2  # of beta, so that the curve ends where it does without truncation
    schedule = schedules.Linear(min=-np.log(np.expm1(integral)), max=60)
    expected = np.log(alpha_bar[steps] / (1 - alpha_bar[steps]))
    # betas in 1000 steps against the limit: sum of beta^2 / 2, at most 0.07 in log alpha^2
    np.testing.assert_allclose(schedule((steps + 1) / 1000), expected, atol=0.08)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_a_shift_above_one_moves_draws_towards_noise(name):
    t = np.linspace(0.1, 0.9, 9)
    assert np.all(schedules.make(name, shift=2.0)(t) < schedules.make(name)(t))


@pytest.mark.parametrize("name", ["cosine", "flow"])
def test_the_shift_moves_log_snr_by_twice_its_logarithm(name):
    t, wide = np.linspace(0.1, 0.9, 9), {"min": -60.0, "max": 60.0}
    moved = schedules.make(name, shift=2.0, **wide)(t) - schedules.make(name, **wide)(t)
    np.testing.assert_allclose(moved, -2 * np.log(2), atol=1e-8)


def test_single_numbers_are_welcome():
    schedule = schedules.Cosine()
    assert float(schedule(0)) == pytest.approx(15)
    assert float(schedule.inverse(schedule(0.25))) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min": 5.0, "max": 5.0}, "min < max"),
        ({"max": float("inf")}, "finite"),
        ({"shift": 0.0}, "shift"),
        ({"shfit": 2.0}, "did you mean 'shift'"),
    ],
)
@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_nonsense_is_refused(name, options, message):
    with pytest.raises(settings.SettingsError, match=message):
        schedules.make(name, **options)


def test_unknown_names_and_betas_are_refused():
    with pytest.raises(ValueError, match="cosine, linear, flow"):
        schedules.make("cosin")
    with pytest.raises(ValueError, match="beta_min"):
        schedules.Linear(beta_min=0.0)
