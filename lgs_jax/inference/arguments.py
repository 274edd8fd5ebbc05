"""Checks of what a caller gives to a model (`scene_model.SceneModel`), on the host."""

import math
from typing import Any

import numpy as np

from lgs_jax.core.cameras import Cameras
from lgs_jax.data import poses


def one_set(cameras: Cameras) -> Cameras:
    """Checked cameras [V]: poses are rigid motions, focal lengths positive, all values finite."""
    if not isinstance(cameras, Cameras):
        raise ValueError(f"cameras must be lgs_jax.Cameras, got {type(cameras).__name__}")
    if len(cameras.check().batch_shape) != 1:
        raise ValueError(f"expected cameras with one leading dimension, got {cameras.batch_shape}")
    check_finite("cameras.world_from_cam", cameras.world_from_cam)
    check_finite("cameras.intrinsics", cameras.intrinsics)
    for i, fault in enumerate(poses.pose_faults(np.asarray(cameras.world_from_cam, np.float64))):
        if fault:
            raise ValueError(f"cameras.world_from_cam[{i}]: {fault}")
    focal = np.asarray(cameras.intrinsics)[:, :2]
    if not np.all(focal > 0):
        raise ValueError(
            f"cameras.intrinsics are fx, fy, cx, cy in pixels with positive focal lengths; the "
            f"smallest is {focal.min()}"
        )
    return cameras


def is_whole(value: Any) -> bool:
    """Whether it is one whole number: Python's, or of an array."""
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu"


def check_finite(name: str, values: Any) -> None:
    if not np.all(np.isfinite(np.asarray(values))):
        raise ValueError(f"{name} holds values that are not finite")


def check_scale(name: str, value: Any) -> None:
    """Raises ValueError unless a scale of guidance is a number, finite and not negative."""
    scale = np.asarray(value)
    if scale.shape or scale.dtype.kind not in "iuf" or not 0 <= scale < math.inf:
        raise ValueError(f"{name}={value!r} must be a number, finite and not negative")
