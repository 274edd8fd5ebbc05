"""Noise schedules: strictly falling maps from time t in [0, 1] to log-SNR, and back.

t = 0 is the data end (log-SNR = max), t = 1 the noise end (log-SNR = min); both are met exactly
whatever the other options, because each schedule runs over that part of an untruncated curve that
lies between them ("simple diffusion", Hoogeboom et al. 2023, appendix). Draws of t are uniform.

`shift` s > 0 divides the ratio alpha / sigma by s, log-SNR -> log-SNR - 2 log s: s > 1 means
more noise at the same t. Latents of several views of one scene tell the same thing several times
and need it, as images of higher resolution do. In the terms of Hoogeboom et al. 2023, section 3.1,
s = image_d / noise_d; in those of Esser et al. 2024 (Stable Diffusion 3), eq. 23, where rectified
flow's time becomes s t / (1 + (s - 1) t), s = sqrt(m / n).

Times and log-SNRs may be Python or NumPy numbers (then the result is float64) or JAX arrays.

Letters: a angle, u time of the untruncated curve.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from lgs_jax import settings
from lgs_jax.diffusion import arrays


class Schedule(Protocol):
    """What samplers, grids and losses need to know about a schedule."""

    min: float
    max: float

    def __call__(self, t: Any) -> Any:
        """log-SNR [...] at times [...] in [0, 1]."""

    def inverse(self, log_snr: Any) -> Any:
        """Times [...] of log-SNRs [...] between `min` and `max`."""

    def slope(self, log_snr: Any) -> Any:
        """-d log_snr / dt > 0 [...] at log-SNRs [...]: the inverse density of the draws."""


@dataclasses.dataclass(frozen=True)
class Cosine:
    """log_snr = -2 log tan(pi u / 2) - 2 log(shift), so alpha = cos(pi u / 2) at shift 1.

    Nichol & Dhariwal 2021, section 3.2, in the continuous form of Salimans & Ho 2022 and Hoogeboom
    et al. 2023.
    """

    min: float = -15.0
    max: float = 15.0
    shift: float = 1.0

    def __post_init__(self):
        _check(self.min, self.max, self.shift)

    def _ends(self) -> tuple[float, float]:
        """The angle a = pi u / 2 at t = 0, and what it lacks to pi / 2 at t = 1."""
        moved = 2 * math.log(self.shift)
        return math.atan(math.exp(-(self.max + moved) / 2)), math.atan(
            math.exp((self.min + moved) / 2)
        )

    def __call__(self, t: Any) -> Any:
        xp = arrays.namespace(t)
        low, high = self._ends()
        span = math.pi / 2 - low - high
        # tan(a) = sin(a) / sin(b) with b = pi/2 - a counted from its own end: both ends keep all
        # their digits in float32.
        a, b = low + t * span, high + (1 - t) * span
        return 2 * (xp.log(xp.sin(b)) - xp.log(xp.sin(a))) - 2 * math.log(self.shift)

    def inverse(self, log_snr: Any) -> Any:
        xp = arrays.namespace(log_snr)
        low, high = self._ends()
        angle = xp.arctan(xp.exp(-(log_snr + 2 * math.log(self.shift)) / 2))
        return (angle - low) / (math.pi / 2 - low - high)

    def slope(self, log_snr: Any) -> Any:
        xp = arrays.namespace(log_snr)
        low, high = self._ends()
        return 4 * (math.pi / 2 - low - high) * xp.cosh(log_snr / 2 + math.log(self.shift))


@dataclasses.dataclass(frozen=True)
class Linear:
    """The variance-preserving SDE with beta linear in time, the limit of DDPM's linear betas.

    log alpha^2 = -(beta_min u + (beta_max - beta_min) u^2 / 2). Ho et al. 2020, section 4; Song et
    al. 2021 (score SDE), appendix C. The defaults give DDPM's betas of 1e-4 to 0.02 in 1000
    steps; its own log-SNR runs from 9.2 to -10.0.
    """

    min: float = -10.0
    max: float = 10.0
    shift: float = 1.0
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        _check(self.min, self.max, self.shift)
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"expected 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}"
            )

    def _untruncated(self, log_snr: Any) -> tuple[Any, Any]:
        """u and beta(u) at a log-SNR."""
        integral = arrays.softplus(-(log_snr + 2 * math.log(self.shift)))
        xp = arrays.namespace(integral)
        rise = self.beta_max - self.beta_min
        beta = xp.sqrt(self.beta_min**2 + 2 * rise * integral)
        return 2 * integral / (self.beta_min + beta), beta

    def _ends(self) -> tuple[float, float]:
        return float(self._untruncated(self.max)[0]), float(self._untruncated(self.min)[0])

    def __call__(self, t: Any) -> Any:
        xp = arrays.namespace(t)
        low, high = self._ends()
        u = low + t * (high - low)
        integral = u * (self.beta_min + (self.beta_max - self.beta_min) * u / 2)
        # -log(exp(integral) - 1), without overflow for a large integral
        log_snr = -integral - xp.log(-xp.expm1(-integral))
        return log_snr - 2 * math.log(self.shift)

    def inverse(self, log_snr: Any) -> Any:
        low, high = self._ends()
        return (self._untruncated(log_snr)[0] - low) / (high - low)

    def slope(self, log_snr: Any) -> Any:
        low, high = self._ends()
        sigma_squared = arrays.sigmoid(-(log_snr + 2 * math.log(self.shift)))
        return (high - low) * self._untruncated(log_snr)[1] / sigma_squared


@dataclasses.dataclass(frozen=True)
class Flow:
    """The log-SNR of rectified flow: 2 log((1 - u) / u) - 2 log(shift), so sigma = u at shift 1.

    Lipman et al. 2022; Liu et al. 2022; the time shift is eq. 23 of Esser et al. 2024.
    """

    min: float = -15.0
    max: float = 15.0
    shift: float = 1.0

    def __post_init__(self):
        _check(self.min, self.max, self.shift)

    def _ends(self) -> tuple[float, float]:
        """u at t = 0, and 1 - u at t = 1."""
        moved = 2 * math.log(self.shift)
        return (
            float(arrays.sigmoid(-(self.max + moved) / 2)),
            float(arrays.sigmoid((self.min + moved) / 2)),
        )

    def __call__(self, t: Any) -> Any:
        xp = arrays.namespace(t)
        low, high = self._ends()
        span = 1 - low - high
        u, rest = low + t * span, high + (1 - t) * span
        return 2 * (xp.log(rest) - xp.log(u)) - 2 * math.log(self.shift)

    def inverse(self, log_snr: Any) -> Any:
        low, high = self._ends()
        u = arrays.sigmoid(-(log_snr / 2 + math.log(self.shift)))
        return (u - low) / (1 - low - high)

    def slope(self, log_snr: Any) -> Any:
        xp = arrays.namespace(log_snr)
        low, high = self._ends()
        return 4 * (1 - low - high) * (1 + xp.cosh(log_snr / 2 + math.log(self.shift)))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "cosine": Cosine,
    "linear": Linear,
    "flow": Flow,
}


def make(name: str, **options: float) -> Schedule:
    """The schedule of a name in `SCHEDULES`, with the fields of its class as options.

    Raises:
      ValueError: for an unknown name, an unknown option, or a value that makes no sense.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; choose from {', '.join(SCHEDULES)}")
    return settings.build(SCHEDULES[name], options, f"schedule {name}")


def _check(low: float, high: float, shift: float) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(
            f"log-SNRs must be finite with min < max, got min={low} and max={high}; samplers end "
            "with a prediction of x, so that an infinite max is not needed"
        )
    if not (np.isfinite(shift) and shift > 0):
        raise ValueError(f"{shift=} must be finite and > 0 (1: no shift, above: more noise)")
