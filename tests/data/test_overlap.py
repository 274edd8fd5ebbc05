"""Overlap of cameras: known cases, symmetry, invariance; and windows chosen by it."""

import numpy as np
import pytest

from lgs_jax.data.overlap import Overlap
from lgs_jax.data.views import ViewPlan, choose_views


def turned(degrees):
    angle = np.deg2rad(degrees)
    pose = np.eye(4)
    pose[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    return pose


def overlap_of(poses, fov_deg=90.0):
    poses = np.stack(poses)
    focal = 50 / np.tan(np.deg2rad(fov_deg) / 2)
    frames = len(poses)
    return Overlap(
        poses, np.tile([focal, focal, 50.0, 50.0], (frames, 1)), np.tile([100, 100], (frames, 1))
    )


def test_the_same_camera_sees_the_same():
    assert overlap_of([np.eye(4), np.eye(4)])(0, np.array([0, 1])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("degrees", "expected"), [(90, 0.0), (180, 0.0), (-120, 0.0)])
def test_turned_away_sees_nothing_in_common(degrees, expected):
    assert overlap_of([np.eye(4), turned(degrees)])(0, np.array([1]))[0] == expected


def test_turning_on_the_spot_loses_the_share_that_leaves_the_image():
    # Rays at -0.8, -0.4, 0, 0.4, 0.8 of the half image: angles -38.7, -21.8, 0, 21.8, 38.7 degrees;
    # turned by 30 degrees those within [-15, 75] stay, in all rows.
    assert overlap_of([np.eye(4), turned(30)])(0, np.array([1]))[0] == pytest.approx(3 / 5)
    falling = overlap_of([turned(a) for a in range(0, 100, 10)])(0, np.arange(10))
    assert (np.diff(falling) <= 0).all()
    assert falling[-1] == 0


def orbit(degrees, radius=3.0):
    """Looks at the origin from a circle."""
    pose = turned(degrees)
    pose[:3, 3] = -radius * pose[:3, 2]
    return pose


def test_the_back_of_an_object_is_not_seen_from_the_front():
    poses = [orbit(a) for a in (0, 20, 40, 90, 180)]
    found = overlap_of(poses, fov_deg=50)(0, np.arange(1, 5))
    assert found[0] > 0.9
    assert (np.diff(found) <= 0).all()
    assert found[3] == 0


def test_symmetric_and_free_of_frame_and_unit():
    rng = np.random.default_rng(0)
    poses = []
    for _ in range(6):
        pose = turned(rng.uniform(-40, 40))
        pose[:3, 3] = rng.normal(size=3)
        poses.append(pose)
    overlap = overlap_of(poses)
    matrix = np.stack([overlap(i, np.arange(6)) for i in range(6)])
    np.testing.assert_array_equal(matrix, matrix.T)
    rigid = turned(70)
    rigid[:3, 3] = [3, -2, 1]
    moved = [rigid @ pose for pose in poses]
    for pose in moved:
        pose[:3, 3] *= 7.0
    again = overlap_of(moved)
    np.testing.assert_allclose(np.stack([again(i, np.arange(6)) for i in range(6)]), matrix)


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_windows_overlap_as_asked(seed):
    poses = [turned(a) for a in range(0, 120, 3)]
    overlap = overlap_of(poses)
    plan = ViewPlan(3, 2, "overlap", overlap_min=0.3, overlap_max=0.7)
    rng = None if seed is None else np.random.default_rng(seed)
    centers = np.stack([pose[:3, 3] for pose in poses])
    context, target = choose_views(centers, plan, rng, overlap)
    assert 0.3 <= overlap(int(context[0]), context[-1:])[0] <= 0.7
    assert len({*context, *target}) == 5


def test_the_nearest_window_serves_where_none_overlaps_enough():
    poses = [turned(a) for a in range(0, 360, 60)]
    plan = ViewPlan(2, 1, "overlap", overlap_min=0.9, overlap_max=1.0)
    context, _ = choose_views(np.zeros((6, 3)), plan, np.random.default_rng(0), overlap_of(poses))
    assert len(context) == 2


def test_a_measure_is_needed():
    with pytest.raises(ValueError, match="needs a measure"):
        choose_views(np.zeros((6, 3)), ViewPlan(2, 1, "overlap"), None)
