"""The public function: arguments, dispatch, dimensions, transformations of JAX."""

import dataclasses
import functools
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lgs_jax.core.cameras import Cameras, look_at
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering import api
from lgs_jax.rendering.api import Rendering, render


def _scene(num=20, dtype=np.float32, lead=()):
    rng = np.random.default_rng(0)
    z = rng.uniform(2, 4, (*lead, num, 1))
    arrays = (
        np.concatenate([rng.uniform(-0.5, 0.5, (*lead, num, 2)) * z, z], -1),
        rng.normal(size=(*lead, num, 4)),
        rng.uniform(0.1, 0.3, (*lead, num, 3)),
        rng.uniform(0.2, 0.8, (*lead, num)),
        rng.uniform(size=(*lead, num, 3)),
    )
    return Gaussians(*(jnp.asarray(a, dtype) for a in arrays))


def _cameras(size=8, dtype=np.float32):
    return Cameras(jnp.eye(4, dtype=dtype), jnp.array([size, size, size / 2, size / 2], dtype))


def test_a_single_splat_by_hand():
    """One isotropic splat on the axis; alpha follows from the blurred projected variance."""
    opacity, sigma, depth, size = 0.7, 0.2, 2.0, 8
    scene = Gaussians(
        jnp.array([[0.0, 0.0, depth]]),
        jnp.array([[2.0, 0.0, 0.0, 0.0]]),
        jnp.full((1, 3), sigma),
        jnp.array([opacity]),
        jnp.array([[0.25, 0.5, 1.0]]),
    )
    out = render(scene, _cameras(size), height=size, width=size, background=0.1)
    variance = (size * sigma / depth) ** 2 + 0.3
    offset = np.arange(size) + 0.5 - size / 2
    alpha = opacity * np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * variance))
    alpha = np.where(alpha < 1 / 255, 0, alpha)
    np.testing.assert_allclose(out.alpha[..., 0], alpha, atol=1e-6)
    color = np.array([0.25, 0.5, 1.0])
    expected = alpha[..., None] * color + (1 - alpha[..., None]) * 0.1
    np.testing.assert_allclose(out.rgb, expected, atol=1e-6)
    np.testing.assert_allclose(out.depth[..., 0], np.where(alpha > 0, depth, 0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_background_shapes(shape):
    scene, cameras = _scene(lead=(2,)), jax.tree.map(lambda a: jnp.stack([a, a]), _cameras())
    background = jnp.asarray(np.random.default_rng(1).uniform(size=shape), jnp.float32)
    black = render(scene, cameras, height=8, width=8)
    out = render(scene, cameras, height=8, width=8, background=background)
    per_image = jnp.broadcast_to(background, (2, 3))[:, None, None]
    np.testing.assert_allclose(out.rgb, black.rgb + (1 - black.alpha) * per_image, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "height=0"),
        ({"width": 8.0}, "width=8.0"),
        ({"height": True}, "height=True"),
        ({"near": 0.0}, "near"),
        ({"near": 2.0, "far": 1.0}, "far"),
        ({"depth_mode": "median"}, "depth_mode"),
        ({"background": jnp.zeros(2)}, r"background has shape \(2,\), .* of shape \(3,\)$"),
        ({"background": None}, "background=None"),
        ({"background": "white"}, "background='white'"),
        ({"antialiased": "no"}, "antialiased='no'"),
        ({"camera_model": "fisheye"}, "camera_model"),
        ({"eps2d": 0.0}, "eps2d"),
        ({"eps2d": -1.0}, "eps2d"),
        ({"eps2d": float("nan")}, "eps2d"),
        ({"capacity": 0}, "capacity"),
        ({"capacity": 2.5}, "capacity=2.5"),
        ({"tile_size": -4}, "tile_size"),
        ({"tile_size": "8"}, "tile_size='8'"),
        ({"slots_per_splat": 0}, "slots_per_splat"),
        ({"implementation": "cuda"}, "reference"),
        ({"image_axes": "data"}, "set_mesh"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        render(_scene(), _cameras(), **{"height": 8, "width": 8, **change})


def test_sizes_may_be_integers_of_numpy():
    eight = np.int64(8)
    out = render(_scene(), _cameras(), height=eight, width=eight, tile_size=np.int32(4))
    np.testing.assert_array_equal(out.rgb, render(_scene(), _cameras(), height=8, width=8).rgb)


@pytest.mark.parametrize(
    ("image_axes", "message"),
    [
        ("modle", "image_axes='modle' names 'modle', but the axes .* are data, view"),
        ("data", r"image_axes='data' splits cameras \(3, 4\) over 2 devices, .* divide 3"),
        (PartitionSpec(None, ("data", "view")), r"over 6 devices, which do not divide 4"),
    ],
)
def test_axes_that_do_not_split_the_cameras_are_named(image_axes, message):
    cameras = jax.tree.map(lambda a: jnp.broadcast_to(a, (3, 4, *a.shape)), _cameras())
    mesh = jax.sharding.AbstractMesh((2, 3), ("data", "view"))
    with (
        jax.sharding.use_abstract_mesh(mesh),
        pytest.raises(ValueError, match=message),
    ):
        render(_scene(), cameras, height=8, width=8, image_axes=image_axes)


def test_dimensions_must_be_a_prefix():
    with pytest.raises(ValueError, match="prefix"):
        render(_scene(lead=(2,)), _cameras(), height=8, width=8)


def test_what_is_no_cameras_and_no_splats():
    scene, cameras = _scene(), _cameras()
    with pytest.raises(TypeError, match=r"cameras must be lgs_jax\.Cameras, got dict"):
        render(scene, {"world_from_cam": jnp.eye(4)}, height=8, width=8)
    lists = dataclasses.replace(cameras, intrinsics=np.asarray(cameras.intrinsics).tolist())
    with pytest.raises(ValueError, match=r"Cameras\.intrinsics must be an array .*, got list"):
        render(scene, lists, height=8, width=8)
    bytes_ = dataclasses.replace(scene, colors=jnp.zeros(scene.colors.shape, jnp.uint8))
    with pytest.raises(ValueError, match=r"Gaussians\.colors must be floating-point numbers"):
        render(bytes_, cameras, height=8, width=8)


def test_unknown_option_and_unknown_scene():
    with pytest.raises(TypeError, match="antialiassed"):
        render(_scene(), _cameras(), height=8, width=8, antialiassed=True)
    with pytest.raises(TypeError, match="Gaussians"):
        render({"means": 0}, _cameras(), height=8, width=8)


def test_a_named_implementation_does_not_fall_back():
    with pytest.raises(NotImplementedError, match="no tiles"):
        render(_scene(), _cameras(), height=8, width=8, implementation="reference", capacity=9)


def test_other_scene_types_can_be_registered():
    class Fog:
        pass

    def draw(scene, cameras, *, height, width, background, **options):
        image = jnp.full((height, width, 1), background)
        return Rendering(image, image, None, {"near": options["near"]})

    api.register_renderer(Fog, draw)
    out = render(Fog(), _cameras(), height=2, width=3, background=0.5)
    np.testing.assert_array_equal(out.rgb, np.full((2, 3, 1), 0.5))
    assert out.aux["near"] == 0.01


def _map(linear, last_row=(0.0, 0.0, 0.0, 1.0)):
    b_from_a = np.eye(4, dtype=np.float32)
    b_from_a[:3, :3], b_from_a[3] = linear, last_row
    return b_from_a


@pytest.mark.parametrize(
    ("b_from_a", "message"),
    [
        (_map(np.diag([1, 1, -1])), r"b_from_a mirrors .*determinant -1; negate one more axis"),
        (_map(np.diag([1, 1, 0])), r"flattens \(determinant 0"),
        (_map(np.diag([1, 1, 1.1])), r"b_from_a stretches .*; expected a rotation, one positive"),
        (_map(np.eye(3) + np.eye(3, k=1) / 50), "stretches or shears"),
        (
            _map(np.eye(3), (0, 0, 2, 1)),
            r"the last row \[0.0, 0.0, 2.0, 1.0\] instead of 0, 0, 0, 1",
        ),
        (_map(np.diag([1, np.nan, 1])), "b_from_a holds NaN or infinity"),
        (np.eye(3), r"b_from_a has shape \(3, 3\), expected \[..., 4, 4\]"),
    ],
)
def test_maps_that_no_scene_can_follow_are_refused(b_from_a, message):
    for given in (b_from_a, jnp.asarray(b_from_a)):
        with pytest.raises(ValueError, match=message):
            api.transform(_scene(), given)
    both = np.stack([np.eye(4), b_from_a]) if b_from_a.shape == (4, 4) else b_from_a
    with pytest.raises(ValueError, match=message):
        api.transform(_scene(lead=(2,)), both)


def test_a_scene_is_moved_by_what_is_traced_too():
    turn = np.array([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    b_from_a = jnp.asarray(_map(turn + 1e-3 * np.eye(3)))  # as far off as a pose may be
    scene, close = _scene(), functools.partial(np.testing.assert_allclose, atol=1e-6)
    expected = api.transform(scene, b_from_a)
    close(expected.means, np.asarray(scene.means) @ np.asarray(b_from_a)[:3, :3].T)
    for moved in (api.transform, lambda x, _: api.transform(x, b_from_a)):
        jax.tree.map(close, jax.jit(moved)(scene, b_from_a), expected)
    slope = jax.grad(lambda b_from_a: api.transform(scene, b_from_a).means.sum())(b_from_a)
    np.testing.assert_allclose(slope[0, :3], scene.means.sum(0), rtol=1e-5)


def test_depth_can_be_left_out():
    out = render(_scene(), _cameras(), height=8, width=8, depth_mode=None)
    assert out.depth is None
    np.testing.assert_array_equal(out.rgb, render(_scene(), _cameras(), height=8, width=8).rgb)


def test_half_precision_is_drawn_in_float32():
    scene = jax.tree.map(lambda a: a.astype(jnp.bfloat16), _scene())
    exact = jax.tree.map(lambda a: a.astype(jnp.float32), scene)
    out = render(scene, _cameras(), height=8, width=8)
    np.testing.assert_array_equal(out.rgb, render(exact, _cameras(), height=8, width=8).rgb)


def test_cameras_of_half_precision_are_computed_with_in_float32():
    poses = look_at(jnp.array([0.3, 0.2, 0.1]), jnp.array([0.0, 0.1, 4.0]), jnp.array([0, -1.0, 0]))
    cameras = dataclasses.replace(_cameras(), world_from_cam=poses)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), cameras)
    exact = jax.tree.map(lambda a: a.astype(jnp.float32), half)
    out = render(_scene(), half, height=8, width=8)
    np.testing.assert_array_equal(out.rgb, render(_scene(), exact, height=8, width=8).rgb)


def test_float32_stays_float32_where_float64_is_on():
    scene, cameras = _scene(lead=(1,)), jax.tree.map(lambda a: a[None], _cameras())

    def loss(scene):
        out = render(scene, cameras, height=8, width=8, implementation="xla")
        return jnp.sum(out.rgb), out

    want, out = jax.jit(jax.grad(loss, has_aux=True))(scene)
    with jax.enable_x64(True):
        got, wide = jax.jit(jax.grad(loss, has_aux=True))(scene)
        assert wide.rgb.dtype == wide.alpha.dtype == wide.depth.dtype == jnp.float32
        np.testing.assert_allclose(wide.rgb, out.rgb, atol=1e-6)
        np.testing.assert_allclose(got.means, want.means, atol=1e-4)


def test_vmap_equals_batch():
    scene, cameras = _scene(lead=(3,)), jax.tree.map(lambda a: jnp.stack([a] * 3), _cameras())
    mapped = jax.vmap(lambda s, c: render(s, c, height=8, width=8).rgb)(scene, cameras)
    np.testing.assert_allclose(mapped, render(scene, cameras, height=8, width=8).rgb, atol=1e-6)


def test_gradients_by_finite_differences_in_float64():
    """Cameras as well as splats; float64 goes to the reference by itself."""
    with jax.enable_x64(True):
        scene, cameras = _scene(4, np.float64), _cameras(dtype=np.float64)
        rng = np.random.default_rng(2)
        weights = jnp.asarray(rng.normal(size=(8, 8, 5)))

        def loss(variables):
            out = render(*variables, height=8, width=8, background=0.4)
            return jnp.sum(jnp.concatenate([out.rgb, out.alpha, out.depth], -1) * weights)

        loss = jax.jit(loss)
        variables = (scene, cameras)
        gradient = jax.jit(jax.grad(loss))(variables)
        leaves, structure = jax.tree.flatten(variables)
        for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient))):
            direction = rng.normal(size=leaf.shape)
            if leaf.shape == (4, 4):
                direction[3] = 0  # the last row of a pose is fixed

            def at(step, i=i, direction=direction):
                moved = [x + step * direction if j == i else x for j, x in enumerate(leaves)]
                return loss(jax.tree.unflatten(structure, moved))

            # Small, so that no pixel crosses the threshold of alpha.
            step = 1e-7
            numeric = (at(step) - at(-step)) / (2 * step)
            np.testing.assert_allclose(numeric, jnp.sum(slope * direction), rtol=1e-4, atol=1e-5)


SHARDED = textwrap.dedent(
    """
    import jax, jax.numpy as jnp, numpy as np, sys
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    sys.path.insert(0, {folder!r})
    from test_api import _cameras, _scene
    from lgs_jax.rendering.api import render
    from lgs_jax.rendering.volume.integrate import Samples
    from lgs_jax.rendering.volume.region import Region
    from lgs_jax.rendering.volume.voxels import VoxelGrid

    assert jax.device_count() == 2
    scene = _scene(lead=(4,))
    cameras = jax.tree.map(lambda a: jnp.broadcast_to(a, (4, 2, *a.shape)), _cameras())

    def grad(scene, cameras, axes):
        def loss(scene):
            out = render(scene, cameras, height=8, width=8, image_axes=axes)
            return jnp.sum(out.rgb ** 2) + jnp.sum(out.depth), out.rgb
        return jax.grad(loss, has_aux=True)(scene)

    grad = jax.jit(grad, static_argnums=2)
    expected = grad(scene, cameras, None)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        for axes in (None, "data"):
            got = grad(*jax.device_put((scene, cameras), split), axes)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected)):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        assert got[1].sharding.is_equivalent_to(split, got[1].ndim), got[1].sharding

    # Drawn by a `jax.shard_map` that checks what varies; all devices have the same scene.
    every = jax.tree.map(lambda a: a[:, 0], cameras)

    def total(scene, cameras, implementation):
        out = render(scene, cameras, height=8, width=8, implementation=implementation)
        return jnp.sum(out.rgb ** 2)

    def split_total(implementation):
        return jax.shard_map(
            lambda s, c: jax.lax.psum(total(s, c, implementation), "data"),
            mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("data")), out_specs=PartitionSpec(),
        )

    move = jnp.zeros((4, 4)).at[0, 3].set(0.3) * jnp.arange(4.0)[:, None, None]
    every = type(every)(every.world_from_cam + move, every.intrinsics)
    expected = jax.jit(jax.grad(total), static_argnums=2)(scene[0], every, "xla")
    for name in ("xla", "reference"):
        got = jax.jit(jax.grad(split_total(name)))(scene[0], every)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    # A fog that looks the same everywhere differs only by where its samples lie.
    fog = VoxelGrid(
        density=jnp.linspace(0.1, 2.0, 8).reshape(1, 2, 2, 2).repeat(2, 0),
        colors=jnp.linspace(0.0, 1.0, 24).reshape(1, 2, 2, 2, 3).repeat(2, 0),
        region=Region(jnp.eye(4)[None].repeat(2, 0)),
        samples=Samples(jnp.full(2, 0.5), jnp.full(2, 9.0), 4),
    )
    cameras = jax.tree.map(lambda a: jnp.broadcast_to(a, (2, *a.shape)), _cameras())
    with jax.set_mesh(mesh):
        first, second = render(
            *jax.device_put((fog, cameras), split),
            height=8, width=8, key=jax.random.key(0), image_axes="data",
        ).rgb
    assert float(jnp.abs(first - second).max()) > 1e-3, "the devices drew the same places"
    print("equal")
    """
)


def test_sharded_jit_gives_the_same(tmp_path):
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED.format(folder=os.path.dirname(__file__)))  # noqa: PTH120
    flag = "--xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
