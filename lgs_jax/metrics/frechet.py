"""The Fréchet distance of two sets of features, each taken for a normal distribution.

Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium",
2017: with the features of the Inception network it is the FID. It falls with the number of images
even where the distributions are the same, so compare figures of equally many only.

Letters: D features.
"""

import numpy as np

from lgs_jax.metrics import feature_statistics
from lgs_jax.metrics.feature_statistics import FeatureStatistics
from lgs_jax.vision.features import FeatureNetwork


def metric_name(network: FeatureNetwork) -> str:
    """`fid` with Inception's published weights, otherwise `fd_<network>` and the like."""
    return feature_statistics.metric_name(network, "fid", "fd")


def distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """The Fréchet distance of two sets of images, from the statistics of their features.

    Raises:
      ValueError: if a set has fewer than two images, or the numbers of features differ.
    """
    return gaussian_distance(a.mean, a.covariance, b.mean, b.covariance)


def gaussian_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """The squared 2-Wasserstein distance of two normal distributions, in float64.

    |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a C_b)^(1/2), for means [D] and covariances [D, D].
    The last trace is the sum of the singular values of R_a^T R_b, where C = R R^T with R from the
    eigenvectors of the symmetric C. That needs no root of a product that is not symmetric, and is
    exact where covariances are singular too, as with fewer images than features.

    Raises:
      ValueError: if the shapes do not fit or a value is not finite.
    """
    mean_a, mean_b = (np.asarray(x, np.float64) for x in (mean_a, mean_b))
    covariance_a, covariance_b = (np.asarray(x, np.float64) for x in (covariance_a, covariance_b))
    size = mean_a.shape[0] if mean_a.ndim else 0
    shapes = [x.shape for x in (mean_a, covariance_a, mean_b, covariance_b)]
    if shapes != [(size,), (size, size)] * 2:
        raise ValueError(f"expected means [D] and covariances [D, D] of one D, got {shapes}")
    shift = mean_a - mean_b
    # `eigh` reads one triangle only and would not notice values that are not finite in the other.
    if not all(np.all(np.isfinite(x)) for x in (shift, covariance_a, covariance_b)):
        raise ValueError("a mean or covariance holds values that are not finite")
    product = _root(covariance_a).T @ _root(covariance_b)
    overlap = np.linalg.svd(product, compute_uv=False).sum()
    return float(shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap)


def _root(covariance: np.ndarray) -> np.ndarray:
    """R [D, D] with R R^T = covariance, whose eigenvalues below 0 are rounding errors of 0."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
