"""Every configuration: accepted by the settings, and its init, training step and evaluation fit.

Nothing is computed: `jax.eval_shape` follows the shapes through the full-width networks and the
rasterizer.
"""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest

from lgs_jax import settings, tasks
from lgs_jax.data import pipeline
from lgs_jax.inference.evaluation import protocols
from lgs_jax.models import frozen_autoencoder, parameters
from lgs_jax.tasks import views
from lgs_jax.training import optimizer
from lgs_jax.training import settings as training_settings

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
VARIANTS = [
    ("vae.py", None),
    ("vae.py", "rooms_small"),
    ("vae.py", "realestate10k"),
    ("vae.py", "re10k_2view"),
    ("vae.py", "paper"),
    ("splat_fit.py", None),  # its other variants need the data at once
    ("diffusion.py", None),
    ("diffusion.py", "objects_small"),
    ("diffusion.py", "rooms_small"),
    ("diffusion.py", "realestate10k"),
    ("diffusion.py", "paper"),
    ("pixel_diffusion.py", None),
    ("pixel_diffusion.py", "realestate10k"),
    ("pixel_diffusion.py", "paper"),
]
SAME_SHAPES = [
    ("long", None),
    ("mvimgnet_small", "objects_small"),
    ("mvimgnet", "realestate10k"),
    ("captures", "realestate10k"),
]
DENOISING_MEANS = {"x_mse", "x_mse_one_view", "loss_snr_-6", "x_mse_snr_6_one_view"}
DENOISING_MEANS |= {"sample_psnr_known"}
MEANS = {
    "vae": {"context_psnr", "target_psnr", "nearest_psnr"},
    "splat_fit": {"context_psnr", "target_psnr", "nearest_psnr"},
    "diffusion": DENOISING_MEANS,
    "pixel_diffusion": DENOISING_MEANS,
}


def load(file: str, variant: str | None) -> dict:
    spec = importlib.util.spec_from_file_location("config_under_test", CONFIGS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant).to_dict()
    if config["data"]["source"] != "procedural":
        config["data"]["root"] = "a folder"
    # The network's weights are not part of the repository; shapes do not depend on them.
    if config["task"] == "vae":
        config["loss"]["perceptual"] = "none"
    config.get("metrics", {})["lpips"] = "none"
    return config


def constants(config: dict, variant: str | None) -> tuple:
    """What the task builds on: for stage 2 the autoencoder of the same variant, shapes only."""
    if config["task"] != "diffusion":
        return ()
    first = load("vae.py", variant)
    params = jax.eval_shape(tasks.make_task("vae", first).init, jax.random.key(0))
    return (frozen_autoencoder.from_run(first, params),)


def abstract_batch(config: dict, num_scenes: int) -> dict:
    height, width = config["data"]["height"], config["data"]["width"]

    def group(views: int) -> dict:
        lead = (num_scenes, views)
        return {
            "images": jax.ShapeDtypeStruct((*lead, height, width, 3), jnp.uint8),
            "world_from_cam": jax.ShapeDtypeStruct((*lead, 4, 4), jnp.float32),
            "intrinsics": jax.ShapeDtypeStruct((*lead, 4), jnp.float32),
        }

    size = config.get("model", {}).get("representation_size")
    told = {"representation": jax.ShapeDtypeStruct((num_scenes, size), jnp.float32)} if size else {}
    return told | {
        "context": group(config["data"]["context_views"]),
        "target": group(config["data"]["target_views"]),
        "class_label": jax.ShapeDtypeStruct((num_scenes,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((num_scenes,), jnp.float32),
        "scene_index": jax.ShapeDtypeStruct((num_scenes,), jnp.int32),
    }


@pytest.mark.parametrize(("file", "variant"), VARIANTS)
def test_shapes_of_init_step_and_evaluation(file, variant):
    config = load(file, variant)
    train = training_settings.from_config(config)
    settings.build(pipeline.DataSettings, config["data"], "config.data")
    built_on = constants(config, variant)
    task = tasks.make_task(config["task"], config, *built_on)
    key = jax.random.key(0)
    params = jax.eval_shape(task.init, key)
    transform = optimizer.make(train.optimizer)

    def step(params, batch, *built_on):
        gradient = jax.value_and_grad(task.loss, has_aux=True)
        (loss, metrics), grads = gradient(params, batch, key, *built_on)
        updates, _ = transform.update(grads, transform.init(params), params)
        return loss, metrics, updates

    batch = abstract_batch(config, 2)
    loss, metrics, updates = jax.eval_shape(step, params, batch, *built_on)
    assert loss.shape == ()
    assert all(value.shape == () for value in metrics.values())
    assert jax.tree.map(lambda x: x.shape, updates) == jax.tree.map(lambda x: x.shape, params)
    means = jax.eval_shape(task.evaluate, params, batch, key, *built_on)
    assert MEANS[config["task"]] <= means.keys()


@pytest.mark.parametrize("variant", [None, "long", "mvimgnet", "captures", "paper"])
def test_the_rival_is_as_large_as_latent_diffusion(variant):
    """What `benchmark sampling` holds equal, and the splats and the patch of stage 1."""
    rival, latent, first = (
        load(file, variant) for file in ("pixel_diffusion.py", "diffusion.py", "vae.py")
    )
    assert rival["data"] == latent["data"]
    assert rival["sampler"] == latent["sampler"]
    assert rival["diffusion"] == latent["diffusion"] | {"kind": "x"}
    for name in ("embedding_size", "widths", "blocks_per_level", "middle_blocks", "dtype"):
        assert rival["model"][name] == latent["model"][name], name
    for name in ("patch_size", "scene_head"):
        assert rival["model"][name] == first["model"][name], name


@pytest.mark.parametrize(("variant", "like"), SAME_SHAPES)
def test_other_variants_have_networks_that_were_checked(variant, like):
    """Accepted like the one with the same networks but for classes, whose shapes were followed."""
    config, first = load("diffusion.py", variant), load("vae.py", variant)
    for each in (config, first):
        training_settings.from_config(each)
        settings.build(pipeline.DataSettings, each["data"], "config.data")
    tasks.make_task("vae", first)
    classes = {"num_classes": config["model"]["num_classes"]}
    assert config["model"] == load("diffusion.py", like)["model"] | classes
    drawn = {"view_draws": None}
    assert config["data"] | drawn == first["data"] | drawn
    assert first["model"] == load("vae.py", like)["model"]


def test_paper_variant_has_the_sizes_of_the_paper():
    config = load("vae.py", "paper")
    task = tasks.make_task("vae", config)
    params = jax.eval_shape(task.init, jax.random.key(0))
    context = jax.eval_shape(
        lambda batch: views.from_batch(batch["context"]), abstract_batch(config, 1)
    )
    posterior = jax.eval_shape(task.encode, params, context)
    scene = jax.eval_shape(task.reconstruct, params, context)
    # 6 views of 96 x 96: latents 12 x 12 x 6, 55,296 splats (docs/paper_map.md).
    assert posterior.mean.shape == (1, 6, 12, 12, 6)
    assert scene.means.shape == (1, 6 * 96 * 96, 3)
    assert parameters.count(params) > 100e6


def test_the_two_view_variant_is_what_its_protocol_asks_for():
    data = load("vae.py", "re10k_2view")["data"]
    protocol = protocols.PROTOCOLS["re10k_2view"]
    assert protocol.data.items() <= data.items()
    assert data["target_views"] == protocol.target_views


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="realestate10k"):
        load("vae.py", "papre")
