"""A tiny autoencoder with invented parameters, and what goes with it, for tests of what uses it."""

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core.cameras import Cameras
from lgs_jax.models import autoencoder, frozen_autoencoder
from lgs_jax.models.latent_stats import LatentStats
from lgs_jax.training import checkpoint, optimizer, state

SIZE, VIEWS, TARGETS = 16, 2, 1
CONFIG = {
    "task": "vae",
    "seed": 0,
    "data": {
        "num_scenes": 10,
        "num_frames": 5,
        "height": SIZE,
        "width": SIZE,
        "context_views": VIEWS,
        "target_views": TARGETS,
    },
    "model": {
        "compression": 4,
        "latent_channels": 2,
        "patch_size": 4,
        "widths": (8,),
        "blocks_per_level": 1,
        "middle_blocks": 0,
        "attention_levels": (),
        "num_heads": 1,
        "scene_head": {"near": 1.0, "far": 8.0},
    },
}
# `config.model` of a denoiser of its latents.
DENOISER = {
    "latent_channels": 2,
    "compression": 4,
    "embedding_size": 8,
    "widths": (8,),
    "blocks_per_level": 1,
    "middle_blocks": 0,
    "attention_levels": (),
    "num_heads": 1,
}
STATS = LatentStats(step=3, num_scenes=8, mean=(0.5, -2.0), std=(2.0, 0.1))


def invent(shapes):
    """Parameters for a tree of shapes, as after some training, without compiling an `init`."""
    rng = np.random.default_rng(0)

    def one(path, leaf):
        value = 0.2 * rng.standard_normal(leaf.shape, "f4")
        return jnp.asarray(value + (path[-1].key == "scale"))

    return jax.tree_util.tree_map_with_path(one, shapes)


def make_views(scenes=2, views=VIEWS):
    """Random images and cameras side by side."""
    images = np.random.default_rng(1).random((scenes, views, SIZE, SIZE, 3), "f4")
    poses = np.tile(np.eye(4, dtype=np.float32), (scenes, views, 1, 1))
    poses[..., 0, 3] = 0.3 * np.arange(views) + 0.1 * np.arange(scenes)[:, None]
    intrinsics = np.tile(np.float32([SIZE, SIZE, SIZE / 2, SIZE / 2]), (scenes, views, 1))
    return jnp.asarray(images), Cameras(jnp.asarray(poses), jnp.asarray(intrinsics))


def make_params():
    """Parameters of the autoencoder."""
    module = autoencoder.Autoencoder(**CONFIG["model"])
    return invent(jax.eval_shape(module.init, jax.random.key(0), *make_views())["params"])


def save(folder, step):
    """Writes a checkpoint of the autoencoder into a workdir."""
    saved = state.create(make_params(), optimizer.make(optimizer.OptimizerSettings()))
    with checkpoint.Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(step, saved, CONFIG, {"seconds": 0.0})
        checkpoints.wait()


def make(kind="gaussians"):
    """The autoencoder with normalised latents, and scenes of this kind."""
    if kind == "gaussians":
        return frozen_autoencoder.from_run(CONFIG, make_params()).with_stats(STATS)
    head = CONFIG["model"]["scene_head"] | {"kind": kind, "samples": 8}
    config = CONFIG | {"model": CONFIG["model"] | {"scene_head": head}}
    module = autoencoder.Autoencoder(**config["model"])
    params = invent(jax.eval_shape(module.init, jax.random.key(0), *make_views())["params"])
    return frozen_autoencoder.from_run(config, params).with_stats(STATS)


def make_batch(scenes=2):
    """A batch like those of the data pipeline."""

    def group(views):
        images, cameras = make_views(scenes, views)
        return {
            "images": np.asarray(images * 255).astype(np.uint8),
            "world_from_cam": np.asarray(cameras.world_from_cam),
            "intrinsics": np.asarray(cameras.intrinsics),
        }

    return {
        "context": group(VIEWS),
        "target": group(TARGETS),
        "class_label": np.arange(scenes, dtype=np.int32) - 1,
        "scene_index": np.arange(scenes, dtype=np.int32),
        "weight": np.ones(scenes, np.float32),
        "world_from_scene": np.tile(np.eye(4, dtype=np.float32), (scenes, 1, 1)),
    }
