"""Camera paths: they pass where they should, close smoothly and move with the cameras."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import trajectories
from lgs_jax.core.cameras import Cameras

INTRINSICS = jnp.array([50.0, 52.0, 32.0, 24.0])


def walk(count: int = 5) -> Cameras:
    """A forward walk with turns of up to about 40 degrees between frames."""
    rng = np.random.default_rng(0)
    angles = np.cumsum(rng.normal(0, 0.3, size=(count, 3)), axis=0)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("yxz", angles).as_matrix()
    poses[:, :3, 3] = np.cumsum(rng.normal([0, 0, 1], 0.2, size=(count, 3)), axis=0)
    intrinsics = INTRINSICS + jnp.arange(float(count))[:, None]
    return Cameras(jnp.asarray(poses, jnp.float32), intrinsics)


def ring(angles: np.ndarray, radius: float = 3.0, height: float = 1.0) -> Cameras:
    """Cameras at `angles` around (1, 2, 3), above it (y is down), all looking at it."""
    focus = np.array([1.0, 2.0, 3.0])
    around = np.stack([np.cos(angles), 0 * angles, np.sin(angles)], axis=-1)
    centers = jnp.asarray(focus + radius * around - [0, height, 0], jnp.float32)
    poses = cameras_lib.look_at(centers, jnp.asarray(focus), jnp.array([0.0, -1.0, 0.0]))
    return Cameras(poses, jnp.broadcast_to(INTRINSICS, (len(angles), 4)))


def assert_same(a: Cameras, b: Cameras, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(a.world_from_cam, b.world_from_cam, atol=atol)
    np.testing.assert_allclose(a.intrinsics, b.intrinsics, rtol=1e-6)


def assert_rigid(cameras: Cameras) -> None:
    turns = np.asarray(cameras.world_from_cam)[:, :3, :3]
    eye = np.broadcast_to(np.eye(3), turns.shape)
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), eye, atol=2e-6)
    np.testing.assert_allclose(np.linalg.det(turns), 1.0, atol=2e-6)


def jumps(path: Cameras) -> np.ndarray:
    """How far a closed path moves from each frame to the next, the last one to the first."""
    poses = np.asarray(path.world_from_cam)[:, :3]
    return np.linalg.norm((np.roll(poses, -1, axis=0) - poses).reshape(len(poses), -1), axis=-1)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_open_path_visits_the_given_cameras(count):
    cameras = walk(count)
    path = trajectories.interpolate(cameras, 4 * (count - 1) + 1)
    assert_same(path[::4], cameras)
    assert_rigid(path)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_loop_visits_the_given_cameras_and_closes(count):
    cameras = walk(count)
    path = trajectories.interpolate(cameras, 10 * count, loop=True)
    assert_same(path[::10], cameras)
    assert_rigid(path)
    steps = jumps(path)
    assert steps[-1] < 2 * steps[:-1].max()


def test_path_does_not_depend_on_the_signs_of_quaternions():
    # Turning on and on about one axis takes w through zero, where the sign of q flips.
    angles = np.arange(9) * np.radians(50)
    poses = np.tile(np.eye(4), (9, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("y", angles[:, None]).as_matrix()
    cameras = Cameras(jnp.asarray(poses, jnp.float32), jnp.broadcast_to(INTRINSICS, (9, 4)))
    path = trajectories.interpolate(cameras, 81)
    times = np.linspace(0, 8, 81)
    exact = Slerp(np.arange(9.0), Rotation.from_matrix(poses[:, :3, :3]))(times).as_matrix()
    errors = Rotation.from_matrix(
        np.asarray(path.world_from_cam, np.float64)[:, :3, :3] @ exact.swapaxes(1, 2)
    ).magnitude()
    assert np.degrees(errors.max()) < 2.0  # a spline is not a slerp; a wrong sign gives > 20


def test_two_cameras_give_a_straight_line_at_constant_speed():
    path = trajectories.interpolate(walk(2), 9)
    steps = np.diff(np.asarray(path.centers), axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-6)


def test_speed_is_continuous_at_the_given_cameras():
    fine = 200
    centers = np.asarray(trajectories.interpolate(walk(5), 4 * fine + 1).centers, np.float64)
    velocity = np.diff(centers, axis=0) * fine
    at_keys = np.linalg.norm(velocity[fine::fine] - velocity[fine - 1 : -1 : fine], axis=-1)
    assert at_keys.max() < 0.03  # of a speed of about 1; straight pieces would jump by about 0.3


def test_interpolation_moves_with_the_cameras():
    cameras = walk(4)
    similarity = np.eye(4)
    similarity[:3, :3] = 2.0 * Rotation.from_euler("xyz", [1.0, 2.0, -0.5]).as_matrix()
    similarity[:3, 3] = [3, -1, 2]
    similarity = jnp.asarray(similarity, jnp.float32)
    moved_path = cameras_lib.transform(trajectories.interpolate(cameras, 13), similarity)
    path_of_moved = trajectories.interpolate(cameras_lib.transform(cameras, similarity), 13)
    assert_same(moved_path, path_of_moved, atol=2e-5)


def test_focus_point_is_where_the_axes_meet():
    np.testing.assert_allclose(
        trajectories.focus_point(ring(np.array([0.0, 0.4, 1.0]))), [1, 2, 3], atol=1e-4
    )


@pytest.mark.parametrize("forward_only", [True, False])
def test_focus_point_of_axes_that_do_not_meet_ahead_lies_ahead(forward_only):
    cameras = ring(np.linspace(0, 1.0, 5))
    if forward_only:  # parallel
        turns = jnp.broadcast_to(cameras.world_from_cam[2, :3, :3], (5, 3, 3))
    else:  # looking outwards: the axes meet behind
        turns = cameras.world_from_cam[:, :3, :3] * jnp.array([-1.0, 1.0, -1.0])
    poses = cameras.world_from_cam.at[:, :3, :3].set(turns)
    cameras = Cameras(poses, cameras.intrinsics)
    focus = trajectories.focus_point(cameras)
    views = cameras.world_from_cam[:, :3, 2]
    assert (jnp.sum((focus - cameras.centers) * views, axis=-1) > 0).all()
    path = trajectories.orbit(cameras, 6)
    assert_rigid(path)


def test_cameras_all_around_give_a_full_circle():
    cameras = ring(np.linspace(0, 2 * np.pi, 7)[:-1])
    path = trajectories.orbit(cameras, 24)
    assert_rigid(path)
    offsets = np.asarray(path.centers) - [1, 2, 3]
    np.testing.assert_allclose(offsets[:, 1], -1.0, atol=1e-4)  # the cameras' height
    np.testing.assert_allclose(np.linalg.norm(offsets[:, [0, 2]], axis=-1), 3.0, atol=1e-4)
    angles = np.sort(np.arctan2(offsets[:, 2], offsets[:, 0]))
    np.testing.assert_allclose(np.diff(angles), 2 * np.pi / 24, atol=1e-4)
    toward = -offsets / np.linalg.norm(offsets, axis=-1, keepdims=True)
    np.testing.assert_allclose(path.world_from_cam[:, :3, 2], toward, atol=1e-4)
    assert trajectories.orbit_degrees(cameras) == 360


@pytest.mark.parametrize("middle", [0.3, 3.1])  # 3.1: the arc crosses the cut of atan2
def test_cameras_on_an_arc_give_a_closed_sway_over_that_arc(middle):
    cameras = ring(middle + np.linspace(-0.6, 0.6, 5))
    # The damped vertical leans by so little.
    assert trajectories.orbit_degrees(cameras) == pytest.approx(np.rad2deg(1.2), abs=0.1)
    path = trajectories.orbit(cameras, 40)
    assert_rigid(path)
    offsets = np.asarray(path.centers) - [1, 2, 3]
    angles = (np.arctan2(offsets[:, 2], offsets[:, 0]) - middle + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose([angles.min(), angles.max()], [-0.6, 0.6], atol=4e-3)
    np.testing.assert_allclose(np.mean(offsets[:, 1]), -1.0, atol=0.02)  # the cameras' height
    steps = jumps(path)
    assert steps[-1] < 1.5 * steps[:-1].max()
    assert (np.asarray(path.world_from_cam)[:, 1, 1] > 0.5).all()  # image down stays world down


def test_orbit_of_one_camera_moves_and_keeps_the_focus_in_the_middle():
    camera = ring(np.array([0.5]))
    focus = jnp.array([1.0, 2.0, 3.0])
    path = trajectories.orbit(camera, 8, focus=focus)
    assert np.ptp(np.asarray(path.centers), axis=0).max() > 0.1
    local = np.einsum("fij,j->fi", path.cam_from_world[:, :3], np.append(focus, 1.0))
    np.testing.assert_allclose(local[:, :2], 0.0, atol=1e-5)


def test_wobble_is_an_ellipse_that_fixes_the_focus():
    camera = walk(3)[2]
    path = trajectories.wobble(camera, 16, 0.2, focus_distance=2.0)
    assert_rigid(path)
    local = np.einsum(
        "ij,fj->fi", camera.cam_from_world, np.c_[path.centers, np.ones(16)]
    )  # in the axes of the middle camera
    np.testing.assert_allclose((local[:, 0] / 0.2) ** 2 + (local[:, 1] / 0.1) ** 2, 1.0, atol=1e-4)
    np.testing.assert_allclose(local[:, 2], 0.0, atol=1e-5)
    focus = camera.centers + 2.0 * camera.world_from_cam[:3, 2]
    seen = np.einsum("fij,j->fi", path.cam_from_world[:, :3], np.append(focus, 1.0))
    np.testing.assert_allclose(seen[:, :2], 0.0, atol=1e-5)


def test_wobble_of_no_radius_is_the_camera():
    camera = walk(3)[2]
    path = trajectories.wobble(camera, 2, 0.0, focus_distance=1.0)
    assert_same(path, jax.tree.map(lambda x: jnp.stack([x, x]), camera))


def test_paths_work_inside_a_jitted_function():
    cameras = walk(4)
    path = jax.jit(lambda c: trajectories.orbit(c, 5))(cameras)
    assert_same(path, trajectories.orbit(cameras, 5))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="num_frames=0"):
        trajectories.interpolate(walk(3), 0)
    with pytest.raises(ValueError, match="one non-empty leading dimension"):
        trajectories.orbit(walk(3)[0], 4)
    with pytest.raises(ValueError, match="one camera"):
        trajectories.wobble(walk(3), 4, 0.1)
