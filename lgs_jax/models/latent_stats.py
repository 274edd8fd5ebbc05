"""Mean and standard deviation of an autoencoder's latents, per channel.

Stage 2 models latents that are shifted and scaled to mean 0 and variance 1. The numbers are
computed once over training scenes and kept; never set by a first batch.

Letters: c latent channels.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgs_jax import settings


@dataclasses.dataclass(frozen=True)
class LatentStats:
    """The statistics, and what they were computed from.

    Attributes:
      step: of the autoencoder's checkpoint.
      num_scenes: training scenes looked at; of a mixture, where some come again, the draws.
      mean: per channel, c numbers.
      std: standard deviation of latents drawn from the posteriors, per channel.
    """

    step: int
    num_scenes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} standard deviations")
        if not all(math.isfinite(m) for m in self.mean):
            raise ValueError(f"mean={self.mean} must be finite")
        if not all(math.isfinite(s) and s > 0 for s in self.std):
            raise ValueError(f"std={self.std} must be finite and positive")

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives an equal object back."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> "LatentStats":
        """From what `to_json` gave.

        Raises:
          lgs_jax.settings.SettingsError: if it is something else; `where` names it.
        """
        return settings.build(cls, value, where)


class Moments:
    """Mean and variance of a stream of normal distributions, per channel, in float64.

    Exact up to rounding whatever the batches are: counts, means and squared deviations are merged
    as in Chan, Golub and LeVeque 1979, without the cancellation of a sum of squares.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = np.float64(0.0)
        self._squares = np.float64(0.0)

    def add(self, mean: np.ndarray, log_var: np.ndarray) -> None:
        """Adds the distributions N(mean, exp(log_var)) [..., c]."""
        mean = np.asarray(mean, np.float64).reshape(-1, np.shape(mean)[-1])
        variance = np.exp(np.asarray(log_var, np.float64)).reshape(mean.shape)
        center = mean.mean(axis=0)
        # The variance of a draw is that of the means plus the mean of the variances.
        squares = ((mean - center) ** 2 + variance).sum(axis=0)
        total = self.count + len(mean)
        shift = center - self._mean
        self._squares = self._squares + squares + shift**2 * (self.count * len(mean) / total)
        self._mean = self._mean + shift * (len(mean) / total)
        self.count = total

    def result(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, c numbers each.

        Raises:
          ValueError: if nothing was added.
        """
        if not self.count:
            raise ValueError("statistics of nothing; add at least one batch")
        std = np.sqrt(self._squares / self.count)
        return tuple(map(float, self._mean)), tuple(map(float, std))
