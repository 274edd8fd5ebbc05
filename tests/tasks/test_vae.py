"""The autoencoder's task: the loss is what it says, masks and gradients reach where they should."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.metrics.mean import Mean
from lgs_jax.settings import SettingsError
from lgs_jax.tasks import make_task, vae

SIZE, VIEWS, TARGETS = 16, 3, 2


def make_config(**loss) -> dict:
    return {
        "task": "vae",
        "data": {"height": SIZE, "width": SIZE, "context_views": VIEWS},
        "model": {
            "compression": 4,
            "patch_size": 4,
            "widths": (8,),
            "blocks_per_level": 1,
            "middle_blocks": 1,
            "attention_levels": (),
            "scene_head": {"near": 1.0, "far": 8.0},
        },
        "loss": {"l1": 1.0, "l2": 0.5, "kl": 0.01, "target": 2.0} | loss,
        "metrics": {"lpips": "none"},
    }


def make_batch(num_scenes: int = 2) -> dict:
    rng = np.random.default_rng(0)

    def group(count: int) -> dict:
        poses = np.tile(np.eye(4, dtype=np.float32), (num_scenes, count, 1, 1))
        poses[..., :3, 3] = rng.normal(0, 0.3, (num_scenes, count, 3))
        intrinsics = np.tile(np.float32([SIZE, SIZE, SIZE / 2, SIZE / 2]), (num_scenes, count, 1))
        images = rng.integers(0, 256, (num_scenes, count, SIZE, SIZE, 3), dtype=np.uint8)
        return {"images": images, "world_from_cam": poses, "intrinsics": intrinsics}

    return {
        "context": group(VIEWS),
        "target": group(TARGETS),
        "weight": np.ones(num_scenes, np.float32),
        "world_from_scene": np.tile(np.eye(4, dtype=np.float32), (num_scenes, 1, 1)),
    }


def test_losses_and_metrics_have_defaults():
    config = make_config()
    del config["loss"], config["metrics"]
    task = make_task("vae", config)
    assert task.options == vae.LossSettings()


@pytest.fixture(scope="module")
def task_and_params():
    task = make_task("vae", make_config())
    return task, jax.jit(task.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def loss(task_and_params):
    return jax.jit(task_and_params[0].loss)


def test_total_is_the_weighted_sum_of_its_terms(loss, task_and_params):
    total, terms = loss(task_and_params[1], make_batch(), jax.random.key(1))
    expected = terms["l1"] + 0.5 * terms["l2"] + 0.01 * terms["kl"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert terms["overflow"] == 0


def test_gradients_are_finite_and_reach_encoder_and_decoder(task_and_params):
    task, params = task_and_params
    # The last layers start (almost) at zero; nudge all so that every path carries a gradient.
    params = jax.tree.map(lambda x: x + 0.02 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)
    grad = jax.jit(jax.grad(lambda p: task.loss(p, make_batch(), jax.random.key(1))[0]))(params)
    for part in ("encoder", "decoder"):
        leaves = jax.tree.leaves(grad[part])
        assert all(np.isfinite(x).all() for x in leaves)
        assert sum(float(jnp.abs(x).sum()) for x in leaves) > 0


def test_an_encoder_that_is_not_trained_has_no_gradient(task_and_params):
    task = make_task("vae", make_config(train_encoder=False, latent_noise=0.5))
    grad = jax.grad(lambda p: task.loss(p, make_batch(), jax.random.key(1))[0])(task_and_params[1])
    assert all((x == 0).all() for x in jax.tree.leaves(grad["encoder"]))
    assert sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(grad["decoder"])) > 0


def test_an_encoder_that_is_not_trained_would_shrink_by_weight_decay():
    config = make_config(train_encoder=False) | {"optimizer": {"weight_decay": 0.01}}
    with pytest.raises(SettingsError, match=r"weight_decay=0\.01 would shrink the encoder"):
        make_task("vae", config)


def test_an_encoder_that_is_not_trained_must_come_from_somewhere():
    config = make_config(train_encoder=False)
    with pytest.raises(SettingsError, match=r"would be random; give --config\.training\.init_from"):
        make_task("vae", config | {"training": {"num_steps": 1}})
    make_task("vae", config | {"training": {"num_steps": 1, "init_from": "runs/vae"}})


def test_latent_noise_changes_the_rendering_but_not_the_kl(loss, task_and_params):
    task = make_task("vae", make_config(latent_noise=2.0))
    _, without = loss(task_and_params[1], make_batch(), jax.random.key(1))
    _, noisy = jax.jit(task.loss)(task_and_params[1], make_batch(), jax.random.key(1))
    assert noisy["l1"] != without["l1"]
    np.testing.assert_allclose(noisy["kl"], without["kl"], rtol=1e-5)


def test_latent_noise_has_the_strength_that_was_asked_for():
    """The mean square of `scale |u| n` is scale^2, in units of each channel's own deviation."""
    scales = jnp.array([0.1, 1.0, 10.0])
    latents = 5 + scales * jax.random.normal(jax.random.key(0), (4000, 2, 4, 4, 3))
    noise = (vae.add_noise(jax.random.key(1), latents, 0.5) - latents) / scales
    # 4000 squared strengths of mean 1 and variance 2: five standard errors are 0.11.
    np.testing.assert_allclose(jnp.mean(noise**2, (0, 1, 2, 3)), 0.25, rtol=0.12)
    strength = jnp.std(noise, (1, 2, 3, 4))
    assert strength.min() < 0.02  # of each scene its own
    assert strength.max() > 1.2


def test_evaluation_ignores_padded_scenes(task_and_params):
    task, params = task_and_params
    batch = make_batch()
    evaluate = jax.jit(task.evaluate)
    one = evaluate(params, jax.tree.map(lambda x: x[:1], batch), jax.random.key(0))
    padded = evaluate(params, batch | {"weight": np.float32([1, 0])}, jax.random.key(0))
    for name, mean in one.items():
        assert isinstance(mean, Mean)
        # Two compilations of one sum: float32 rounding over 768 values.
        np.testing.assert_allclose(padded[name].compute(), mean.compute(), rtol=1e-4)
    assert {"context_psnr", "target_psnr", "nearest_psnr", "target_ssim"} <= one.keys()


def test_visuals_show_every_real_scene(task_and_params):
    task, params = task_and_params
    visuals = task.visualize(params, make_batch() | {"weight": np.float32([1, 0])}, None)
    assert set(visuals) == {"scene_0", "splats_0", "turntable"}
    assert visuals["scene_0"].dtype == np.uint8
    assert visuals["turntable"].shape[1:] == (SIZE, SIZE, 3)


def test_random_view_mask_keeps_one_to_all_views():
    mask = np.asarray(vae.random_view_mask(jax.random.key(0), (4000, 4), 0.5))
    kept = mask.sum(1)
    assert kept.min() == 1
    # Half keep all on purpose, a quarter of the others by chance: 0.625 +- 5 standard errors.
    assert abs((kept == 4).mean() - 0.625) < 0.04
    assert np.abs(mask.mean(0) - mask.mean()).max() < 0.04
    assert np.asarray(vae.random_view_mask(jax.random.key(0), (50, 4), 0.0)).all()


def test_mean_of_kept_leaves_masked_views_out():
    values = jnp.arange(12.0).reshape(1, 3, 2, 2)
    mask = jnp.array([[True, False, True]])
    assert vae.mean_of_kept(values, mask) == np.r_[0:4, 8:12].mean()


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="view_dropout"):
        make_task("vae", make_config(view_dropout=1.5))
    with pytest.raises(ValueError, match="did you mean 'target'"):
        make_task("vae", make_config(tarjet=1.0))
    for wrong in ({"l1": -1.0}, {"kl": -1e-6}, {"target": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}=-.* must not be negative"):
            make_task("vae", make_config(**wrong))
    with pytest.raises(ValueError, match=r"config\.loss\.kl must be finite, got nan"):
        make_task("vae", make_config(kl=float("nan")))
    make_task("vae", make_config(l1=0.0, l2=0.0, perceptual="multiscale"))
    for nothing in ({}, {"perceptual": "multiscale", "perceptual_weight": 0.0}):
        with pytest.raises(ValueError, match="nothing that compares the rendered views"):
            make_task("vae", make_config(l1=0.0, l2=0.0, **nothing))
    config = make_config()
    config["data"]["width"] = SIZE + 2
    with pytest.raises(ValueError, match=r"config\.data\.width=18 must be a multiple of 4"):
        make_task("vae", config)
    with pytest.raises(ValueError, match=r"config\.task is 'vea'"):
        make_task("vea", make_config())


TWO_DEVICES = """
import sys
sys.path.insert(0, {folder!r})
import jax, numpy as np
import test_vae
from jax.sharding import AxisType, NamedSharding, PartitionSpec
task = test_vae.make_task("vae", test_vae.make_config())
params = jax.jit(task.init)(jax.random.key(0))
batch = test_vae.make_batch()
mesh = jax.make_mesh((2, 1), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
with jax.set_mesh(mesh):
    together, logged = jax.jit(task.loss)(params, split, jax.random.key(1))
np.testing.assert_allclose(together, {alone}, rtol=1e-5)
np.testing.assert_allclose(logged["entries_per_splat"], {entries}, rtol=1e-3)
"""


def test_two_devices_give_the_loss_of_one(loss, task_and_params):
    alone, logged = loss(task_and_params[1], make_batch(), jax.random.key(1))
    values = {"alone": float(alone), "entries": float(logged["entries_per_splat"])}
    folder = str(pathlib.Path(__file__).parent)
    flag = "--xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "-c", TWO_DEVICES.format(folder=folder, **values)],
        env=os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}"},
        check=True,
    )
