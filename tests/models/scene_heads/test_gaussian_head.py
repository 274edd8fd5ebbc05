import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import gaussians, rotations
from lgs_jax.models.scene_heads import gaussians as gaussian_head


def _cameras(batch=2, views=3):
    angles = jnp.linspace(-0.6, 0.6, views) + 0.1 * jnp.arange(batch)[:, None]
    centers = 2 * jnp.stack([jnp.sin(angles), 0.3 * angles, -jnp.cos(angles)], axis=-1)
    poses = cameras_lib.look_at(centers, jnp.zeros(3), jnp.array([0.0, -1.0, 0.0]))
    intrinsics = jnp.broadcast_to(jnp.array([18.0, 22.0, 5.0, 4.5]), (batch, views, 4))
    return cameras_lib.Cameras(poses, intrinsics)


def _maps(scale=1.0):
    return scale * jax.random.normal(jax.random.key(0), (2, 3, 8, 10, 12))


def test_zero_maps_give_a_shell_of_splats_a_pixel_wide():
    head = gaussian_head.GaussianHead(near=0.5, far=50.0, initial_depth=3.0)
    cameras = _cameras()
    scene = head(jnp.zeros((2, 3, 8, 10, 12)), cameras).check()
    assert scene.batch_shape == (2,)
    assert scene.num_gaussians == 3 * 8 * 10
    np.testing.assert_allclose(scene.opacities, 0.8, rtol=1e-5)
    np.testing.assert_allclose(scene.colors, 0.5, rtol=1e-5)
    np.testing.assert_allclose(scene.scales, 0.8 * 3.0 / math.sqrt(18 * 22), rtol=1e-4)
    turns = rotations.matrix_from_quats(scene.quats).reshape(2, 3, 80, 3, 3)
    np.testing.assert_allclose(
        turns, jnp.broadcast_to(cameras.world_from_cam[:, :, None, :3, :3], turns.shape), atol=1e-5
    )


def test_every_splat_projects_to_the_centre_of_its_pixel_at_its_depth():
    head = gaussian_head.GaussianHead(near=0.5, far=50.0)
    cameras, maps = _cameras(), _maps()
    scene = head(maps, cameras)
    in_camera = rotations.apply_affine(cameras.cam_from_world, scene.means.reshape(2, 3, 80, 3))
    in_camera = np.asarray(in_camera, np.float64).reshape(2, 3, 8, 10, 3)
    depth = in_camera[..., 2]
    sigmoid = 1 / (1 + np.exp(-np.asarray(maps[..., 0], np.float64)))
    np.testing.assert_allclose(1 / depth, 1 / 50 + (1 / 0.5 - 1 / 50) * sigmoid, rtol=1e-4)
    fx, fy, cx, cy = (float(x) for x in cameras.intrinsics[0, 0])
    columns, rows = np.arange(10) + 0.5, (np.arange(8) + 0.5)[:, None]
    u, v = fx * in_camera[..., 0] / depth + cx, fy * in_camera[..., 1] / depth + cy
    np.testing.assert_allclose(u, np.broadcast_to(columns, u.shape), atol=2e-3)
    np.testing.assert_allclose(v, np.broadcast_to(rows, v.shape), atol=2e-3)


@pytest.mark.parametrize("activation", gaussian_head.DEPTH_ACTIVATIONS)
def test_depth_starts_at_the_initial_depth_and_stays_in_range(activation):
    head = gaussian_head.GaussianHead(
        near=0.5, far=100.0, depth_activation=activation, initial_depth=4.0
    )
    x = jnp.array([0.0, -100.0, 100.0, -1.0, 1.0])
    depths = np.asarray(head.depths(x))
    np.testing.assert_allclose(depths[0], 4.0, rtol=1e-4)
    np.testing.assert_allclose(sorted(depths[1:3]), [0.5, 100.0], rtol=1e-5)
    towards_near = jnp.diff(head.depths(jnp.linspace(-4, 4, 50))) < 0
    assert bool(towards_near.all())
    middle = dataclasses.replace(head, initial_depth=None).depths(jnp.zeros(()))
    expected = {"disparity": 2 / (1 / 0.5 + 1 / 100), "linear": 50.25, "log": math.sqrt(50)}
    np.testing.assert_allclose(middle, expected[activation], rtol=1e-4)


def test_scales_are_bounded_in_pixels():
    head = gaussian_head.GaussianHead(min_scale=0.1, max_scale=10.0, initial_scale=0.7)
    got = head.pixel_scales(jnp.array([-100.0, 0.0, 100.0]))
    np.testing.assert_allclose(got, [0.1, 0.7, 10.0], rtol=1e-4)


def test_moving_the_cameras_rigidly_moves_the_scene():
    turn = rotations.matrix_from_quats(jnp.array([0.3, -0.5, 0.7, 0.2]))
    b_from_a = rotations.affine_from_parts(turn, jnp.array([0.5, -2.0, 1.0]))
    head, cameras, maps = gaussian_head.GaussianHead(far=20.0), _cameras(), _maps()
    scene = head(maps, cameras)
    b_from_a = jnp.broadcast_to(b_from_a, (2, 4, 4))
    expected = gaussians.transform(scene, b_from_a)
    got = head(maps, cameras_lib.transform(cameras, b_from_a[:, None]))
    np.testing.assert_allclose(got.means, expected.means, atol=1e-4)
    np.testing.assert_allclose(got.scales, expected.scales, rtol=1e-4)
    got, expected = gaussians.covariances(got), gaussians.covariances(expected)
    np.testing.assert_allclose(got, expected, atol=1e-5 * float(expected.max()) + 1e-6)


def test_views_left_out_become_transparent_and_nothing_else_changes():
    head, cameras, maps = gaussian_head.GaussianHead(), _cameras(), _maps()
    mask = jnp.array([[True, False, True], [True, True, True]])
    got, full = head(maps, cameras, mask), head(maps, cameras)
    opacities = got.opacities.reshape(2, 3, 80)
    assert float(opacities[0, 1].max()) == 0.0
    np.testing.assert_array_equal(opacities[mask], full.opacities.reshape(2, 3, 80)[mask])
    np.testing.assert_array_equal(got.means, full.means)


def test_extreme_maps_have_finite_values_and_gradients():
    head, cameras = gaussian_head.GaussianHead(), _cameras()
    total = lambda maps: sum(jnp.sum(x) for x in jax.tree.leaves(head(maps, cameras)))  # noqa: E731
    value, gradient = jax.value_and_grad(total)(_maps(50.0))
    assert math.isfinite(float(value))
    assert bool(jnp.isfinite(gradient).all())


def test_bfloat16_maps_give_float32_geometry():
    scene = gaussian_head.GaussianHead()(_maps().astype(jnp.bfloat16), _cameras())
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(scene))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth_activation": "exp"}, "depth_activation='exp'"),
        ({"near": 0.0}, "near=0.0 must be positive"),
        ({"near": 3.0, "far": 2.0}, r"near=3.0 must be smaller than far=2.0"),
        ({"initial_depth": 0.2}, "initial_depth=0.2 must lie between near=0.5 and far=100.0"),
        ({"initial_opacity": 1.0}, "initial_opacity=1.0 must lie between 0 and 1"),
        ({"initial_scale": 20.0}, "initial_scale=20.0 .*max_scale=10.0"),
        ({"min_scale": 0.0}, "min_scale=0.0"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        gaussian_head.GaussianHead(**settings)
