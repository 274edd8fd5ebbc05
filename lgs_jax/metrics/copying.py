"""Does a generative model repeat what it was trained on?

Samples that lie nearer to the training set than new photographs of the same kind do are copies.

Letters: N images, M training images, D features.
"""

import numpy as np
from scipy import stats

_ROWS = 1024


def nearest(features: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training image of every image.

    Args:
      features: of images [N, D].
      training: features [M, D].

    Returns:
      Euclidean distances float64 [N] and positions in the training set int64 [N].

    Raises:
      ValueError: if there is no training image, or the numbers of features differ.
    """
    features, training = (np.asarray(values, np.float64) for values in (features, training))
    if not len(training) or features.shape[1:] != training.shape[1:]:
        raise ValueError(
            f"expected features [N, D] and those of at least one training image [M, D], got "
            f"{features.shape} and {training.shape}"
        )
    squares = np.sum(training**2, axis=1)
    positions = [
        np.argmin(squares - 2 * part @ training.T, axis=1)
        for part in np.split(features, range(_ROWS, len(features), _ROWS))
    ]
    positions = np.concatenate(positions)
    # Not from the squares, whose difference cancels where an image is a copy.
    return np.linalg.norm(features - training[positions], axis=1), positions


def copying_z(sampled: np.ndarray, held_out: np.ndarray) -> float:
    """Whether samples lie nearer to the training set than new photographs: below -3 they copy.

    The z-score of Mann and Whitney's U of the two sets of distances, with their correction for
    ties: Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect data-copying in
    generative models", 2020, for all of the space at once. Above 3 samples are further away than
    photographs, as of a model that has not learned enough; near 0 they are as far.

    Args:
      sampled: distances [N] of samples to their nearest training images.
      held_out: the same of photographs that were not trained on [K].
    """
    count, others = len(sampled), len(held_out)
    both = np.concatenate([sampled, held_out])
    ranks = stats.rankdata(both)
    u = ranks[:count].sum() - count * (count + 1) / 2
    _, ties = np.unique(both, return_counts=True)
    total = count + others
    spread = total + 1 - np.sum(ties**3 - ties) / (total * (total - 1))
    if spread <= 0:  # all distances are the same
        return 0.0
    return float((u - count * others / 2) / np.sqrt(count * others / 12 * spread))
