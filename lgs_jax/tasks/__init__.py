"""What can be trained: each task binds a model, a loss and an evaluation (see `task.Task`)."""

import importlib
from collections.abc import Mapping
from typing import Any

from lgs_jax import settings

# What each task reads of a configuration.
TASKS = {
    "vae": ("data", "model", "loss", "metrics", "rendering"),
    "diffusion": (
        "data",
        "model",
        "diffusion",
        "sampler",
        "autoencoder",
        "latents",
        "latent_stats",
        "representations",
    ),
    "pixel_diffusion": ("data", "model", "loss", "diffusion", "sampler", "rendering"),
    "splat_fit": ("data", "training", "model", "metrics", "rendering"),
}
# What the trainer reads.
_TRAINING = ("task", "seed", "data", "training", "optimizer", "mesh")


def make_task(name: str, config: Mapping[str, Any], *constants: Any) -> Any:
    """The task of that name, from the groups of a whole configuration (plain mappings).

    Args:
      name: one of `TASKS`.
      config: the configuration.
      constants: what the task builds on: a `FrozenAutoencoder`, and perhaps a `Guide`, for
        "diffusion".

    Raises:
      lgs_jax.settings.SettingsError: if there is no such task, or a group that it does not read.
    """
    if name not in TASKS:
        raise settings.SettingsError(f"config.task is {name!r}; expected one of {', '.join(TASKS)}")
    settings.check_keys(config, (*_TRAINING, *TASKS[name]), "config")
    return importlib.import_module(f"lgs_jax.tasks.{name}").from_config(config, *constants)
