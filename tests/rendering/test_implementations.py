"""Every implementation of the compositing, on named cases, against the dense definition."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from render_scenes import make_cameras, make_scene

from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import dispatch, tiled

IMPLEMENTATIONS = [name for name in dispatch.IMPLEMENTATIONS if name != "reference"]


# name: (scene, cameras' leading dimensions, (height, width), options)
CASES = {
    "plain": (make_scene(0), (), (16, 16), {}),
    "one_channel_size_not_multiple_of_tile": (make_scene(1, channels=1), (), (13, 22), {}),
    "seven_channels_batch": (make_scene(4, lead=(2,), channels=7), (2, 3), (8, 12), {}),
    "saturated": (make_scene(5, opacity=(0.95, 1.0), scale=0.5), (), (16, 16), {}),
    "tiny": (make_scene(6, scale=1e-4), (), (16, 16), {}),
    "huge": (make_scene(7, scale=5.0), (), (16, 16), {}),
    "some_behind": (make_scene(8, z=(-3.0, 4.0)), (), (16, 16), {}),
    "all_behind": (make_scene(9, z=(-4.0, -2.0)), (), (16, 16), {}),
    "transparent": (make_scene(10, opacity=(0.0, 0.004)), (), (16, 16), {}),
    # What these change comes before or after the compositing.
    "antialiased_accumulated_depth": (
        make_scene(11, scale=0.03),
        (),
        (16, 16),
        {"antialiased": True, "depth_mode": "accumulated"},
    ),
    "orthographic_near_far": (
        make_scene(12),
        (),
        (16, 16),
        {"camera_model": "orthographic", "near": 3.0, "far": 4.0},
    ),
}


@functools.partial(jax.jit, static_argnames=("size", "implementation", "options"))
def _gradients(scene, cameras, background, weights, *, size, implementation, options):
    def loss(scene, cameras, background):
        out = render(
            scene,
            cameras,
            height=size[0],
            width=size[1],
            background=background,
            implementation=implementation,
            **dict(options),
        )
        images = (out.rgb, out.alpha, out.depth)
        return sum(jnp.sum(i * w) for i, w in zip(images, weights)), (images, out.aux)

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(scene, cameras, background)


@functools.cache
def _run(name, implementation):
    """Cases of equal shapes and options share one compilation."""
    scene, lead, size, options = CASES[name]
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(*lead, *size, c)) for c in (scene.num_channels, 1, 1)]
    return _gradients(
        scene,
        make_cameras(*size, lead),
        jnp.linspace(0.1, 0.9, scene.num_channels),
        weights,
        size=size,
        implementation=implementation,
        options=tuple(options.items()),
    )


@pytest.mark.parametrize(
    ("implementation", "name"),
    [
        (implementation, name)
        for implementation in IMPLEMENTATIONS
        for name in CASES
        # Kernels are slow to interpret.
        if implementation == "xla" or not CASES[name][-1]
    ],
)
def test_agrees_with_the_reference(implementation, name):
    gradients, (images, aux) = _run(name, implementation)
    expected_gradients, (expected_images, _) = _run(name, "reference")
    for got, want in zip(images, expected_images):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    for got, want in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients)):
        assert np.isfinite(got).all()
        # Float32 sums over up to 256 pixels and 60 splats, in different order.
        scale = max(np.linalg.norm(want), 1e-6)
        assert np.linalg.norm(got - want) / scale < 3e-5
    assert (np.asarray(aux["overflow"]) == 0).all()
    assert aux["required"].shape == images[0].shape[:-3]


def test_cases_draw_something():
    """The cases above would agree on empty images too; only these two may be empty."""
    for name in CASES:
        _, ((_, alpha, _), _) = _run(name, "reference")
        assert (np.asarray(alpha).max() > 0.01) == (name not in ("all_behind", "transparent")), name
    _, ((_, alpha, _), _) = _run("saturated", "reference")
    assert np.mean(alpha > 0.999) > 0.5


@pytest.mark.parametrize("implementation", dispatch.IMPLEMENTATIONS)
def test_no_gaussians_show_the_background(implementation):
    scene = jax.tree.map(lambda a: a[:0], make_scene(0))
    cameras = make_cameras(8, 8)

    def loss(scene, background):
        options = {"background": background, "implementation": implementation}
        out = render(scene, cameras, height=8, width=8, **options)
        return jnp.sum(out.rgb), out

    gradients, out = jax.grad(loss, argnums=(0, 1), has_aux=True)(scene, jnp.full(3, 0.3))
    np.testing.assert_array_equal(out.rgb, np.full((8, 8, 3), 0.3, np.float32))
    np.testing.assert_array_equal(out.alpha, 0)
    np.testing.assert_array_equal(out.depth, 0)
    assert (int(out.aux["required"]), int(out.aux["overflow"])) == (0, 0)
    assert gradients[0].means.shape == (0, 3)
    np.testing.assert_array_equal(gradients[1], np.full(3, 64.0, np.float32))


@pytest.mark.parametrize("implementation", dispatch.IMPLEMENTATIONS)
def test_no_images_are_drawn_without_a_fault(implementation):
    scene, cameras = make_scene(0, lead=(0,)), make_cameras(8, 8, (0,))
    out = render(scene, cameras, height=8, width=8, implementation=implementation)
    assert out.rgb.shape == (0, 8, 8, 3)
    assert out.aux["overflow"].shape == (0,)


def test_tile_size_does_not_change_the_image():
    scene, cameras = make_scene(20, num=300, scale=0.05), make_cameras(29, 37)

    def run(tile_size):
        def loss(scene):
            out = render(scene, cameras, height=29, width=37, tile_size=tile_size)
            return jnp.sum(jnp.sin(out.rgb)) + jnp.sum(out.depth), out

        return jax.jit(jax.grad(loss, has_aux=True))(scene)

    gradient, out = run(4)
    other_gradient, other = run(7)
    np.testing.assert_allclose(other.rgb, out.rgb, atol=2e-6)
    for got, want in zip(jax.tree.leaves(other_gradient), jax.tree.leaves(gradient)):
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    ("implementation", "tile", "size"),
    [("xla", 4, (16, 16)), ("pallas_gpu", 4, (16, 16)), ("pallas_tpu", 16, (48, 64))],
)
def test_capacity_cuts_the_farthest_and_counts_them(implementation, tile, size):
    scene, cameras = make_scene(21, num=200), make_cameras(*size)

    @functools.partial(jax.jit, static_argnames="capacity")
    def run(scene, capacity=None):
        options = {"depth_mode": None, "tile_size": tile, "implementation": implementation}
        return render(scene, cameras, height=size[0], width=size[1], capacity=capacity, **options)

    full = run(scene)
    required = int(full.aux["required"])
    assert required > 400
    half = run(scene, capacity=required // 2)
    assert int(half.aux["overflow"]) == required - required // 2
    assert int(half.aux["required"]) == required
    # Without the farther half of the splats the capacity is what they need: the same image.
    points = jnp.append(scene.means, jnp.ones((200, 1)), axis=-1)
    z = np.asarray(points @ cameras.cam_from_world[2])
    is_near = z <= np.median(z)
    near = dataclasses.replace(scene, opacities=jnp.where(is_near, scene.opacities, 0.0))
    kept = run(near)
    cut = run(scene, capacity=int(kept.aux["required"]))
    assert int(cut.aux["overflow"]) > 0
    np.testing.assert_allclose(cut.rgb, kept.rgb, atol=1e-6)
    assert np.abs(cut.rgb - full.rgb).max() > 1e-3


@pytest.mark.parametrize(
    ("implementation", "tile", "size"),
    [("pallas_gpu", 4, (16, 16)), ("pallas_tpu", 16, (32, 48))],
)
def test_gradient_of_what_a_capacity_leaves(implementation, tile, size, monkeypatch):
    """In several segments, the last of which the capacity cuts."""
    monkeypatch.setattr(tiled, "_SEGMENT_MULTIPLE", 128)
    scene, cameras = make_scene(29, num=200, opacity=(0.02, 0.1), scale=0.4), make_cameras(*size)

    @functools.partial(jax.jit, static_argnames="implementation")
    def run(scene, implementation):
        def loss(scene):
            sizes = {"tile_size": tile, "capacity": 400, "slots_per_splat": 1}
            options = {"implementation": implementation, "height": size[0], "width": size[1]}
            out = render(scene, cameras, **options, **sizes)
            return jnp.sum(jnp.sin(out.rgb)) + jnp.sum(out.depth), out

        return jax.grad(loss, has_aux=True)(scene)

    gradient, out = run(scene, implementation)
    expected_gradient, expected = run(scene, "xla")
    assert out.aux["overflow"] == expected.aux["overflow"] > 100
    np.testing.assert_allclose(out.rgb, expected.rgb, atol=1e-5)
    for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient)):
        # As above: float32 sums, in different order.
        assert np.linalg.norm(got - want) < 3e-5 * np.linalg.norm(want)


def test_the_reference_has_nothing_to_cut_and_says_so():
    with pytest.raises(NotImplementedError, match="no tiles: capacity=10"):
        render(
            make_scene(21, num=4),
            make_cameras(8, 8),
            height=8,
            width=8,
            capacity=10,
            implementation="reference",
        )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_capacity_counts_each_image_by_itself(implementation):
    scene, cameras = make_scene(22, lead=(2,), num=60), make_cameras(8, 8, (2,))
    scene = dataclasses.replace(scene, opacities=scene.opacities * jnp.array([[1.0], [0.0]]))
    options = {"capacity": 10, "implementation": implementation}
    out = jax.jit(lambda s: render(s, cameras, height=8, width=8, **options))(scene)
    required = np.asarray(out.aux["required"])
    assert required[0] > 10
    assert required[1] == 0
    np.testing.assert_array_equal(out.aux["overflow"], np.maximum(required - 10, 0))


def test_images_drawn_together_equal_images_drawn_alone():
    scene, cameras = make_scene(23, lead=(3,), num=50), make_cameras(10, 14, (3, 2), seed=4)
    draw = jax.jit(lambda s, c: render(s, c, height=10, width=14))
    together = draw(scene, cameras)
    for b in range(3):
        for v in range(2):
            alone = draw(scene[b], cameras[b, v])
            np.testing.assert_allclose(together.rgb[b, v], alone.rgb, atol=1e-6)
            np.testing.assert_allclose(together.depth[b, v], alone.depth, atol=1e-5)
            assert int(together.aux["required"][b, v]) == int(alone.aux["required"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_many_segments(implementation, monkeypatch):
    """More entries than the segments hold whose lists are kept for the gradient.

    Most splats touch all tiles, 12 for the GPU, so that a segment ends within the run of one.
    """
    num, size, segment, kept = 1000, {"height": 24, "width": 32}, 1024, 1
    monkeypatch.setattr(tiled, "_KEPT_ENTRIES", 1)
    monkeypatch.setattr(tiled, "_SEGMENT_MULTIPLE", 512)
    scene = make_scene(24, num=num, scale=3.0, opacity=(0.008, 0.012))
    cameras = make_cameras(**size)

    @functools.partial(jax.jit, static_argnames="implementation")
    def run(scene, implementation):
        slots = None if implementation == "reference" else 1

        def loss(scene):
            options = {"implementation": implementation, "slots_per_splat": slots}
            out = render(scene, cameras, **size, **options)
            return jnp.sum(jnp.sin(out.rgb)) + jnp.sum(out.depth), out

        return jax.grad(loss, has_aux=True)(scene)

    gradient, out = run(scene, implementation)
    assert int(out.aux["required"]) > (kept + 1) * segment
    assert float(out.alpha.min()) < 0.999  # not all pixels have stopped before
    expected_gradient, expected = run(scene, "reference")
    np.testing.assert_allclose(out.rgb, expected.rgb, atol=1e-5)
    for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient)):
        # As above: float32 sums, in different order.
        assert np.linalg.norm(got - want) < 3e-5 * np.linalg.norm(want)


@pytest.mark.parametrize(
    ("implementation", "message"),
    [("pallas_gpu", "power of two"), ("pallas_tpu", "16x16 or 32x32")],
)
def test_kernels_refuse_other_tiles(implementation, message):
    scene, cameras = make_scene(26, num=4), make_cameras(8, 8)
    with pytest.raises(NotImplementedError, match=message):
        render(scene, cameras, height=8, width=8, tile_size=6, implementation=implementation)


@pytest.mark.parametrize("implementation", ["pallas_gpu", "pallas_tpu"])
def test_kernels_that_have_not_run_on_their_device_are_taken_by_name_only(
    implementation, monkeypatch
):
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, implementation, None)  # would fail if called
    scene, cameras = make_scene(27, num=4), make_cameras(8, 8)
    assert render(scene, cameras, height=8, width=8).rgb.shape == (8, 8, 3)
