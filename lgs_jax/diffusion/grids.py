"""Grids of log-SNR for samplers: float64 NumPy [steps + 1], from noise to data.

Each runs from the schedule's `min` to its `max`. A sampler asks the denoiser at every grid value,
so a grid of `steps` costs steps + 1 evaluations (see `samplers`).
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from lgs_jax import settings
from lgs_jax.diffusion.schedules import Schedule


def time_uniform(schedule: Schedule, steps: int) -> np.ndarray:
    """The log-SNRs [steps + 1] of evenly spaced times from 1 to 0: the density of the training.

    The "linear" choice of Song et al. 2020 (DDIM), appendix D. A sampling schedule
    may have another shift than the training had.

    Raises:
      ValueError: if steps < 1.
    """
    _check_steps(steps)
    return _fix_ends(schedule(np.linspace(1.0, 0.0, steps + 1)), schedule)


def log_snr_uniform(schedule: Schedule, steps: int) -> np.ndarray:
    """Evenly spaced log-SNRs [steps + 1], the uniform steps of Lu et al. 2022 (DPM-Solver).

    Raises:
      ValueError: if steps < 1.
    """
    _check_steps(steps)
    return np.linspace(schedule.min, schedule.max, steps + 1)


def karras(schedule: Schedule, steps: int, *, rho: float = 7.0) -> np.ndarray:
    """log-SNRs [steps + 1] evenly spaced in (sigma / alpha)^(1 / rho).

    Karras et al. 2022, eq. 5, whose sigma is our sigma / alpha = exp(-log_snr / 2). Their last
    step, to sigma = 0, is the samplers' final prediction of x. A larger rho puts more steps near
    the data.

    Raises:
      ValueError: if steps < 1 or rho is not > 0.
    """
    _check_steps(steps)
    if not rho > 0:
        raise ValueError(f"{rho=} must be > 0; Karras et al. use 7")
    noisy, clean = (np.exp(-end / (2 * rho)) for end in (schedule.min, schedule.max))
    roots = noisy + np.linspace(0.0, 1.0, steps + 1) * (clean - noisy)
    return _fix_ends(-2 * rho * np.log(roots), schedule)


GRIDS: dict[str, Callable[..., np.ndarray]] = {
    "time_uniform": time_uniform,
    "log_snr_uniform": log_snr_uniform,
    "karras": karras,
}


def make(name: str, schedule: Schedule, steps: int, **options: Any) -> np.ndarray:
    """The grid of a name in `GRIDS`, with the options of its function.

    Raises:
      ValueError: for an unknown name, an unknown option, or a value that makes no sense.
    """
    if name not in GRIDS:
        raise ValueError(f"unknown grid {name!r}; choose from {', '.join(GRIDS)}")
    known = list(inspect.signature(GRIDS[name]).parameters)[2:]
    settings.check_keys(options, known, f"grid {name}")
    return GRIDS[name](schedule, steps, **options)


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"{steps=} must be at least 1")


def _fix_ends(grid: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The grid with its ends free of rounding."""
    grid[0], grid[-1] = schedule.min, schedule.max
    return grid
