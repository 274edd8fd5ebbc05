"""Pinhole cameras: frames, image edits and similarities, by projecting points in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core.cameras import Cameras


def random_cameras(seed: int, *lead: int) -> Cameras:
    rng = np.random.default_rng(seed)
    count = int(np.prod(lead))
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(count, 3))
    intrinsics = rng.uniform([40, 45, 20, 15], [60, 65, 30, 25], size=(count, 4))
    return Cameras(
        jnp.asarray(poses.reshape(*lead, 4, 4), jnp.float32),
        jnp.asarray(intrinsics.reshape(*lead, 4), jnp.float32),
    )


def project(camera: Cameras, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 2] and z-depths [N] of points [N, 3] in one camera, in float64."""
    pose = np.asarray(camera.world_from_cam, np.float64)
    fx, fy, cx, cy = np.asarray(camera.intrinsics, np.float64)
    x, y, z = np.linalg.inv(pose[:3, :3]) @ (points - pose[:3, 3]).T
    return np.stack([fx * x / z + cx, fy * y / z + cy], axis=-1), z


def points_ahead(camera: Cameras, seed: int = 0) -> np.ndarray:
    local = np.random.default_rng(seed).uniform([-1, -1, 2], [1, 1, 5], size=(20, 3))
    pose = np.asarray(camera.world_from_cam, np.float64)
    return local @ pose[:3, :3].T + pose[:3, 3]


def test_cam_from_world_undoes_world_from_cam():
    cameras = random_cameras(0, 2, 3)
    product = np.asarray(cameras.cam_from_world) @ np.asarray(cameras.world_from_cam)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(4), (2, 3, 4, 4)), atol=1e-6)


def test_shapes_indexing_and_pytree():
    cameras = random_cameras(1, 2, 3)
    assert cameras.batch_shape == (2, 3)
    assert len(cameras) == 2
    assert cameras[1].batch_shape == (3,)
    assert cameras[:, 0].batch_shape == (2,)
    np.testing.assert_array_equal(cameras[1, 2].centers, cameras.world_from_cam[1, 2, :3, 3])
    assert jax.tree.map(jnp.shape, cameras) == Cameras((2, 3, 4, 4), (2, 3, 4))
    with pytest.raises(TypeError, match="single camera"):
        len(cameras[0, 0])


@pytest.mark.parametrize(
    ("poses", "intrinsics"), [((3, 3, 4), (3, 4)), ((3, 4, 4), (3, 3)), ((2, 4, 4), (3, 4))]
)
def test_check_names_the_shapes(poses, intrinsics):
    with pytest.raises(ValueError, match=r"world_from_cam \[..., 4, 4\]"):
        Cameras(jnp.zeros(poses), jnp.zeros(intrinsics)).check()


def test_check_refuses_lists():
    poses = np.eye(4).tolist()
    with pytest.raises(ValueError, match=r"Cameras\.world_from_cam must be an array .*, got list"):
        Cameras(poses, [50.0, 50.0, 16.0, 16.0]).check()


def test_resize_scales_pixels():
    camera = random_cameras(2, 1)[0]
    points = points_ahead(camera)
    before, _ = project(camera, points)
    after, _ = project(cameras_lib.resize(camera, scale_x=0.5, scale_y=2.0), points)
    np.testing.assert_allclose(after, before * [0.5, 2.0], rtol=1e-6)


def test_crop_shifts_pixels():
    camera = random_cameras(3, 1)[0]
    points = points_ahead(camera)
    before, _ = project(camera, points)
    after, _ = project(cameras_lib.crop(camera, left=7, top=3), points)
    np.testing.assert_allclose(after, before - [7.0, 3.0], atol=1e-5)


def test_similarity_moves_cameras_with_the_world():
    cameras = random_cameras(4, 3)
    scale, turn = 2.5, Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix()
    similarity = np.eye(4)
    similarity[:3, :3], similarity[:3, 3] = scale * turn, [1.0, -2.0, 0.5]
    moved = cameras_lib.transform(cameras, jnp.asarray(similarity, jnp.float32))
    for i in range(3):
        points = points_ahead(cameras[i])
        pixels, depths = project(cameras[i], points)
        moved_points = points @ similarity[:3, :3].T + similarity[:3, 3]
        moved_pixels, moved_depths = project(moved[i], moved_points)
        np.testing.assert_allclose(moved_pixels, pixels, atol=1e-3)  # float32 poses, f = 60 px
        np.testing.assert_allclose(moved_depths, scale * depths, rtol=1e-5)
        np.testing.assert_allclose(  # camera axes keep unit length
            np.linalg.norm(np.asarray(moved.world_from_cam)[i, :3, :3], axis=0), 1.0, atol=1e-6
        )


def test_look_at_puts_target_in_the_middle_and_up_at_the_top():
    center, target, up = np.array([1.0, 2, 3]), np.array([-1.0, 0.5, 4]), np.array([0.1, -1, 0])
    pose = cameras_lib.look_at(jnp.asarray(center), jnp.asarray(target), jnp.asarray(up))
    camera = Cameras(pose, jnp.array([50.0, 50, 32, 24]))
    pixels, depths = project(camera, np.stack([target, target + 0.1 * up]))
    np.testing.assert_allclose(pixels[0], [32, 24], atol=1e-4)
    np.testing.assert_allclose(depths[0], np.linalg.norm(target - center), rtol=1e-6)
    np.testing.assert_allclose(pixels[1, 0], 32, atol=1e-4)
    assert pixels[1, 1] < 24  # image rows grow downwards
    assert np.linalg.det(np.asarray(pose)[:3, :3]) == pytest.approx(1.0, abs=1e-6)


def test_cameras_are_a_sequence_that_ends():
    cameras = random_cameras(0, 3)
    each = list(cameras)
    assert len(each) == 3
    np.testing.assert_array_equal(each[2].intrinsics, cameras.intrinsics[2])
    np.testing.assert_array_equal(cameras[-1].intrinsics, cameras.intrinsics[2])
    with pytest.raises(IndexError, match="index 3 is out of range: the first dimension has 3"):
        cameras[3]
    with pytest.raises(IndexError, match="Cameras have no leading dimension"):
        list(each[0])


def test_an_index_never_cuts_into_the_arrays():
    cameras = random_cameras(0, 2, 3)
    assert cameras[..., 0].batch_shape == (2,)
    np.testing.assert_array_equal(cameras[..., 0].intrinsics, cameras.intrinsics[:, 0])
    assert cameras[...].batch_shape == (2, 3)
    assert cameras[None, ..., None].batch_shape == (1, 2, 3, 1)
    assert cameras[np.ones((2, 3), bool)].batch_shape == (6,)
    np.testing.assert_array_equal(cameras[1, ..., 2].intrinsics, cameras.intrinsics[1, 2])
    for index in [(0, 0, 0), (..., 0, 0, 0), (slice(None),) * 3, np.ones((2, 3, 4), bool)]:
        with pytest.raises(IndexError, match=r"3 indices for the 2 leading dimensions \(2, 3\)"):
            cameras[index]
    with pytest.raises(IndexError, match="no leading dimension"):
        cameras[0, 0][0]
    with pytest.raises(IndexError, match="once"):
        cameras[..., 0, ...]


@pytest.mark.parametrize("number", [5, np.int64(5), np.array(5), jnp.int32(5), -4])
def test_numbers_out_of_range_are_named_wherever_they_stand(number):
    cameras = random_cameras(0, 2, 3)
    with pytest.raises(IndexError, match="out of range: dimension 1 has 3"):
        cameras[:, number]
    with pytest.raises(IndexError, match="out of range: the first dimension has 2"):
        cameras[number]
    assert jax.jit(lambda c, i: c[i])(cameras, 1).batch_shape == (3,)
