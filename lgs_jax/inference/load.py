"""Opens what a run has left: its configuration, its parameters and what goes with them."""

import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lgs_jax import files, settings
from lgs_jax.data import pipeline, report
from lgs_jax.data.example import Source
from lgs_jax.models import frozen_autoencoder
from lgs_jax.models.denoiser import Denoiser
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.models.latent_stats import LatentStats, Moments
from lgs_jax.tasks import views
from lgs_jax.tasks.diffusion_settings import DiffusionSettings
from lgs_jax.training import checkpoint, workdir

STATS_FILE = "latent_stats.json"
STATS_SCENES = 512
_BATCH_SIZE = 8


@dataclasses.dataclass(frozen=True)
class SavedAutoencoder:
    """A checkpoint of an autoencoder.

    Attributes:
      folder: the workdir of its run.
      step: of the checkpoint.
      config: of its run.
      plain: the autoencoder with the averaged parameters; its latents are not normalised.
    """

    folder: pathlib.Path
    step: int
    config: Mapping[str, Any]
    plain: FrozenAutoencoder

    @property
    def unfinished(self) -> str | None:
        """A warning if its run has more steps to go; None if not, or if that is not known."""
        planned = self.config.get("training", {}).get("num_steps", self.step)
        if self.step >= planned:
            return None
        return (
            f"warning: the autoencoder {self.folder} has been trained for {self.step} of {planned} "
            "steps; if it goes on, what is trained on its latents of now has to start again"
        )

    def data_settings(self, root: str | None = None) -> pipeline.DataSettings:
        """The data that it was trained on; `root` says where that lies now, if elsewhere."""
        moved = {} if root is None else {"root": root}
        return settings.build(
            pipeline.DataSettings, {**self.config["data"], **moved}, "the autoencoder's data"
        )


def open_autoencoder(source: str | os.PathLike) -> SavedAutoencoder:
    """The newest checkpoint of a workdir, or one checkpoint, on the first local device.

    Raises:
      CheckpointError: if there is no checkpoint, or it cannot be read.
      SettingsError: if it is not an autoencoder's.
    """
    folder, step = checkpoint.locate(source)
    config, params = checkpoint.restore_params(source, step=step)
    try:
        plain = frozen_autoencoder.from_run(config, params)
    except settings.SettingsError as error:
        raise settings.SettingsError(f"{source}: {error}") from error
    if folder.name == workdir.CHECKPOINTS:
        folder = folder.parent
    return SavedAutoencoder(folder=folder, step=step, config=config, plain=plain)


def autoencoder_of_run(source: str | os.PathLike, stats: LatentStats) -> FrozenAutoencoder:
    """The autoencoder of a diffusion run, whose latents had these statistics.

    Raises:
      lgs_jax.settings.SettingsError: if it is another one.
    """
    saved = open_autoencoder(source)
    check_autoencoder(saved, stats)
    return saved.plain.with_stats(stats)


def check_autoencoder(saved: SavedAutoencoder, stats: LatentStats) -> None:
    """Refuses an autoencoder that is not the one whose latents had these statistics.

    Raises:
      lgs_jax.settings.SettingsError: if it is another one.
    """
    kept = read_stats(saved.folder)
    differs = saved.step != stats.step or (
        kept is not None
        and kept.step == saved.step
        and not np.allclose(kept.mean, stats.mean, atol=0.05 * max(stats.std))
    )
    if differs:
        raise settings.SettingsError(
            f"the autoencoder {saved.folder} (step {saved.step}) is not the one that the "
            f"diffusion model was trained on (step {stats.step}, latent means {stats.mean}); "
            "give that one"
        )


def with_decoder(saved: SavedAutoencoder, source: str | os.PathLike) -> SavedAutoencoder:
    """The autoencoder with the decoder of a run that trained only that (`loss.train_encoder`).

    Latents, and diffusion models of them, stay as they are.

    Raises:
      CheckpointError: if there is no checkpoint, or it cannot be read.
      SettingsError: if the run's encoder or network is another one.
    """
    other = open_autoencoder(source)
    if other.plain.module != saved.plain.module:
        raise settings.SettingsError(
            f"the decoder of {source} has other settings (config.model) than the autoencoder "
            f"{saved.folder}; give a run that started from that one"
        )
    # Averaging parameters that do not change still rounds them, at every step.
    encoders = [jax.tree.leaves(each.plain.params["encoder"]) for each in (saved, other)]
    if not all(np.allclose(ours, theirs, rtol=1e-4, atol=1e-6) for ours, theirs in zip(*encoders)):
        raise settings.SettingsError(
            f"the encoder of {source} is not that of the autoencoder {saved.folder}, so its "
            "decoder is for other latents; train it with --config.loss.train_encoder=False and "
            f"--config.training.init_from={saved.folder}"
        )
    params = {**saved.plain.params, "decoder": other.plain.params["decoder"]}
    return dataclasses.replace(saved, plain=dataclasses.replace(saved.plain, params=params))


def open_guide(
    run: str | os.PathLike, config: Mapping[str, Any]
) -> tuple[int, Mapping[str, Any], Any]:
    """The newest checkpoint of a weaker denoiser (`models.guide`) for that of the configuration.

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


def read_stats(folder: pathlib.Path) -> LatentStats | None:
    """The statistics kept in an autoencoder's workdir, or None.

    Raises:
      SettingsError: if the file holds something else.
    """
    path = folder / STATS_FILE
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise settings.SettingsError(f"{path} is no JSON ({error}); delete it") from error
    return LatentStats.from_json(value, str(path))


def ensure_stats(
    saved: SavedAutoencoder,
    source: Source,
    data: pipeline.DataSettings,
    *,
    num_scenes: int = STATS_SCENES,
    again: bool = False,
    say: Callable[[str], None] = print,
) -> LatentStats:
    """The statistics of a checkpoint, computed and kept where they are missing or of another step.

    Args:
      saved: the autoencoder.
      source: training scenes.
      data: how views are drawn.
      num_scenes: scenes to look at; fewer if there are fewer.
      again: compute them in any case.
      say: told what happens.

    Raises:
      WorkdirError: if they cannot be written.
    """
    path = saved.folder / STATS_FILE
    stats = read_stats(saved.folder)
    if stats is not None and stats.step == saved.step and not again:
        scenes = report.counted(stats.num_scenes, "scene")
        say(f"latent statistics: {path}, step {stats.step}, {scenes}")
        return stats
    num_scenes = min(num_scenes, len(source))
    if stats is not None and stats.step != saved.step:
        say(f"{path} is of step {stats.step}, the autoencoder of step {saved.step}")
    say(f"computing latent statistics over {report.counted(num_scenes, 'training scene')}")
    began = time.monotonic()
    mean, std = _moments(saved.plain, _batches(source, data, num_scenes)).result()
    stats = LatentStats(step=saved.step, num_scenes=num_scenes, mean=mean, std=std)
    if jax.process_index() == 0:
        try:
            files.write_json(path, stats.to_json())
        except OSError as error:
            raise workdir.WorkdirError(
                f"{path} cannot be written ({error.strerror}); the statistics belong beside the "
                "checkpoints: change the permissions, or copy the autoencoder's workdir"
            ) from error
    say(f"latent statistics: wrote {path} after {time.monotonic() - began:.0f} s")
    return stats


def representation_size(config: Mapping[str, Any]) -> int:
    """R of a run's denoiser, which only latents encoded beforehand can tell it.

    Raises:
      SettingsError: if the run has none.
    """
    size = config.get("model", {}).get("representation_size", 0)
    if size and not config.get("latents"):
        raise settings.SettingsError(
            f"config.model.representation_size={size}, but representations come with latents that "
            "were encoded beforehand: give --config.latents=FOLDER, written by python -m lgs_jax "
            "encode-latents --representation=alex, or 0 for a model without"
        )
    return size


def frozen_parts(
    config: Mapping[str, Any], source: Source, data: pipeline.DataSettings
) -> tuple[tuple[FrozenAutoencoder, ...], dict[str, Any]]:
    """What a run's task builds on, and what to record of it with the run's configuration.

    Empty for all tasks but `diffusion`. The record holds the statistics of the latents:
    a checkpoint of stage 2 then refuses to continue on another autoencoder's latents.

    Raises:
      SettingsError: if `config.autoencoder` is empty, no autoencoder, or one of other data, if the
        data have other classes than `config.model.num_classes`, or a representation has no source.
      CheckpointError: if there is no checkpoint, or it cannot be read.
    """
    classes = config.get("model", {}).get("num_classes", 0)
    if classes and classes != len(source.class_names):
        raise settings.SettingsError(
            f"config.model.num_classes={classes}, but the data have {len(source.class_names)} "
            "classes; give that number, or 0 for a model without classes"
        )
    if config["task"] != "diffusion":
        return (), {}
    name = config.get("autoencoder")
    if not name or not isinstance(name, str):
        raise settings.SettingsError(
            f"config.autoencoder={name!r}: give --config.autoencoder=WORKDIR, the folder of a run "
            "of configs/vae.py"
        )
    representation_size(config)  # before statistics take their time
    saved = open_autoencoder(name)
    saved.plain.check_data(data)
    if saved.unfinished:
        print(saved.unfinished, flush=True)
    stats = ensure_stats(saved, source, data)
    record = {
        "autoencoder": os.fspath(workdir.as_path(name)),
        "latent_stats": stats.to_json(),
    }
    return (saved.plain.with_stats(stats),), record


@jax.jit
def _encode(plain: FrozenAutoencoder, group: Mapping[str, Any]) -> Any:
    context = views.from_batch(group)
    return plain.encode(context.images, context.cameras)


def _moments(plain: FrozenAutoencoder, batches: Iterator[Mapping[str, Any]]) -> Moments:
    moments = Moments()
    for batch in batches:
        posterior = jax.device_get(_encode(plain, batch["context"]))
        kept = np.asarray(batch["weight"]) > 0
        moments.add(posterior.mean[kept], posterior.log_var[kept])
    return moments


def _batches(
    source: Source, data: pipeline.DataSettings, num_scenes: int
) -> Iterator[dict[str, Any]]:
    """The first `num_scenes` scenes that training draws, each once but for those of mixtures."""
    # Whatever the run's draws are: the same statistics for every run.
    data = dataclasses.replace(data, view_draws=None)
    batches = pipeline.train_batches(source, data, seed=0, batch_size=_BATCH_SIZE)
    try:
        for index in range(math.ceil(num_scenes / _BATCH_SIZE)):
            batch = next(batches)
            place = index * _BATCH_SIZE + np.arange(_BATCH_SIZE)
            batch["weight"] = np.where(place < num_scenes, np.float32(1), np.float32(0))
            yield batch
    finally:
        batches.close()
