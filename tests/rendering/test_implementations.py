"""Every implementation of the compositing, on named cases, against the dense definition."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import dispatch, pallas_gpu, pallas_tpu, projection, tiled

IMPLEMENTATIONS = [name for name in dispatch.IMPLEMENTATIONS if name != "reference"]


def make_scene(seed, *, lead=(), num=60, channels=3, scale=0.15, opacity=(0.1, 0.9), z=(2.0, 5.0)):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(*z, (*lead, num, 1))
    means = np.concatenate([rng.uniform(-0.6, 0.6, (*lead, num, 2)) * np.abs(depth), depth], -1)
    arrays = (
        means,
        rng.normal(size=(*lead, num, 4)),
        scale * np.exp(0.5 * rng.normal(size=(*lead, num, 3))),
        rng.uniform(*opacity, (*lead, num)),
        rng.uniform(size=(*lead, num, channels)),
    )
    return Gaussians(*(jnp.asarray(a, jnp.float32) for a in arrays))


def make_cameras(height, width, lead=(), seed=0):
    rng = np.random.default_rng(seed)
    center = jnp.asarray(0.2 * rng.normal(size=(*lead, 3)), jnp.float32)
    pose = camera_lib.look_at(center, jnp.array([0.0, 0.1, 4.0]), jnp.array([0.0, -1.0, 0.0]))
    focal = 0.9 * width
    k = jnp.array([focal, 1.1 * focal, 0.48 * width, 0.53 * height])
    return Cameras(pose, jnp.broadcast_to(k, (*lead, 4)))


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


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_no_gaussians_show_the_background(implementation):
    scene = jax.tree.map(lambda a: a[:0], make_scene(0))
    cameras = make_cameras(8, 8)
    out = render(scene, cameras, height=8, width=8, background=0.3, implementation=implementation)
    np.testing.assert_array_equal(out.rgb, np.full((8, 8, 3), 0.3, np.float32))
    np.testing.assert_array_equal(out.alpha, 0)
    np.testing.assert_array_equal(out.depth, 0)


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


@pytest.mark.parametrize("implementation", ["xla", "pallas_gpu"])  # with tiles of 4 x 4
def test_capacity_cuts_the_farthest_and_counts_them(implementation):
    scene, cameras = make_scene(21, num=200), make_cameras(16, 16)

    @functools.partial(jax.jit, static_argnames="capacity")
    def run(scene, capacity=None):
        options = {"depth_mode": None, "tile_size": 4, "implementation": implementation}
        return render(scene, cameras, height=16, width=16, capacity=capacity, **options)

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


def test_capacity_counts_each_image_by_itself():
    scene, cameras = make_scene(22, lead=(2,), num=60), make_cameras(8, 8, (2,))
    scene = dataclasses.replace(scene, opacities=scene.opacities * jnp.array([[1.0], [0.0]]))
    out = render(scene, cameras, height=8, width=8, capacity=10)
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
    """More entries than the segments hold whose lists are kept for the gradient."""
    num, side = 1000, 32
    segment, kept = 16384 if implementation == "xla" else 1024, 1
    monkeypatch.setattr(tiled, "_KEPT_ENTRIES", 1)
    monkeypatch.setattr(tiled, "_SEGMENT_MULTIPLE", 512)
    for kernels in (pallas_gpu, pallas_tpu):
        monkeypatch.setattr(kernels, "_ENTRIES", 1)
    scene = make_scene(24, num=num, scale=3.0, opacity=(0.008, 0.012))
    cameras = make_cameras(side, side)

    @functools.partial(jax.jit, static_argnames="implementation")
    def run(scene, implementation):
        def loss(scene):
            out = render(scene, cameras, height=side, width=side, implementation=implementation)
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
    ("implementation", "platform", "call"),
    [
        ("pallas_gpu", "cuda", "__gpu$xla.gpu.triton"),
        ("pallas_tpu", "tpu", "tpu_custom_call"),
    ],
)
def test_kernels_lower_for_their_platform(implementation, platform, call):
    """The forward and the gradient kernel, on a machine without an accelerator."""
    scene, cameras = make_scene(25, num=100), make_cameras(32, 32)

    def loss(scene):
        options = {"height": 32, "width": 32, "implementation": implementation}
        return jnp.sum(render(scene, cameras, **options).rgb)

    # From JAX 0.11 on, Triton wants to know for which device.
    device = jax.sharding.AbstractDevice(
        device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu"
    )
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh) if platform == "cuda" else contextlib.nullcontext():
        lowered = jax.jit(jax.grad(loss)).trace(scene).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count(call) >= 2


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


class TestChoice:
    """Which implementation draws, where the caller names none."""

    @pytest.fixture(autouse=True)
    def _anew(self):
        dispatch._say.cache_clear()

    def draw(self, **options):
        arguments = (None, *composite_arguments())
        return dispatch.composite(*arguments, height=8, width=8, near=0.1, far=10.0, **options)

    def test_is_logged_once(self, caplog):
        with caplog.at_level("INFO", logger="absl"):
            self.draw()
            self.draw()
        (line,) = [record.getMessage() for record in caplog.records]
        assert line == "splats are drawn by the implementation 'xla' on cpu"

    def test_falls_back_only_where_one_declines(self, monkeypatch, caplog):
        def decline(*_, **__):
            raise NotImplementedError("not today")

        monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "xla", decline)
        with caplog.at_level("INFO", logger="absl"):
            self.draw()
        assert "'reference' on cpu (xla: not today)" in caplog.text

        def fail(*_, **__):
            raise RuntimeError("a real fault")

        monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "xla", fail)
        with pytest.raises(RuntimeError, match="a real fault"):
            self.draw()

    def test_of_the_environment_is_honoured(self, monkeypatch):
        called = []
        monkeypatch.setitem(
            dispatch.IMPLEMENTATIONS, "pallas_tpu", lambda *_, **__: called.append(1)
        )
        monkeypatch.setenv(dispatch.ENVIRONMENT, "pallas_tpu")
        self.draw()
        assert called
        monkeypatch.setenv(dispatch.ENVIRONMENT, "cuda")
        with pytest.raises(ValueError, match="LGS_JAX_RASTERIZER='cuda' must be one of"):
            self.draw()


def composite_arguments():
    """Splats, opacities and features of one image of 8 x 8 pixels."""
    splats = projection.project(
        make_scene(28, num=4)[None], make_cameras(8, 8)[None], height=8, width=8, near=0.1, far=10.0
    )
    return splats, jnp.full((1, 4), 0.5), jnp.ones((1, 4, 3))
