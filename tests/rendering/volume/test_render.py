"""Fields through the public `render`: arguments, dimensions, gradients, memory, rigid motion."""

import dataclasses

import field_scenes as scenes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.rendering import api
from lgs_jax.rendering.volume import integrate
from lgs_jax.rendering.volume import render as volume_render

SIZE = {"height": 4, "width": 5}


@pytest.fixture(scope="module", params=scenes.KINDS)
def drawn(request):
    """Kind, one scene, its cameras [V] and the rendering."""
    scene, cameras = scenes.make(request.param), scenes.cameras()
    return request.param, scene, cameras, api.render(scene, cameras, background=0.2, **SIZE)


def test_pixels_are_sums_along_their_rays(drawn):
    _, scene, cameras, got = drawn
    assert got.rgb.shape == (3, 4, 5, 3)
    assert got.alpha.shape == got.depth.shape == (3, 4, 5, 1)
    np.testing.assert_array_equal(got.aux["overflow"], np.zeros(3))
    assert float(got.alpha.min()) > 1e-4
    assert float(got.alpha.max()) < 1.0
    pose, (fx, fy, cx, cy) = cameras.world_from_cam[1], cameras.intrinsics[1]
    row, column = 2, 3
    direction = pose[:3, :3] @ jnp.array([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0])
    depths, widths = integrate.bins(scene.samples)
    points = pose[:3, 3] + depths[:, None] * direction
    density, colors = jax.jit(lambda scene, points: scene.field(points))(scene, points)
    light, color, depth = 1.0, np.zeros(3), 0.0
    for i in range(len(depths)):
        alpha = 1 - np.exp(-float(density[i] * widths[i] * jnp.linalg.norm(direction)))
        color, depth = color + light * alpha * colors[i], depth + light * alpha * depths[i]
        light *= 1 - alpha
    pixel = (1, row, column)
    np.testing.assert_allclose(got.rgb[pixel], color + 0.2 * light, atol=1e-4)
    np.testing.assert_allclose(got.alpha[pixel], 1 - light, atol=1e-4)
    np.testing.assert_allclose(got.depth[pixel], depth / (1 - light), rtol=1e-3)


def test_a_similarity_of_scene_and_cameras_scales_depths_alone(drawn):
    _, scene, cameras, expected = drawn
    b_from_a = scenes.similarity(scale=1.7)
    moved = api.transform(scene, b_from_a)
    at = cameras_lib.transform(cameras, b_from_a[None])
    got = api.render(moved, at, background=0.2, **SIZE)
    np.testing.assert_allclose(got.rgb, expected.rgb, atol=2e-4)
    np.testing.assert_allclose(got.alpha, expected.alpha, atol=2e-4)
    np.testing.assert_allclose(got.depth, 1.7 * expected.depth, rtol=1e-3)


def test_a_batch_is_its_scenes(drawn):
    kind, *_ = drawn
    scene, cameras = scenes.make(kind, lead=(2,)), scenes.cameras(lead=(2,))
    together = api.render(scene, cameras, **SIZE)
    alone = api.render(scene[1], cameras[1], **SIZE)
    for got, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone)):
        np.testing.assert_allclose(got[1], expected, atol=1e-5)


def test_pieces_change_nothing(drawn, monkeypatch):
    _, scene, cameras, expected = drawn
    monkeypatch.setattr(volume_render, "POINTS_PER_PIECE", 42)  # 7 of 60 rays, the last ones padded
    volume_render._draw.clear_cache()
    got = api.render(scene, cameras, background=0.2, **SIZE)
    volume_render._draw.clear_cache()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_gradients_by_finite_differences_in_float64(drawn):
    """Everything that is an array: values, networks, region, samples and cameras."""
    kind, *_ = drawn
    with jax.enable_x64(True):
        dtype, rng = np.float64, np.random.default_rng(2)
        variables = (scenes.make(kind, dtype=dtype), scenes.cameras(views=4, dtype=dtype)[1:2])
        weights = jnp.asarray(rng.normal(size=(1, 4, 5, 5)))

        def loss(variables):
            out = api.render(*variables, background=0.4, **SIZE)
            return jnp.sum(jnp.concatenate([out.rgb, out.alpha, out.depth], -1) * weights)

        loss_and_slope = jax.jit(jax.value_and_grad(loss))
        slopes = jax.tree.leaves(loss_and_slope(variables)[1])
        leaves, structure = jax.tree.flatten(variables)
        for i, (leaf, slope) in enumerate(zip(leaves, slopes)):
            direction = rng.normal(size=leaf.shape)
            if leaf.shape[-2:] == (4, 4):
                direction[..., 3, :] = 0  # the last row of a pose is fixed

            def at(step, i=i, direction=direction):
                moved = [x + step * direction if j == i else x for j, x in enumerate(leaves)]
                return loss_and_slope(jax.tree.unflatten(structure, moved))[0]

            # Small, so that no sample crosses from one cell to the next.
            step = 1e-7
            numeric = (at(step) - at(-step)) / (2 * step)
            np.testing.assert_allclose(numeric, jnp.sum(slope * direction), rtol=1e-4, atol=1e-5)


def _largest(jaxpr):
    """Elements of the largest array that any step of a program computes."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [getattr(v.aval, "size", 0) for v in equation.outvars]
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                sizes.append(_largest(inner))
    return max(sizes)


# Per sample: values or features, for each of three planes, or of two views with nine for the depth.
FLOATS = {"voxels": 5, "triplane": 15, "image_planes": 18}


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_no_array_of_all_samples_of_all_rays_not_even_for_gradients(kind):
    scene, size = scenes.make(kind), 256
    cameras = scenes.cameras(views=2, size=(size, size))

    def loss(scene):
        return jnp.sum(api.render(scene, cameras, height=size, width=size).rgb)

    largest = _largest(jax.make_jaxpr(jax.grad(loss))(scene).jaxpr)
    samples = 2 * size**2 * scene.samples.count
    assert samples > 5 * volume_render.POINTS_PER_PIECE
    assert largest > volume_render.POINTS_PER_PIECE
    assert largest < 1.1 * FLOATS[kind] * volume_render.POINTS_PER_PIECE


def test_a_key_moves_the_samples_within_their_bins():
    scene, cameras = scenes.make("voxels"), scenes.cameras()
    plain, *jittered = (
        api.render(scene, cameras, key=key, **SIZE).rgb
        for key in (None, jax.random.key(0), jax.random.key(0), jax.random.key(1))
    )
    np.testing.assert_array_equal(jittered[0], jittered[1])
    assert 1e-3 < float(jnp.abs(jittered[0] - plain).max()) < 0.5
    assert 1e-3 < float(jnp.abs(jittered[0] - jittered[2]).max()) < 0.5


def test_nothing_beyond_near_and_far_is_drawn():
    scene, cameras = scenes.make("voxels"), scenes.cameras()
    everything = api.render(scene, cameras, **SIZE)
    nothing = api.render(scene, cameras, near=7.0, **SIZE)
    np.testing.assert_array_equal(nothing.alpha, 0.0)
    np.testing.assert_array_equal(nothing.depth, 0.0)
    front = api.render(scene, cameras, far=2.0, **SIZE)
    assert bool((front.alpha < everything.alpha).all())
    assert float(front.depth.max()) < 2.0


def test_depth_may_be_accumulated_or_left_out():
    scene, cameras = scenes.make("voxels"), scenes.cameras()
    expected, total, none = (
        api.render(scene, cameras, depth_mode=mode, **SIZE)
        for mode in ("expected", "accumulated", None)
    )
    np.testing.assert_allclose(total.depth, expected.depth * expected.alpha, rtol=1e-4)
    assert none.depth is None


def test_half_precision_is_drawn_in_float32():
    scene = scenes.make("voxels")
    low = dataclasses.replace(scene, colors=scene.colors.astype(jnp.bfloat16))
    assert api.render(low, scenes.cameras(), **SIZE).rgb.dtype == jnp.float32


def test_a_mesh_of_one_device_gives_the_same():
    scene, cameras = scenes.make("voxels", lead=(2,)), scenes.cameras(lead=(2,))
    expected = api.render(scene, cameras, **SIZE).rgb
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        got = jax.jit(lambda s, c: api.render(s, c, image_axes="data", **SIZE).rgb)(scene, cameras)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_depth_of_nearly_nothing_has_a_bounded_gradient():
    scene = scenes.make("voxels")
    empty = dataclasses.replace(scene, density=jnp.zeros_like(scene.density))
    far = float(scene.samples.far.max())

    def loss(scene):
        return api.render(scene, scenes.cameras(), **SIZE).depth.sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(empty)
    assert float(value) == 0.0
    assert 0 < float(jnp.abs(gradient.density).max()) < 60 * far**2 / 1e-4  # of 60 pixels


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"antialiased": True}, TypeError, "antialiased: not an option of a VoxelGrid"),
        ({"capacity": 9}, TypeError, "capacity"),
        ({"implementation": "xla"}, NotImplementedError, "implementation='xla'"),
        ({"background": jnp.zeros(2)}, ValueError, "background"),
        ({"image_axes": "data"}, ValueError, "set_mesh"),
        ({"depth_mode": "median"}, ValueError, "depth_mode"),
    ],
)
def test_options_of_no_meaning_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        api.render(scenes.make("voxels"), scenes.cameras(), **SIZE, **change)


def test_dimensions_must_be_a_prefix():
    with pytest.raises(ValueError, match="prefix"):
        api.render(scenes.make("voxels", lead=(2,)), scenes.cameras(), **SIZE)
