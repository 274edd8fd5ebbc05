"""The scene frame against its definition."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lgs_jax.data import normalize


def cameras(count=5, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    poses[:, :3, 3] = rng.normal(scale=7.0, size=(count, 3)) + 30
    return poses


@pytest.mark.parametrize(("reference", "index"), [("first", 0), ("middle", 3)])
def test_reference_is_the_origin_and_the_unit_the_mean_distance(reference, index):
    poses = cameras(6)
    unit = normalize.scene_unit(poses[:, :3, 3], np.arange(6), "cameras")
    world_from_scene = normalize.world_from_scene(poses, reference, unit)
    scene = normalize.to_scene(poses, world_from_scene)
    np.testing.assert_allclose(scene[index], np.eye(4), atol=1e-12)
    centers = scene[:, :3, 3]
    distances = [np.linalg.norm(c - centers.mean(0)) for c in centers]
    np.testing.assert_allclose(np.mean(distances), 1.0, rtol=1e-12)


def test_inverse_leads_back_and_pixels_do_not_change():
    poses = cameras(4)
    world_from_scene = normalize.world_from_scene(poses, "first", 2.5)
    scene = normalize.to_scene(poses, world_from_scene)
    points = np.random.default_rng(1).normal(size=(10, 3))
    in_world = points @ world_from_scene[:3, :3].T + world_from_scene[:3, 3]
    for world_pose, scene_pose in zip(poses, scene, strict=True):
        a = (in_world - world_pose[:3, 3]) @ world_pose[:3, :3]
        b = (points - scene_pose[:3, 3]) @ scene_pose[:3, :3]
        np.testing.assert_allclose(a, 2.5 * b, atol=1e-11)  # same rays, other unit


def test_fixed_scale():
    assert normalize.scene_unit(np.zeros((3, 3)), np.arange(2), 0.25) == 0.25


def test_resting_window_is_bounded_by_the_scene():
    centers = np.array([[0, 0, 0], [0, 0, 0], [8.0, 0, 0], [0, 0, 0]])
    unit = normalize.scene_unit(centers, np.array([0, 1]), "cameras")
    np.testing.assert_allclose(unit, 3.0 * normalize.MIN_RELATIVE_UNIT)  # mean of 2, 2, 6, 2


def test_no_motion_is_refused():
    with pytest.raises(ValueError, match=r"one place.*set scale to a number"):
        normalize.scene_unit(np.ones((3, 3)), np.arange(3), "cameras")


def test_mirror_is_rigid_and_mirrors_what_is_seen():
    poses = cameras(3)
    mirrored = normalize.mirror(poses)
    np.testing.assert_allclose(np.linalg.det(mirrored[:, :3, :3]), 1.0)
    point = np.array([1.0, 2.0, 3.0])
    for a, b in zip(poses, mirrored, strict=True):
        seen = (point - a[:3, 3]) @ a[:3, :3]
        seen_mirrored = (point * [-1, 1, 1] - b[:3, 3]) @ b[:3, :3]
        np.testing.assert_allclose(seen_mirrored, seen * [-1, 1, 1], atol=1e-12)


def test_one_wrong_pose_does_not_move_the_robust_unit():
    centers = np.random.default_rng(0).normal(size=(7, 3))
    lost = centers.copy()
    lost[3] = [1e4, -1e4, 0]
    every = np.arange(7)
    good, bad = (normalize.scene_unit(c, every, "cameras_robust") for c in (centers, lost))
    assert bad == pytest.approx(good, rel=0.5)
    assert normalize.scene_unit(lost, every, "cameras") > 1e3
    np.testing.assert_allclose(
        normalize.scene_unit(centers * 5 + 2, every, "cameras_robust"), 5 * good, rtol=1e-12
    )


def test_cameras_that_rest_have_no_unit():
    with pytest.raises(ValueError, match="scale='cameras_robust' has no length to use"):
        normalize.scene_unit(np.zeros((4, 3)), np.arange(4), "cameras_robust")


@pytest.mark.parametrize(("resting", "units"), [(2, (True, True)), (4, (True, False))])
def test_which_scale_has_a_unit(resting, units):
    centers = np.random.default_rng(0).normal(size=(6, 3)) + 1e3
    centers[:resting] = centers[0] + np.random.default_rng(1).normal(scale=1e-12, size=(resting, 3))
    found = tuple(normalize.has_unit(centers, scale) for scale in normalize.SCALES)
    assert found == units
    assert normalize.has_unit(np.zeros((3, 3)), 0.5)
