"""What a training consists of, made from its configuration: data, frozen parts, task."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from lgs_jax import settings, tasks
from lgs_jax.data import pipeline, report
from lgs_jax.inference import encode_latents, load
from lgs_jax.rendering.splat import dispatch
from lgs_jax.training.settings import TrainSettings

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainingParts:
    """Arguments of `training.loop.train`.

    Attributes:
      task: a `tasks.task.Task`.
      constants: further arguments of its functions.
      config: the configuration, with what is to be recorded of the parts.
      train_batches: start step -> endless batches, this process's share of each.
      eval_batches: the batches of one evaluation.
      data_report: what was left out of the data.
    """

    task: Any
    constants: tuple[Any, ...]
    config: Mapping[str, Any]
    train_batches: Callable[[int], Iterator[Batch]]
    eval_batches: Callable[[], Iterator[Batch]]
    data_report: Mapping[str, Any]


def open_parts(
    config: Mapping[str, Any], train: TrainSettings, data: pipeline.DataSettings
) -> TrainingParts:
    """Opens the data and what the task builds on; says what it finds.

    Raises:
      SettingsError, DataError, CheckpointError: if something is missing or does not fit.
    """
    source, held_out = sources = [pipeline.make_source(data, split) for split in ("train", "eval")]
    print(*(each.report.summary() for each in sources), sep="\n", flush=True)
    if len(held_out) < train.eval_scenes:
        print(
            f"evaluations score {report.counted(len(held_out), 'scene')}, all that are held out; "
            f"config.training.eval_scenes={train.eval_scenes} asks for more",
            flush=True,
        )
    constants, record = load.frozen_parts(config, source, data)
    latents = encode_latents.of_run(config, source, data)
    if config.get("model", {}).get("representation_size"):
        record |= encode_latents.representations(latents, source)
    recorded = {**config, **record}
    host = {"host_index": jax.process_index(), "host_count": jax.process_count()}
    batches = {"latents": latents, "seed": train.seed, "batch_size": train.batch_size} | host
    evaluation = {"batch_size": train.evaluation_batch_size, "num_scenes": train.eval_scenes} | host
    return TrainingParts(
        task=make_task(recorded, constants),
        constants=constants,
        config=recorded,
        train_batches=lambda s: pipeline.train_batches(source, data, start_step=s, **batches),
        eval_batches=functools.partial(pipeline.eval_batches, held_out, data, **evaluation),
        data_report={"train": source.report.to_json(), "eval": held_out.report.to_json()},
    )


def make_task(config: Mapping[str, Any], constants: tuple[Any, ...]) -> Any:
    """The task of a configuration.

    Raises:
      SettingsError: also for what its parts lack on this machine, such as the weights of a loss.
    """
    chosen = os.environ.get(dispatch.ENVIRONMENT)
    if chosen and chosen not in dispatch.IMPLEMENTATIONS:  # noticed by the first step only
        raise settings.SettingsError(
            f"{dispatch.ENVIRONMENT}={chosen!r} must be one of "
            f"{', '.join(dispatch.IMPLEMENTATIONS)}, or left out"
        )
    try:
        return tasks.make_task(config["task"], config, *constants)
    except (ValueError, OSError) as error:
        raise settings.SettingsError(str(error)) from error
