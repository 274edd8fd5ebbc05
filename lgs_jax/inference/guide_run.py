"""Opens the run of a weaker denoiser, to guide another one away from (`models.guide`)."""

import os
from collections.abc import Mapping
from typing import Any

from lgs_jax import settings
from lgs_jax.models.denoiser import Denoiser
from lgs_jax.tasks.diffusion_settings import DiffusionSettings
from lgs_jax.training import checkpoint


def open_guide(
    run: str | os.PathLike, config: Mapping[str, Any]
) -> tuple[int, Mapping[str, Any], Any]:
    """The newest checkpoint of a run whose denoiser can guide that of the configuration.

    Returns:
      (step, configuration, averaged parameters).

    Raises:
      lgs_jax.training.checkpoint.CheckpointError: if there is no checkpoint, or it is damaged.
      lgs_jax.settings.SettingsError: if it is the run of another task, of other latents, or was
        told other things.
    """
    _, step = checkpoint.locate(run)
    weaker, params = checkpoint.restore_params(run, step=step)
    if weaker.get("task") != "diffusion":
        raise settings.SettingsError(
            f"the guide {run} is a run of the task {weaker.get('task')!r}; expected one of "
            "configs/diffusion.py"
        )
    ours, theirs = _learnt(config), _learnt(weaker)
    different = [
        f"{name}: {theirs[name]} there, {value} of the denoiser"
        for name, value in ours.items()
        if theirs[name] != value
    ]
    for name in ("latent_stats", "representations"):
        if weaker.get(name) != config.get(name):
            different.append(f"{name}, recorded of other latents")
    if different:
        raise settings.SettingsError(
            f"{run} cannot guide this denoiser; these differ:\n  "
            + "\n  ".join(different)
            + "\nTrain a smaller one on the same latents, with the same conditions"
        )
    return step, weaker, params


def _learnt(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a denoiser takes, what it puts out, and under which conditions, by key."""
    process = settings.build(DiffusionSettings, config.get("diffusion", {}), "config.diffusion")
    model = settings.build(Denoiser, config["model"], "config.model")
    numbers = ("latent_channels", "compression", "num_classes", "representation_size")
    same = ("process", "kind", "log_snr_min", "log_snr_max", "max_known")
    return {
        **{f"config.diffusion.{name}": getattr(process, name) for name in same},
        "config.diffusion.unconditional > 0": process.unconditional > 0,
        "config.diffusion.unconditional < 1": process.unconditional < 1,
        "config.diffusion.class_drop > 0": process.class_drop > 0,
        **{f"config.model.{name}": getattr(model, name) for name in numbers},
    }
