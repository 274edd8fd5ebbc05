"""What is kept of the features of many images: their count, mean and scatter.

Sums are taken on the host in float64 and merged as in Chan, Golub and LeVeque, "Updating formulae
and a pairwise algorithm for computing sample variances", 1979: no small difference of large sums
appears, so batches of any sizes give what one batch of all gives, up to rounding. With several
processes, gather the features of a batch and let each process add all of them: JAX transports
float32 exactly, but would cut the sums to it.

Letters: N images, D features.
"""

import dataclasses
from typing import Any

import numpy as np

from lgs_jax.vision.features import FeatureNetwork


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Statistics of the features of a set of images.

    Attributes:
      count: N.
      mean: float64 [D].
      scatter: sum over the images of the outer products of their deviations, float64 [D, D].
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: Any, valid: Any | None = None) -> "FeatureStatistics":
        """The statistics of features [..., D].

        Args:
          features: as the network gives them.
          valid: where it is 0 [...], the features are left out; what pads a batch may be anything.

        Raises:
          ValueError: if the shapes do not fit or a value is not finite.
        """
        features = np.asarray(features)
        rows = features.reshape(-1, features.shape[-1])
        if valid is not None:
            valid = np.asarray(valid)
            if valid.shape != features.shape[:-1]:
                raise ValueError(
                    f"{valid.shape=} must be that of the features {features.shape} without the last"
                )
            rows = rows[valid.reshape(-1) > 0]
        if not np.all(np.isfinite(rows)):
            raise ValueError("some features are not finite; look for images that are not")
        wide = rows.astype(np.float64)
        mean = wide.mean(axis=0) if len(wide) else np.zeros(wide.shape[1])
        deviations = wide - mean
        return cls(len(wide), mean, deviations.T @ deviations)

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """The statistics of both sets together.

        Raises:
          ValueError: if they have another number of features.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"cannot merge statistics of {self.mean.size} and {other.mean.size} features"
            )
        count = self.count + other.count
        if not count:
            return self
        shift = other.mean - self.mean
        between = np.outer(shift, shift) * (self.count * other.count / count)
        return FeatureStatistics(
            count,
            self.mean + shift * (other.count / count),
            self.scatter + other.scatter + between,
        )

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance [D, D].

        Raises:
          ValueError: if there are fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs 2 images or more, got {self.count}")
        return self.scatter / (self.count - 1)


def metric_name(network: FeatureNetwork, inception: str, other: str) -> str:
    """What a distance on the features of a network is called.

    `inception` where that network has its published weights, `<other>_<network>` for any other
    network; `_other_weights` follows where the weights are not the published ones.
    """
    name = inception if network.name == "inception" else f"{other}_{network.name}"
    return name if network.published else f"{name}_other_weights"
