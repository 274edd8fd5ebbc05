"""Density and colour at points: against SciPy and against loops written from the definitions."""

import dataclasses

import field_scenes as scenes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from lgs_jax.core import rotations
from lgs_jax.rendering.volume import image_planes, interpolate, region, triplane


def _scipy(table, positions):
    """`interpolate` by SciPy, whose entries lie at whole numbers."""
    channels = np.moveaxis(np.asarray(table, np.float64), -1, 0)
    at = np.asarray(positions, np.float64).T - 0.5
    return np.stack([ndimage.map_coordinates(c, at, order=1, mode="nearest") for c in channels], -1)


@jax.jit
def _look(scene, points):
    return scene.field(points)


@pytest.mark.parametrize("sizes", [(4,), (5, 3), (3, 4, 5), (1, 6)])
def test_interpolation_is_that_of_scipy(sizes):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(*sizes, 2)), jnp.float32)
    positions = jnp.asarray(rng.uniform(-1, 1, (50, len(sizes))) * 2 * np.array(sizes), jnp.float32)
    got = jax.jit(interpolate.interpolate)(table, positions)
    np.testing.assert_allclose(got, _scipy(table, positions), atol=1e-5)


@pytest.mark.parametrize("contracted", [False, True])
def test_coordinates_and_points_are_inverse(contracted):
    cube = dataclasses.replace(scenes.make("voxels").region, contracted=contracted)
    inside = 0.98 * region.cell_centers(5).reshape(-1, 3)
    np.testing.assert_allclose(cube.coordinates(cube.points(inside)), inside, atol=1e-5)


def test_contraction_keeps_the_cube_even_and_holds_all_space():
    cube = region.Region(jnp.eye(4), contracted=True)
    got = cube.coordinates(jnp.array([[0.5, -1.0, 0.2], [2.0, 1.0, 0.0], [0.0, 0.0, -1e6]]))
    # The second at distance 2 comes to (2 - 1/2) / 2 times its direction (1, 1/2, 0).
    expected = [[0.25, -0.5, 0.1], [0.75, 0.375, 0.0], [0.0, 0.0, -1.0]]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_region_ahead_has_what_the_views_look_at_in_its_middle():
    views = scenes.cameras(views=3)  # all look at the origin, at distance 2
    cube = region.ahead_of(views, 2.0)
    np.testing.assert_allclose(cube.coordinates(jnp.zeros((1, 3))), 0.0, atol=1e-2)
    at_cameras = jnp.max(jnp.abs(cube.coordinates(views.centers)), axis=-1)
    assert bool((at_cameras < 0.51).all())
    moved = region.ahead_of(
        dataclasses.replace(views, world_from_cam=_rigid() @ views.world_from_cam), 2.0
    )
    there = rotations.apply_affine(_rigid(), scenes.points())
    here = cube.coordinates(scenes.points())
    np.testing.assert_allclose(moved.coordinates(there), here, atol=1e-5)


def _rigid():
    return scenes.similarity(scale=1.0)


@pytest.mark.parametrize("contracted", [False, True])
def test_voxels_are_trilinear_and_empty_outside(contracted):
    scene, points = scenes.make("voxels", contracted=contracted), scenes.points()
    density, colors = _look(scene, points)
    coordinates = np.asarray(scene.region.coordinates(points))
    positions = (coordinates + 1) / 2 * np.array(scene.density.shape)
    inside = (np.abs(coordinates) <= 1).all(-1)
    assert inside.all() == contracted
    expected = np.where(inside, _scipy(scene.density[..., None], positions)[:, 0], 0.0)
    np.testing.assert_allclose(density, expected, atol=1e-5)
    np.testing.assert_allclose(colors, _scipy(scene.colors, positions), atol=1e-5)


def _decode(mlp, features):
    """The network in float64."""
    mlp = scenes.float64(mlp)
    hidden = features @ mlp.kernel_in + mlp.bias_in
    output = hidden / (1 + np.exp(-hidden)) @ mlp.kernel_out + mlp.bias_out
    logits = output[:, 1:] + features[:, :3]
    return np.log1p(np.exp(output[:, 0])) / mlp.unit, 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("combination", triplane.COMBINATIONS)
def test_three_planes_give_the_features_of_the_shadows(combination):
    scene, points = scenes.make("triplane"), scenes.points()
    scene = dataclasses.replace(scene, combination=combination)
    x, y, z = ((np.asarray(scene.region.coordinates(points)) + 1) / 2 * 4).T
    shadows = [(y, z), (x, z), (x, y)]
    found = [_scipy(plane, np.stack(at, -1)) for plane, at in zip(scene.planes, shadows)]
    features = found[0] + found[1] + found[2]
    if combination == "product":
        features = found[0] * found[1] * found[2]
    for got, expected in zip(_look(scene, points), _decode(scene.mlp, features)):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def _pooled(scene, points):
    """`ImagePlanes.pooled` point by point and view by view, in float64."""
    data, near, far = scenes.float64(scene), float(scene.samples.near), float(scene.samples.far)
    features, seen = [], []
    for point in np.asarray(points, np.float64):
        total, weight = np.zeros(5), 0.0
        for v in range(len(data.maps)):
            pose = data.cameras.world_from_cam[v]
            x, y, z = pose[:3, :3].T @ (point - pose[:3, 3])
            fx, fy, cx, cy = data.cameras.intrinsics[v]
            column, row = fx * x / z + cx, fy * y / z + cy
            height, width = data.maps.shape[1:3]
            if z <= 0 or not (0 < column < width and 0 < row < height):
                continue
            edge = min(column, width - column, row, height - row)
            counts = data.view_weights[v] * min(1.0, 2 * edge) * min(1.0, z / near)
            share = (1 / np.clip(z, near, far) - 1 / far) / (1 / near - 1 / far)
            turns = np.pi * share * np.arange(1, 5)
            encoded = np.concatenate([[2 * share - 1], np.sin(turns), np.cos(turns)])
            found = _scipy(data.maps[v], np.array([[row, column]]))[0]
            hidden = found[3:] + encoded @ data.depth_kernel
            hidden = hidden / (1 + np.exp(-hidden))
            total += counts * np.concatenate([found[:3], hidden])
            weight += counts
        features.append(total / max(weight, 1e-6))
        seen.append(weight)
    return np.array(features), np.array(seen)


def test_image_planes_pool_over_the_views_that_see_a_point():
    scene, points = scenes.make("image_planes"), scenes.points()
    features, seen = _pooled(scene, points)
    assert 0 < np.mean(seen == 0) < 1  # some are outside of all views
    got_features, got_seen = jax.jit(lambda scene, points: scene.pooled(points))(scene, points)
    np.testing.assert_allclose(got_seen, seen, atol=1e-4)
    sure = (seen == 0) | (seen > 0.05)  # a share of nearly nothing divides rounding by itself
    np.testing.assert_allclose(got_features[sure], features[sure], atol=1e-3)
    density, colors = _look(scene, points)
    expected, expected_colors = _decode(scene.mlp, features)
    np.testing.assert_allclose(density[sure], (expected * np.minimum(seen, 1))[sure], atol=1e-3)
    np.testing.assert_allclose(colors[sure], expected_colors[sure], atol=1e-3)


def test_a_view_of_weight_zero_is_not_there():
    scene, points = scenes.make("image_planes"), scenes.points()
    weights = jnp.array([0.0, 1.0])
    without = dataclasses.replace(scene, view_weights=weights)
    alone = dataclasses.replace(
        scene, maps=scene.maps[1:], cameras=scene.cameras[1:], view_weights=weights[1:]
    )
    for got, expected in zip(_look(without, points), _look(alone, points)):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_point_on_the_plane_of_a_camera_has_finite_values_and_gradients():
    scene = scenes.make("image_planes")
    on_camera = jnp.stack([scene.cameras.centers[0], scene.cameras.centers[0]])
    on_camera += jnp.array([[0.0], [1.0]]) * scene.cameras.world_from_cam[0, :3, 0]
    total = lambda points: sum(jnp.sum(x) for x in scene.field(points))  # noqa: E731
    value, slope = jax.jit(jax.value_and_grad(total))(on_camera)
    assert bool(jnp.isfinite(value) & jnp.isfinite(slope).all())


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("voxels", {"colors": jnp.zeros((3, 4, 4, 3))}, r"density \[\.\.\., X, Y, Z\]"),
        ("voxels", {"region": region.Region(jnp.eye(3))}, "cube_from_world"),
        ("triplane", {"planes": jnp.zeros((2, 4, 4, 5))}, r"planes \[\.\.\., 3, n, n, F\]"),
        ("triplane", {"planes": jnp.zeros((3, 4, 4, 6))}, r"kernel_in has shape \(5, 4\)"),
        ("triplane", {"combination": "mean"}, "combination='mean'"),
        ("image_planes", {"view_weights": jnp.ones(3)}, "view_weights"),
        ("image_planes", {"depth_kernel": jnp.ones((3, 2))}, "depth_kernel"),
        ("image_planes", {"cameras": scenes.cameras(views=3)}, "cameras"),
    ],
)
def test_shapes_that_do_not_fit_are_named(kind, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(scenes.make(kind), **change).check()


@pytest.mark.parametrize("change", [{"count": 0}, {"spacing": "log"}, {"near": jnp.ones(2)}])
def test_samples_that_do_not_fit_are_named(change):
    scene = scenes.make("voxels")
    samples = dataclasses.replace(scene.samples, **change)
    with pytest.raises(ValueError, match=f"Samples.{next(iter(change))}"):
        dataclasses.replace(scene, samples=samples).check()


def test_pixels_of_a_projection_are_those_of_the_cameras():
    camera = scenes.cameras(views=2)[0]
    positions, depth = image_planes.project(camera, jnp.zeros((1, 3)))
    np.testing.assert_allclose(positions[0], camera.intrinsics[2:], atol=1e-5)
    np.testing.assert_allclose(depth, jnp.linalg.norm(camera.centers), rtol=1e-5)
