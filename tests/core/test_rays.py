"""Pixel rays and Plücker coordinates against projection and the geometry of lines."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import rays
from lgs_jax.core.cameras import Cameras


@pytest.fixture
def cameras() -> Cameras:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3] = Rotation.random(2, random_state=0).as_matrix()
    poses[:, :3, 3] = [[1, 2, 3], [-2, 0, 1]]
    intrinsics = [[30.0, 31.0, 8.3, 6.1], [25.0, 24.0, 7.0, 5.0]]
    return Cameras(jnp.asarray(poses, jnp.float32), jnp.asarray(intrinsics))


def test_pixel_centers_are_half_way():
    uv = np.asarray(rays.pixel_centers(2, 3))
    np.testing.assert_array_equal(uv[0], [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5]])
    np.testing.assert_array_equal(uv[1, 0], [0.5, 1.5])


def test_point_at_a_depth_projects_back_to_its_pixel(cameras):
    origins, directions = rays.pixel_rays(cameras, 12, 16)
    assert origins.shape == directions.shape == (2, 12, 16, 3)
    points = np.asarray(origins + 4.0 * directions, np.float64)
    for camera in range(2):
        inverse = np.linalg.inv(np.asarray(cameras.world_from_cam[camera], np.float64))
        local = points[camera] @ inverse[:3, :3].T + inverse[:3, 3]
        fx, fy, cx, cy = np.asarray(cameras.intrinsics[camera], np.float64)
        np.testing.assert_allclose(local[..., 2], 4.0, rtol=1e-5)
        rows, columns = np.mgrid[:12, :16] + 0.5
        np.testing.assert_allclose(fx * local[..., 0] / local[..., 2] + cx, columns, atol=1e-4)
        np.testing.assert_allclose(fy * local[..., 1] / local[..., 2] + cy, rows, atol=1e-4)


def test_halving_an_image_keeps_the_rays_of_its_blocks(cameras):
    _, fine = rays.pixel_rays(cameras, 12, 16)
    _, coarse = rays.pixel_rays(cameras_lib.resize(cameras, scale_x=0.5, scale_y=0.5), 6, 8)
    blocks = np.asarray(fine).reshape(2, 6, 2, 8, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(coarse, blocks, atol=1e-6)


def test_plucker_is_a_line_whatever_point_of_it_is_taken(cameras):
    line = np.asarray(rays.plucker(cameras, 12, 16), np.float64)
    direction, moment = line[..., :3], line[..., 3:]
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.sum(direction * moment, -1), 0.0, atol=1e-6)
    origins, directions = rays.pixel_rays(cameras, 12, 16)
    further = np.asarray(origins, np.float64) + 5.0 * np.asarray(directions, np.float64)
    np.testing.assert_allclose(np.cross(further, direction), moment, atol=1e-5)


def test_plucker_of_a_known_ray():
    camera = Cameras(jnp.eye(4).at[:3, 3].set(jnp.array([0.0, 2.0, 0.0])), jnp.ones(4) * 0.5)
    got = rays.plucker(camera, 1, 1)[0, 0]  # straight ahead from (0, 2, 0)
    np.testing.assert_allclose(got, [0, 0, 1, 2, 0, 0], atol=1e-7)
