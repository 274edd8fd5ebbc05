"""Which photographs of a capture to take for a model that knows views a certain angle apart.

F photographs, V views.
"""

from collections.abc import Sequence

import numpy as np

# Degrees between neighbouring photographs, where nothing is known of the model's.
USUAL_DEG = (5.0, 25.0)
# Views so many times farther apart than nearly all of its training are foreign to a model.
_FAR = 1.5


def angles_deg(world_from_cam: np.ndarray) -> np.ndarray:
    """Angles [F, F] of the rotations between cameras [F, 4, 4], in degrees."""
    axes = np.asarray(world_from_cam, np.float64)[:, :3, :3]
    cosines = (np.einsum("aij,bij->ab", axes, axes) - 1) / 2
    return np.rad2deg(np.arccos(np.clip(cosines, -1, 1)))


def usual_deg(degrees_apart: np.ndarray | None) -> tuple[float, float]:
    """Between which angles the middle half of a model's scenes lies, of angles [K] or None."""
    if degrees_apart is None:
        return USUAL_DEG
    low, high = np.quantile(degrees_apart, (0.25, 0.75))
    return float(low), float(high)


def too_far(angle_deg: float, degrees_apart: np.ndarray) -> str:
    """What to say of views so far apart, for a model of angles [K]; empty where it knows such."""
    low, high = np.quantile(degrees_apart, (0.05, 0.95))
    if angle_deg <= _FAR * high:
        return ""
    return (
        f"these views are {angle_deg:.0f} degrees apart, nearly all that the model was trained on "
        f"{low:.0f} to {high:.0f}; expect little of it"
    )


def choose(
    world_from_cam: np.ndarray,
    count: int,
    degrees: tuple[float, float] = USUAL_DEG,
    taken: Sequence[int] = (),
) -> np.ndarray:
    """Photographs [V], ascending, none twice.

    The first and the last are turned against each other by an angle between the `degrees`, or
    nearly so, and of all such pairs they are the nearest in space. The others are spread between
    them in the order of the capture.

    Args:
      world_from_cam: cameras of the capture [F, 4, 4].
      count: V.
      degrees: lowest and highest angle.
      taken: photographs that must be among them; several are taken as they are, whatever angle.

    Raises:
      ValueError: if there are fewer photographs than views, or more are taken.
    """
    frames = len(world_from_cam)
    if frames < count:
        raise ValueError(f"{frames} photographs are too few for {count} views; give more of them")
    if len(taken) > count:
        raise ValueError(
            f"{len(taken)} photographs are more than the {count} views that the model has; give "
            "fewer"
        )
    if count == 1:
        return np.array([taken[0] if len(taken) else frames // 2])
    if len(taken) > 1:
        first, last = min(taken), max(taken)
    else:
        first, last = _nearest_pair(world_from_cam, count, degrees, taken)
    while last - first < count - 1:
        first, last = max(first - 1, 0), min(last + 1, frames - 1)
    chosen = np.linspace(first, last, count).round().astype(int)
    for frame in taken:
        if frame not in chosen:
            free = np.flatnonzero(~np.isin(chosen, taken))
            chosen[free[np.argmin(np.abs(chosen[free] - frame))]] = frame
    return np.sort(chosen)


def _nearest_pair(
    world_from_cam: np.ndarray, count: int, degrees: tuple[float, float], taken: Sequence[int]
) -> tuple[int, int]:
    """The first and the last of V photographs, the one that is taken (if any) among them."""
    pairs = np.stack(np.triu_indices(len(world_from_cam), 1), -1)
    if len(taken):
        pairs = pairs[(pairs == taken[0]).any(axis=-1)]
    first, last = pairs.T
    angles = angles_deg(world_from_cam)[first, last]
    outside = np.maximum(degrees[0] - angles, 0) + np.maximum(angles - degrees[1], 0)
    centers = np.asarray(world_from_cam)[:, :3, 3]
    apart = np.linalg.norm(centers[first] - centers[last], axis=-1)
    crowded = last - first < count - 1  # no room for the others between them
    best = np.lexsort((apart, outside, crowded))[0]
    return int(first[best]), int(last[best])
