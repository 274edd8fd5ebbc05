"""Per-scene optimisation on a textured wall, whose images and depths are known exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax import settings as settings_lib
from lgs_jax.core import rays
from lgs_jax.core.cameras import Cameras
from lgs_jax.metrics import image
from lgs_jax.rendering.api import render
from lgs_jax.tasks import make_task, panels, plane_sweep, scene_visuals, splat_fit, views
from lgs_jax.tasks.view_metrics import MetricSettings

SIZE, DEPTH = 16, 4.0
SETTINGS = splat_fit.FitSettings(stride=2, near=1.0, far=20.0, num_planes=48)


def wall(offsets: list[float], tilt: float = 0.3) -> tuple[np.ndarray, Cameras, np.ndarray]:
    """Images [V, H, W, 3], cameras and z-depths of the plane z = DEPTH + tilt * x."""
    poses = np.tile(np.eye(4), (len(offsets), 1, 1))
    poses[:, 0, 3] = offsets
    cameras = Cameras(
        jnp.asarray(poses, jnp.float32),
        jnp.tile(jnp.array([SIZE, SIZE, SIZE / 2, SIZE / 2], jnp.float32), (len(offsets), 1)),
    )
    origins, directions = (np.asarray(x) for x in rays.pixel_rays(cameras, SIZE, SIZE))
    depth = (DEPTH + tilt * origins[..., 0]) / (directions[..., 2] - tilt * directions[..., 0])
    x, y, _ = np.moveaxis(origins + depth[..., None] * directions, -1, 0)
    waves = (2.1 * x + 0.4 * y, 1.7 * y - 0.9 * x, 1.3 * x + 2.3 * y)
    colors = [0.5 + 0.4 * np.sin(wave + shift) for shift, wave in enumerate(waves)]
    return np.stack(colors, axis=-1).astype(np.float32), cameras, depth


CONTEXT = [-1.0, 0.0, 1.0]
TARGET = [-0.5, 0.5]


def test_plane_sweep_finds_the_wall():
    images, cameras, depth = wall(CONTEXT)
    planes = jnp.linspace(1 / 20, 1, 48)
    found = jax.jit(plane_sweep.disparities)(jnp.asarray(images), cameras, planes)
    # Half a plane at the median; a wrong plane for a few pixels that no other view sees is normal.
    assert np.median(np.abs(np.asarray(found) - 1 / depth)) < 0.5 * float(planes[1] - planes[0])


def test_plane_sweep_needs_two_views():
    images, cameras, _ = wall([0.0])
    with pytest.raises(ValueError, match="only one"):
        plane_sweep.disparities(jnp.asarray(images), cameras, jnp.linspace(0.1, 1, 8))


def test_box_mean_matches_a_naive_loop():
    values = np.random.default_rng(0).normal(size=(2, 7, 9)).astype(np.float32)
    expected = np.empty_like(values)
    for i, j in np.ndindex(7, 9):
        window = values[:, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
        expected[:, i, j] = window.mean(axis=(1, 2))
    np.testing.assert_allclose(plane_sweep._box_mean(jnp.asarray(values), 2), expected, atol=1e-5)


def test_splats_start_on_their_rays_with_the_colours_of_their_pixels():
    images, cameras, _ = wall(CONTEXT)
    settings = dataclasses.replace(SETTINGS, start="random")
    params = splat_fit.start(jnp.asarray(images), cameras, jax.random.key(0), settings)
    scene = splat_fit.splats(params, jnp.asarray(images), cameras, settings).check()
    assert scene.num_gaussians == 3 * 8 * 8
    blocks = images.reshape(3, 8, 2, 8, 2, 3).mean(axis=(2, 4)).reshape(-1, 3)
    np.testing.assert_allclose(scene.colors, blocks, atol=1e-6)
    np.testing.assert_allclose(scene.opacities, settings.first_opacity, atol=1e-6)
    local = np.asarray(scene.means).reshape(3, 8, 8, 3) - np.asarray(cameras.centers)[:, None, None]
    depth = local[..., 2]
    assert depth.min() >= 0.99 * settings.near
    assert depth.max() <= 1.01 * settings.far
    pixels = SIZE * local[..., :2] / depth[..., None] + SIZE / 2  # middles of 2 x 2 blocks
    rows, columns = np.mgrid[:8, :8] * 2.0 + 1.0
    np.testing.assert_allclose(pixels[..., 0], np.broadcast_to(columns, (3, 8, 8)), atol=1e-4)
    np.testing.assert_allclose(pixels[..., 1], np.broadcast_to(rows, (3, 8, 8)), atol=1e-4)
    footprints = depth.reshape(-1, 1) * settings.stride / SIZE
    np.testing.assert_allclose(scene.scales / footprints, settings.first_scale, rtol=1e-5)


def test_scales_and_depths_stay_inside_their_bounds():
    images, cameras, _ = wall(CONTEXT)
    params = splat_fit.start(jnp.asarray(images), cameras, jax.random.key(0), SETTINGS)
    for sign in (-100.0, 100.0):
        moved = params | {name: jnp.full_like(params[name], sign) for name in ("depth", "scale")}
        scene = splat_fit.splats(moved, jnp.asarray(images), cameras, SETTINGS)
        depth = SETTINGS.near if sign > 0 else SETTINGS.far
        bound = SETTINGS.max_scale if sign > 0 else SETTINGS.min_scale
        np.testing.assert_allclose(scene.means[:, 2], depth, rtol=1e-4)
        np.testing.assert_allclose(scene.scales, bound * depth * 2 / SIZE, rtol=1e-4)


def test_random_start_depends_on_the_key_and_the_sweep_does_not():
    images, cameras, _ = wall(CONTEXT)
    for start, equal in (("random", False), ("sweep", True)):
        settings = dataclasses.replace(SETTINGS, start=start)
        a, b = (
            splat_fit.start(jnp.asarray(images), cameras, jax.random.key(seed), settings)["depth"]
            for seed in (0, 1)
        )
        assert np.array_equal(a, b) == equal


@pytest.fixture(scope="module")
def fitted():
    """Two scenes fitted together: the wall and its mirror image in colour."""
    images, cameras, _ = wall(CONTEXT)
    both = jnp.stack([images, 1 - images])
    cameras = jax.tree.map(lambda x: jnp.stack([x, x]), cameras)
    scenes = splat_fit.fit(both, cameras, num_steps=60, key=jax.random.key(0), settings=SETTINGS)
    return both, cameras, scenes


def test_fitted_splats_show_views_that_were_not_given(fitted):
    _, _, scenes = fitted
    truth, cameras, _ = wall(TARGET)
    for scene, expected in ((scenes[0], truth), (scenes[1], 1 - truth)):
        rendered = render(scene, cameras, height=SIZE, width=SIZE).rgb
        # Inside; the border of a target is seen by one view only. The nearest view has 12 dB there.
        got = image.psnr(rendered[:, 2:-2, 2:-2], jnp.asarray(expected[:, 2:-2, 2:-2]))
        assert float(got.min()) > 26


def test_scenes_do_not_touch_each_other(fitted):
    images, cameras, scenes = fitted
    others = images.at[1].set(images[1] ** 2)
    again = splat_fit.fit(others, cameras, num_steps=60, key=jax.random.key(0), settings=SETTINGS)
    np.testing.assert_allclose(again.means[0], scenes.means[0], atol=1e-6)
    assert float(jnp.mean(jnp.abs(again.colors[1] - scenes.colors[1]))) > 0.01


def test_one_scene_needs_no_leading_dimension(fitted):
    images, cameras, scenes = fitted
    one = jax.eval_shape(
        lambda x, c: splat_fit.fit(x, c, num_steps=1, key=jax.random.key(0), settings=SETTINGS),
        images[0],
        cameras[0],
    )
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, scenes[0])


def test_wrong_arguments_are_named():
    images, cameras, _ = wall(CONTEXT)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"cameras \[S, V\]"):
        splat_fit.fit(jnp.asarray(images)[None], cameras, num_steps=1, key=key)
    with pytest.raises(ValueError, match=r"not a multiple of settings\.stride=3"):
        splat_fit.fit(
            jnp.asarray(images),
            cameras,
            num_steps=1,
            key=key,
            settings=splat_fit.FitSettings(stride=3),
        )
    with pytest.raises(ValueError, match="0 < near < far"):
        splat_fit.FitSettings(near=3.0, far=2.0)
    with pytest.raises(ValueError, match="min_scale < first_scale"):
        splat_fit.FitSettings(first_scale=9.0)


def make_batch(scene_index: list[int], weight: list[float]) -> dict:
    """A batch whose scene k is the wall, darker by a tenth for each k."""

    def group(offsets):
        images, cameras, _ = wall(offsets)
        copies = [panels.to_uint8(images * (1 - k / 10)) for k in scene_index]
        return {
            "images": np.stack(copies),
            "world_from_cam": np.stack([cameras.world_from_cam] * len(copies)),
            "intrinsics": np.stack([cameras.intrinsics] * len(copies)),
        }

    return {
        "context": group(CONTEXT),
        "target": group(TARGET),
        "scene_index": np.int32(scene_index),
        "weight": np.float32(weight),
        "world_from_scene": np.tile(np.eye(4, dtype=np.float32), (len(scene_index), 1, 1)),
    }


@pytest.fixture(scope="module")
def task_and_params():
    batch = make_batch([5, 0], [1.0, 1.0])
    task = splat_fit.SplatFitTask(
        SETTINGS,
        MetricSettings(),
        context=views.from_batch(batch["context"]),
        scene_index=batch["scene_index"],
    )
    return task, jax.jit(task.init)(jax.random.key(0))


def test_task_improves_its_scenes_by_gradient_descent(task_and_params):
    task, params = task_and_params
    assert task.describe(jax.eval_shape(lambda: params)) == (
        "2 scenes of 192 splats, each fitted to its own views"
    )
    step = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    losses = []
    for _ in range(10):
        (loss, terms), grads = step(params, {}, jax.random.key(0))
        losses.append(float(loss))
        params = jax.tree.map(lambda p, g: p - 0.02 * jnp.sign(g), params, grads)
    assert losses[-1] < 0.8 * losses[0]
    assert terms["overflow"] == 0


def test_evaluation_finds_the_splats_of_each_scene(task_and_params):
    task, params = task_and_params
    evaluate = jax.jit(task.evaluate)

    def psnr(scene_index, weight=(1.0, 1.0)):
        means = evaluate(params, make_batch(scene_index, weight), jax.random.key(0))
        return float(means["context_psnr"].compute())

    both = psnr([5, 0])
    assert both > 15
    assert psnr([0, 5]) == pytest.approx(both, abs=1e-3)
    # Scenes that were not fitted and padding do not count.
    first = psnr([5, 0], (1.0, 0.0))
    assert psnr([5, 7]) == pytest.approx(first, abs=1e-3)
    assert first != pytest.approx(both, abs=1e-3)


def test_visuals_are_those_of_fitted_scenes(task_and_params, monkeypatch):
    task, params = task_and_params

    def make(_render, scenes, *_, weights, **__):
        return {"means": scenes.means, "weights": weights}

    monkeypatch.setattr(scene_visuals, "make", make)
    shown = task.visualize(params, make_batch([0, 7], [1.0, 1.0]), jax.random.key(0))
    expected = splat_fit.splats(
        jax.tree.map(lambda x: x[1], params),
        task.context.images[1],
        task.context.cameras[1],
        SETTINGS,
    )
    np.testing.assert_allclose(shown["means"][0], expected.means, atol=1e-4)
    assert shown["weights"].tolist() == [1.0, 0.0]


def test_task_of_a_configuration_fits_the_scenes_of_its_evaluation():
    config = {
        "task": "splat_fit",
        "data": {
            "source": "procedural",
            "height": 16,
            "width": 16,
            "context_views": 3,
            "target_views": 2,
            "num_frames": 6,
            "num_scenes": 4,
            "holdout": 0.5,
        },
        "model": {"stride": 2, "num_planes": 8},
        "metrics": {"lpips": "none"},
        "training": {"eval_scenes": 2},
    }
    task = make_task("splat_fit", config)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    assert shapes["depth"].shape == (2, 3, 8, 8)
    with pytest.raises(settings_lib.SettingsError, match="eval_scenes is not set"):
        make_task("splat_fit", config | {"training": {}})
