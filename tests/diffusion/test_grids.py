"""Grids of log-SNR."""

import numpy as np
import pytest

from lgs_jax.diffusion import grids, schedules

SCHEDULE = schedules.Cosine(min=-9.0, max=11.0, shift=2.0)


@pytest.mark.parametrize("name", grids.GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_rises_from_min_to_max(name, steps):
    grid = grids.make(name, SCHEDULE, steps)
    assert grid.dtype == np.float64
    assert grid.shape == (steps + 1,)
    assert grid[0] == SCHEDULE.min
    assert grid[-1] == SCHEDULE.max
    assert np.all(np.diff(grid) > 0)


def test_spacings_are_even_in_their_own_coordinate():
    time = SCHEDULE.inverse(grids.time_uniform(SCHEDULE, 25))
    np.testing.assert_allclose(time, np.linspace(1, 0, 26), atol=1e-12)
    np.testing.assert_allclose(np.diff(grids.log_snr_uniform(SCHEDULE, 25)), 0.8, rtol=1e-12)


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_karras_is_the_published_formula(rho):
    grid = grids.make("karras", SCHEDULE, 10, rho=rho)
    low, high = np.exp(-11 / 2), np.exp(9 / 2)
    i = np.arange(11)
    sigmas = (high ** (1 / rho) + i / 10 * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    np.testing.assert_allclose(np.exp(-grid / 2), sigmas, rtol=1e-9)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="time_uniform"):
        grids.make("uniform", SCHEDULE, 4)
    with pytest.raises(ValueError, match="did you mean 'rho'"):
        grids.make("karras", SCHEDULE, 4, rhoo=2.0)
    with pytest.raises(ValueError, match="rho"):
        grids.make("karras", SCHEDULE, 4, rho=0.0)
    for name in grids.GRIDS:
        with pytest.raises(ValueError, match="steps"):
            grids.make(name, SCHEDULE, 0)
