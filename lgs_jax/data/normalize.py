"""The scene frame: origin and axes of a reference view, unit of the cameras' spread.

COLMAP's frames and scales are arbitrary, so a network only sees cameras in this frame.
"""

import numpy as np

from lgs_jax.data import poses

REFERENCES = ("first", "middle")

# The unit is never shorter than this part of the spread of all frames of the scene: a window in
# which the camera rests would otherwise blow the scene up without bound.
MIN_RELATIVE_UNIT = 1e-3
# Of the largest coordinate, below which a distance between cameras is rounding.
_ROUNDING = 1e-9


def spread(centers: np.ndarray) -> float:
    """Mean distance of points [N, 3] from their mean."""
    return float(np.linalg.norm(centers - centers.mean(axis=0), axis=-1).mean())


def robust_spread(centers: np.ndarray) -> float:
    """Median distance of points [N, 3] from their median, which a minority cannot move far."""
    return float(np.median(np.linalg.norm(centers - np.median(centers, axis=0), axis=-1)))


_MEASURES = {"cameras": spread, "cameras_robust": robust_spread}
SCALES = tuple(_MEASURES)


def has_unit(centers: np.ndarray, scale: str | float) -> bool:
    """Whether camera centres [F, 3] give the scale a length that is more than rounding."""
    if scale not in SCALES:
        return True
    return bool(_MEASURES[scale](centers) > _ROUNDING * np.abs(centers).max())


def no_unit(scale: str | float) -> str:
    """What is wrong with a scene that has no such unit."""
    return (
        f"{'all' if scale == 'cameras' else 'most'} cameras stand in one place, so {scale=} has no "
        "length to use; set scale to a number"
    )


def scene_unit(centers: np.ndarray, context: np.ndarray, scale: str | float) -> float:
    """Length of the scene's unit in the caller's world.

    Args:
      centers: all camera centres of the scene [F, 3].
      context: indices of the context views [V].
      scale: "cameras": the mean distance of the context centres from their mean;
        "cameras_robust": the median distance from their median, for poses of which some are wrong;
        or the length.

    Raises:
      ValueError: for "cameras" if no camera of the scene moves, for "cameras_robust" if most do
        not.
    """
    if scale not in SCALES:
        return float(scale)
    if not has_unit(centers, scale):
        raise ValueError(no_unit(scale))
    measure = _MEASURES[scale]
    return max(measure(centers[context]), MIN_RELATIVE_UNIT * measure(centers))


def world_from_scene(world_from_context: np.ndarray, reference: str, unit: float) -> np.ndarray:
    """The similarity [4, 4] from the scene frame of context views [V, 4, 4] to the world."""
    index = 0 if reference == "first" else len(world_from_context) // 2
    return world_from_context[index] @ np.diag([unit, unit, unit, 1.0])


def to_scene(world_from_cam: np.ndarray, world_from_scene: np.ndarray) -> np.ndarray:
    """Camera poses [..., 4, 4] in the scene frame. The similarity scales centres, not axes."""
    unit = np.cbrt(np.linalg.det(world_from_scene[:3, :3]))
    rigid = world_from_scene @ np.diag([1 / unit, 1 / unit, 1 / unit, 1.0])
    scene_from_cam = poses.invert(rigid) @ world_from_cam
    scene_from_cam[..., :3, 3] /= unit
    return scene_from_cam


def mirror(world_from_cam: np.ndarray) -> np.ndarray:
    """Poses [..., 4, 4] of the horizontally flipped images.

    The world is mirrored in x, and so are the camera axes: the result is again a rigid motion.
    """
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    return flip @ world_from_cam @ flip
