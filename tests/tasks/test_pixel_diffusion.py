"""Diffusion in pixel space: predictions are renderings, conditions count, scenes do not mix."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.core import cameras as cameras_lib
from lgs_jax.diffusion import parameterization
from lgs_jax.rendering import api
from lgs_jax.tasks import denoising, make_task, pixel_diffusion, views

MODEL = {
    "patch_size": 4,
    "num_classes": 2,
    "embedding_size": 8,
    "widths": (8,),
    "blocks_per_level": 1,
    "middle_blocks": 0,
    "attention_levels": (),
    "num_heads": 1,
    "scene_head": {"near": 1.0, "far": 8.0},
}


def make(**groups):
    config = {"task": "pixel_diffusion", "data": tiny.CONFIG["data"], "sampler": {"steps": 2}}
    config |= {"model": MODEL, "loss": {}, "diffusion": {}}
    return make_task(
        "pixel_diffusion", config | {name: config[name] | new for name, new in groups.items()}
    )


@pytest.fixture(scope="module")
def task():
    return make()


@pytest.fixture(scope="module")
def params(task):
    return tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))


@pytest.fixture(scope="module")
def condition(task):
    images, cameras = tiny.make_views()
    mask, label = task.shared.one_view(2), jnp.int32([0, 1])
    return task.condition(views.Views(images, cameras), mask, label)


@pytest.fixture(scope="module")
def sample(task):
    # As much optimized as the bounds below were set for, whatever the other tests do.
    return jax.jit(task.sample, compiler_options={"xla_backend_optimization_level": 1})


def test_the_prediction_is_the_scene_drawn_at_its_views(task, params, condition):
    z = jnp.asarray(np.random.default_rng(2).standard_normal(condition.known.shape, "f4"))
    log_snr = jnp.array([-1.0, 2.0])

    @jax.jit
    def both(z):
        denoise = task.shared.denoise_fn(functools.partial(task.raw, params), condition)
        return denoise(z, log_snr), task.scene(params, z, log_snr, condition)

    prediction, scene = both(z)
    drawn = api.render(scene, condition.cameras, height=16, width=16, implementation="reference")
    x = 2 * np.asarray(drawn.rgb, np.float64) - 1
    # Sums over some hundred splats in float32, in another order.
    np.testing.assert_allclose(prediction.x, x, atol=1e-4)
    assert x.std() > 0.1
    alpha, sigma = parameterization.alpha_sigma(np.array([-1.0, 2.0]), "vp")
    alpha, sigma = (a[:, None, None, None, None] for a in (alpha, sigma))
    np.testing.assert_allclose(alpha * x + sigma * prediction.eps, z, atol=1e-3)


@pytest.mark.parametrize("target", [0.0, 0.5])
def test_loss_of_a_scene_that_is_known(target, params, condition, monkeypatch):
    """The network is replaced by one that always gives the same scene."""
    task = make(loss={"target": target}, diffusion={"weighting": "snr", "unconditional": 1.0})
    batch, seen = tiny.make_batch(), {}
    scene = jax.jit(task.final_scene)(params, condition.known, condition)

    def fixed(_, z, log_snr, condition):
        seen.update(z=z, log_snr=log_snr, known=condition.known_mask)
        return scene

    monkeypatch.setattr(task, "scene", fixed)

    @jax.jit
    def run(batch):
        return *task.loss({}, batch, jax.random.key(1)), dict(seen)

    loss, logged, seen = run(batch)
    errors = {}
    for name in ("context", "target"):
        group = batch[name]
        cameras = cameras_lib.Cameras(
            jnp.asarray(group["world_from_cam"]), jnp.asarray(group["intrinsics"])
        )
        drawn = api.render(scene, cameras, height=16, width=16, implementation="reference").rgb
        difference = 2 * (np.asarray(drawn, np.float64) - group["images"] / 255)
        errors[name] = np.square(difference).mean((1, 2, 3, 4))
    # The kind is x: the weight "snr" is the SNR itself.
    weight = np.exp(np.asarray(seen["log_snr"], np.float64))
    expected = np.mean(weight * (errors["context"] + target * errors["target"]))
    assert loss == pytest.approx(expected, rel=1e-3)
    assert logged["x_mse"] == pytest.approx(errors["context"].mean(), rel=1e-3)
    assert ("target_mse" in logged) == (target > 0)
    assert not seen["known"].any()


def test_evaluation_of_a_network_that_answers_grey(monkeypatch):
    task = make(sampler={"eval_scenes": 0})
    monkeypatch.setattr(task, "raw", lambda _, z, *__: jnp.zeros_like(z))
    batch = tiny.make_batch() | {"weight": np.float32([1, 0])}
    means = jax.jit(lambda batch: task.evaluate({}, batch, None))(batch)
    values = {name: float(mean.compute()) for name, mean in means.items()}
    expected = np.square(2 * (batch["context"]["images"][0] / 255) - 1).mean()
    for level in denoising.EVALUATION_LEVELS:
        assert values[f"x_mse_snr_{level:g}"] == pytest.approx(expected, rel=1e-5)
        assert values[f"x_mse_snr_{level:g}_one_view"] == pytest.approx(expected, rel=1e-5)
        weighted = expected * min(np.exp(level), 5.0)  # min_snr on the error of x
        assert values[f"loss_snr_{level:g}"] == pytest.approx(weighted, rel=1e-5)


def test_gradients_are_finite_and_reach_every_parameter(task, params):
    batch = tiny.make_batch() | {"class_label": np.int32([0, 1])}
    gradient = jax.jit(jax.grad(lambda p, key: task.loss(p, batch, key)[0]))
    total = jax.tree.map(jnp.zeros_like, params)
    for seed in range(6):  # rows of the class embedding take turns
        each = gradient(params, jax.random.key(seed))
        total = jax.tree.map(lambda a, b: a + jnp.abs(b), total, each)
    for path, leaf in jax.tree_util.tree_leaves_with_path(total):
        assert np.isfinite(leaf).all(), path
        assert leaf.max() > 0, path


def test_a_scene_alone_is_the_scene_in_a_batch(sample, params, condition):
    # With key 0 the alpha of a splat rounds across 1 / 255 at a pixel, which then has it or not.
    keys = jax.random.split(jax.random.key(2), 2)
    both = sample(params, condition, keys)
    np.testing.assert_array_equal(sample(params, condition, keys), both)
    alone = sample(params, jax.tree.map(lambda x: x[1:], condition), keys[1:])
    # Float32 rounding of other batch shapes, over some steps.
    np.testing.assert_allclose(alone[0], both[1], atol=1e-3)
    assert both.shape == condition.known.shape
    assert both.min() >= -1
    assert both.max() <= 1.001
    other = sample(params, condition, jax.random.split(jax.random.key(1), 2))
    assert np.abs(other - both).max() > 1e-2


def test_known_views_count_and_unknown_ones_are_not_looked_at(sample, params, condition):
    key = jax.random.key(0)
    drawn = sample(params, condition, key)
    hidden = dataclasses.replace(condition, known=condition.known.at[:, 1].set(jnp.nan))
    np.testing.assert_array_equal(sample(params, hidden, key), drawn)
    shown = dataclasses.replace(condition, known=condition.known.at[:, 0].multiply(-1.0))
    assert (np.abs(sample(params, shown, key) - drawn).max((2, 3, 4)) > 1e-2).all()
    assert np.abs(sample(params, condition.dropped(), key) - drawn).max() > 1e-2


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"diffusion": {"kind": "v"}}, r"config\.diffusion\.kind='v', but .* must be 'x'"),
        ({"diffusion": {"max_known": 3}}, "max_known=3 is more than the 2 views"),
        ({"loss": {"target": -1.0}}, r"config\.loss: target=-1\.0 must not be negative"),
        ({"model": {"patch_size": 5}}, r"config\.model: patch_size=5"),
        ({"model": {"widths": (8,) * 4}}, r"config\.data\.height=16 must be a multiple of 32"),
    ],
)
def test_what_does_not_fit_is_named(groups, message):
    with pytest.raises(settings.SettingsError, match=message):
        make(**groups)


def test_images_are_diffused_around_zero():
    values = pixel_diffusion.to_signed(np.float32([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(values, [-1.0, 0.0, 1.0])
