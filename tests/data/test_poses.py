"""Pose maths against SciPy, and every message about a bad camera."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lgs_jax.data import poses


def rigid(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    maps = np.tile(np.eye(4), (count, 1, 1))
    maps[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    maps[:, :3, 3] = rng.normal(size=(count, 3))
    return maps


def test_invert_is_the_matrix_inverse():
    maps = rigid(0, 6).reshape(2, 3, 4, 4)
    np.testing.assert_allclose(poses.invert(maps), np.linalg.inv(maps), atol=1e-14)


def test_rotation_from_quat_agrees_with_scipy_for_any_length():
    for quat in np.random.default_rng(1).normal(size=(8, 4)):
        expected = Rotation.from_quat(quat[[1, 2, 3, 0]]).as_matrix()
        np.testing.assert_allclose(poses.rotation_from_quat(3 * quat), expected, atol=1e-14)


def test_zero_quaternion_is_a_fault():
    maps = poses.from_parts(poses.rotation_from_quat(np.zeros(4)), np.zeros(3))[None]
    assert "NaN" in poses.pose_faults(maps)[0]


def test_pose_faults_are_told_apart():
    maps = rigid(2, 8)
    maps[1, 0, 3] = np.nan
    maps[2, :3, :3] *= 1.05
    maps[3, :3, 0] *= -1
    maps[4, :3, :3] *= 1.0004  # 1.0004^2 - 1 is below 1e-3
    maps[5, :3, :3] *= 1.0006  # and this above
    maps[6, 3] = [0, 1e-4, 0, 1]
    maps[7, 3] = [0, 2e-3, 0, 1]
    faults = poses.pose_faults(maps)
    assert faults[0] == faults[4] == faults[6] == ""
    assert "max |R^T R - I| = 0.0012, allowed 0.001" in faults[5]
    assert "the last row of the pose is 0, 0.002, 0, 1, expected 0, 0, 0, 1" in faults[7]
    assert "NaN" in faults[1]
    assert "0.1" in faults[2]  # 1.05^2 - 1
    assert "no rigid motion" in faults[2]
    assert "mirrors" in faults[3]


def test_nearest_rigid_removes_rounding_and_keeps_the_centre():
    maps = rigid(3, 4)
    rounded = maps.copy()
    rounded[:, :3, :3] = np.round(maps[:, :3, :3], 4)
    rounded[:, 3, 1] = 1e-5
    fixed = poses.nearest_rigid(rounded)
    gram = np.swapaxes(fixed[:, :3, :3], 1, 2) @ fixed[:, :3, :3]
    np.testing.assert_allclose(gram, np.tile(np.eye(3), (4, 1, 1)), atol=1e-14)
    np.testing.assert_allclose(fixed, maps, atol=2e-4)
    np.testing.assert_array_equal(fixed[:, :3, 3], rounded[:, :3, 3])
    np.testing.assert_array_equal(fixed[:, 3], np.tile([0, 0, 0, 1], (4, 1)))


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        ((50, 50, 32, np.inf), "infinity"),
        ((-50, 50, 32, 24), "positive"),
        ((50, 0, 32, 24), "positive"),
        ((50, 50, 64.5, 24), "outside the 64x48 image"),
        ((50, 50, 32, 24), ""),
    ],
)
def test_intrinsics_fault(intrinsics, message):
    found = poses.intrinsics_fault(np.array(intrinsics, float), (48, 64))
    assert message in found
    assert bool(found) == bool(message)
