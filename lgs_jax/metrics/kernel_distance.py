"""The kernel distance of two sets of features: the squared maximum mean discrepancy, unbiased.

Binkowski et al., "Demystifying MMD GANs", 2018: with the features of the Inception network it is
the KID. The kernel is (x . y / D + 1)^3. Its expectation does not depend on the number of images,
and where the distributions are the same it scatters around 0, below it too.

Letters: N, M images, S scenes, F images of each, D features.
"""

from collections.abc import Callable

import numpy as np

from lgs_jax.data import progress
from lgs_jax.metrics import feature_statistics
from lgs_jax.vision.features import FeatureNetwork

# What torch-fidelity takes, whose generator is another: its subsets are not ours.
NUM_SUBSETS = 100
SUBSET_SIZE = 1000


def metric_name(network: FeatureNetwork) -> str:
    """`kid` with Inception's published weights, otherwise `kd_<network>` and the like."""
    return feature_statistics.metric_name(network, "kid", "kd")


def subset_distance(
    a: np.ndarray,
    b: np.ndarray,
    *,
    num_subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and standard deviation (of `num_subsets` values) over random subsets of the features.

    The usual way to compute it. The deviation is that of a subset, not of the mean. Which images
    meet depends on their order, so keep that fixed.

    Args:
      a: features [N, D].
      b: features [M, D].
      num_subsets: how often a subset of each set is drawn.
      subset_size: of each, drawn without replacement.
      seed: of the draws.

    Raises:
      ValueError: if the shapes do not fit, or a set is smaller than a subset.
    """
    a, b = _checked_pair(a, b)
    if num_subsets < 1:
        raise ValueError(f"{num_subsets=} must be positive")
    if not 2 <= subset_size <= min(len(a), len(b)):
        raise ValueError(
            f"{subset_size=} must be from 2 to the number of images, {len(a)} and {len(b)}; "
            "take smaller subsets or more images"
        )
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(num_subsets):
        x, y = (z[generator.choice(len(z), subset_size, replace=False)] for z in (a, b))
        values.append(distance(x, y))
    return float(np.mean(values)), float(np.std(values))


def distance(a: np.ndarray, b: np.ndarray, *, block: int = 1024) -> float:
    """The distance over all pairs of features [N, D] and [M, D], in float64.

    Takes about (N + M)^2 D multiplications, and memory for `block`^2 numbers.

    Raises:
      ValueError: if the shapes do not fit, or a set has fewer than two images.
    """
    a, b = _checked_pair(a, b)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"each set needs 2 images or more, got {len(a)} and {len(b)}")
    if block < 1:
        raise ValueError(f"{block=} must be positive")
    return _mean_within(a, block) + _mean_within(b, block) - 2.0 * _mean_between(a, b, block)


def scene_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    *,
    resamplings: int = 1000,
    seed: int = 0,
    block: int = 1024,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[float, np.ndarray]:
    """The distance of images of the same scenes, and its values over resampled scenes.

    Images of one scene depend on each other, so only pairs from different scenes count. That is
    unbiased, and stays so for scenes drawn with replacement, where a scene that is drawn twice
    would otherwise meet itself. Takes about 2 (S F)^2 D multiplications, and memory for S^2 and
    `block`^2 numbers.

    Args:
      a: features [S, F, D].
      b: features [S, F, D] of the same scenes in the same order.
      resamplings: how often S scenes are drawn.
      seed: of the draws.
      block: images that are compared with as many others at a time.
      say: told of the progress, where it takes long.

    Returns:
      The distance, and that of every draw that has more than one scene.

    Raises:
      ValueError: if the shapes do not fit, a value is not finite, or there are fewer than 2 scenes.
    """
    if a.ndim != 3 or a.shape != b.shape or len(a) < 2:
        raise ValueError(
            f"expected features of 2 scenes or more [S, F, D], twice of one shape; got {a.shape} "
            f"and {b.shape}"
        )
    _checked_pair(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]))
    pairs = _scene_pairs(a, b, max(1, block // a.shape[1]), say)
    np.fill_diagonal(pairs, 0.0)
    size = len(a)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(size, np.full(size, 1 / size), size=resamplings).astype(float)
    sums = np.einsum("rs,rs->r", draws @ pairs, draws)
    counts = size**2 - np.square(draws).sum(axis=1)  # of pairs from different scenes
    return float(pairs.sum() / (size * (size - 1))), sums[counts > 0] / counts[counts > 0]


def _scene_pairs(
    a: np.ndarray, b: np.ndarray, block: int, say: Callable[[str], None]
) -> np.ndarray:
    """What every pair of scenes adds to the distance [S, S], by blocks of so many scenes."""
    pairs = np.zeros((len(a), len(a)))
    blocks = -(-len(a) // block)
    counter = progress.Progress(blocks * (blocks + 1) // 2, "pairs of blocks", say, every_s=10.0)
    for i in range(0, len(a), block):
        for j in range(i, len(a), block):
            rows, columns = slice(i, i + block), slice(j, j + block)
            found = _mean_kernels(a[rows], a[columns]) + _mean_kernels(b[rows], b[columns])
            found -= _mean_kernels(a[rows], b[columns]) + _mean_kernels(b[rows], a[columns])
            pairs[rows, columns], pairs[columns, rows] = found, found.T
            counter.add()
    return pairs


def _mean_kernels(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Means of the kernel over the images of scenes [S, F, D] and [S', F, D] -> [S, S']."""
    size = x.shape[-1]
    values = _kernel(x.reshape(-1, size), y.reshape(-1, size))
    return values.reshape(*x.shape[:2], *y.shape[:2]).mean(axis=(1, 3))


def _mean_within(x: np.ndarray, block: int) -> float:
    """The mean of the kernel over the pairs of different rows of x."""
    total = 0.0
    for i in range(0, len(x), block):
        rows = x[i : i + block]
        own = _kernel(rows, rows)
        # The kernel is symmetric, so blocks beside the diagonal count twice.
        total += own.sum() - np.trace(own)
        total += 2.0 * _sum_between(rows, x[i + block :], block)
    return total / (len(x) * (len(x) - 1))


def _mean_between(x: np.ndarray, y: np.ndarray, block: int) -> float:
    """The mean of the kernel over the pairs of a row of x and one of y."""
    rows = range(0, len(x), block)
    return sum(_sum_between(x[i : i + block], y, block) for i in rows) / (len(x) * len(y))


def _sum_between(rows: np.ndarray, y: np.ndarray, block: int) -> float:
    return sum(float(_kernel(rows, y[j : j + block]).sum()) for j in range(0, len(y), block))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The kernel of all pairs of rows, float64 [N, M]."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _checked_pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected features [N, D] and [M, D], got {a.shape} and {b.shape}")
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        raise ValueError("some features are not finite; look for images that are not")
    return a, b
