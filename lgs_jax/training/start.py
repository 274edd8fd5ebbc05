"""From a workdir and settings to a state on the devices: what happens before the first step."""

import contextlib
import dataclasses
import functools
import pathlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from lgs_jax import files
from lgs_jax.core import streams
from lgs_jax.training import checkpoint, logging, mirror, step, workdir
from lgs_jax.training import mesh as meshes
from lgs_jax.training import optimizer as optimizers
from lgs_jax.training import state as states
from lgs_jax.training.settings import TrainSettings


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is ready to take its next step.

    Attributes:
      task: a `tasks.task.Task`.
      settings: how to train.
      config: the whole configuration.
      place: the workdir, on this machine or in an object store.
      files: the folder for all but the checkpoints, on this machine.
      publish: puts what is in `files` into the workdir, if that is elsewhere.
      mesh: the devices.
      state: the state of `start_step`.
      start_step: steps already done.
      seconds_before: wall time of the run before this start.
      checkpoints: of this run.
      log: of this run.
    """

    task: Any
    settings: TrainSettings
    config: Mapping[str, Any]
    place: pathlib.Path | epath.Path
    files: pathlib.Path
    publish: Callable[[], None]
    mesh: Mesh
    state: states.TrainState
    start_step: int
    seconds_before: float
    checkpoints: checkpoint.Checkpoints
    log: logging.RunLog


def open_run(
    task: Any,
    settings: TrainSettings,
    folder: str | pathlib.Path,
    config: Mapping[str, Any],
    stack: contextlib.ExitStack,
) -> Run:
    """Claims the workdir, makes the mesh and places the state; `stack` closes all of it.

    Whatever can be found wrong without the devices is found first. See `loop.train` for the errors.
    """
    primary = jax.process_index() == 0
    place = workdir.prepare(folder, primary=primary)
    if primary and not workdir.in_store(place):
        stack.enter_context(workdir.lock(place))
    mesh = meshes.make(settings.mesh)
    meshes.check_batch_size(mesh, settings.batch_size, settings.accumulate_steps)
    meshes.check_batch_size(mesh, settings.evaluation_batch_size)
    stack.enter_context(jax.set_mesh(mesh))

    start_step, seconds_before, notes = _so_far(place, settings, config)
    checkpoints = checkpoint.Checkpoints(
        place / workdir.CHECKPOINTS, keep=settings.keep_checkpoints
    )
    stack.enter_context(checkpoints)
    abstract = abstract_state(task, settings, mesh)
    state, origin = _place_state(task, settings, abstract, mesh, checkpoints, start_step)

    local, publish = mirror.open_files(place, stack, primary=primary)
    log = logging.RunLog(
        local, start_step=start_step, tensorboard=settings.tensorboard, primary=primary
    )
    stack.enter_context(log)
    if primary:
        files.write_json(local / "config.json", dict(config))
    log.say(task.describe(abstract.params))
    log.say(f"workdir {place} | {mesh.size} {jax.devices()[0].device_kind} device(s) | {origin}")
    if start_step < settings.num_steps:
        log.say(_next_pictures(settings, place))
    for note in notes:
        log.say(f"changed since the checkpoint: {note}")
    return Run(
        task=task,
        settings=settings,
        config=config,
        place=place,
        files=local,
        publish=publish,
        mesh=mesh,
        state=state,
        start_step=start_step,
        seconds_before=seconds_before,
        checkpoints=checkpoints,
        log=log,
    )


def _so_far(
    place: pathlib.Path | epath.Path, settings: TrainSettings, config: Mapping[str, Any]
) -> tuple[int, float, list[str]]:
    """Steps and seconds that the run has behind it, and what has changed since, a line for each.

    Raises:
      WorkdirError: if what was saved does not fit, or the processes do not see the same of it.
    """
    saved = place / workdir.CHECKPOINTS
    steps = checkpoint.steps_in(saved)
    last = steps[-1] if steps else 0
    if jax.process_count() > 1:
        _check_shared(place, last)
    if not steps:
        return 0, 0.0, []
    notes = workdir.check_config(checkpoint.read_config(saved, last), config, str(place))
    seconds = checkpoint.read_run(saved, last)["seconds"]
    if last > settings.num_steps:
        raise workdir.WorkdirError(
            f"{place} is at step {last}, beyond num_steps={settings.num_steps}; "
            "raise config.training.num_steps or choose another --workdir"
        )
    return last, seconds, notes


def _check_shared(place: pathlib.Path | epath.Path, step: int) -> None:
    """Raises WorkdirError, in all processes, unless they see one folder with the same checkpoints.

    Otherwise each would save its part where no other finds it, which only a restart would show.
    """
    number = int(multihost_utils.broadcast_one_to_all(np.int32(secrets.randbelow(2**31))))
    probe = place / f".probe-{number}"
    if jax.process_index() == 0:
        probe.write_text("")
    multihost_utils.sync_global_devices("a file for all to see")
    seen = multihost_utils.process_allgather(np.array([probe.exists(), step], np.int32))
    if jax.process_index() == 0:
        probe.unlink()
    if blind := [i for i, (exists, _) in enumerate(seen) if not exists]:
        raise workdir.WorkdirError(
            f"the processes {blind} of {len(seen)} do not see what process 0 writes into {place}; "
            "choose a --workdir on storage that all machines share, or in gs://"
        )
    if len(set(seen[:, 1])) > 1:
        raise workdir.WorkdirError(
            f"the processes see different checkpoints in {place}: the newest are of the steps "
            f"{seen[:, 1].tolist()}; wait until the shared storage has settled and start again"
        )


def abstract_state(task: Any, settings: TrainSettings, mesh: Mesh) -> states.TrainState:
    """Shapes, types and shardings of the state; nothing is computed."""
    optimizer = optimizers.make(settings.optimizer)
    shapes = jax.eval_shape(
        lambda key: states.create(task.init(key), optimizer), streams.root_key(settings.seed)
    )
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        meshes.state_shardings(mesh, shapes),
    )


def jit_step(
    task: Any, settings: TrainSettings, mesh: Mesh, state: states.TrainState
) -> jax.stages.Wrapped:
    """The training step (state, batch, constants) -> (state, metrics), to be traced or compiled.

    Args:
      task: a `tasks.task.Task`.
      settings: how to train.
      mesh: the devices.
      state: arrays or `abstract_state`; only the shardings are looked at. The step donates it.
    """
    function = functools.partial(
        step.train_step,
        loss_fn=task.loss,
        optimizer_settings=settings.optimizer,
        num_steps=settings.num_steps,
        ema_decay=settings.ema_decay,
        accumulate_steps=settings.accumulate_steps,
        seed=settings.seed,
    )
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(function, donate_argnums=0, out_shardings=(shardings, meshes.replicated(mesh)))


def _next_pictures(settings: TrainSettings, place: pathlib.Path | epath.Path) -> str:
    """When held-out scenes are looked at."""
    often = f"every {settings.eval_every} steps and " if settings.eval_every else ""
    drawn = f" and drawn into {place / 'visuals'}" if settings.visualize else ""
    return f"held-out scenes are scored{drawn} {often}at the end"


def _place_state(
    task: Any,
    settings: TrainSettings,
    abstract: states.TrainState,
    mesh: Mesh,
    checkpoints: checkpoint.Checkpoints,
    start_step: int,
) -> tuple[states.TrainState, str]:
    """The first state, straight into its shardings, and where it came from."""
    if start_step:
        return checkpoints.restore(start_step, abstract), f"continues from step {start_step}"
    optimizer = optimizers.make(settings.optimizer)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    key = streams.stream_key(streams.root_key(settings.seed), "init")
    if settings.init_from:
        _, params = checkpoint.restore_params(settings.init_from, mesh=mesh)
        told = f"starts from the parameters of {settings.init_from}"
        if added := _layers_to_add(params, abstract.params, settings):
            told = f"{told}, and random {', '.join(added)}"

        def continued(params: Any) -> states.TrainState:
            params = _merge(params, task.init(key)) if added else params
            return states.create(params, optimizer)

        return jax.jit(continued, out_shardings=shardings)(params), told
    create = jax.jit(lambda key: states.create(task.init(key), optimizer), out_shardings=shardings)
    return create(key), f"starts from random parameters, seed {settings.seed}"


def _layers_to_add(params: Any, expected: Any, settings: TrainSettings) -> list[str]:
    """Names of the layers that `params` lacks, if `settings` let them be random.

    Raises:
      CheckpointError: if parameters are missing otherwise, or have other names or shapes.
    """
    found, wanted = (
        {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(t)}
        for t in (params, expected)
    )
    different = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if settings.init_missing and not any(k in found for k in different):
        return sorted({_layer(k) for k in different})
    if different:
        lines = [f"{k}: {found.get(k)} there, {wanted.get(k)} here" for k in different[:10]]
        raise checkpoint.CheckpointError(
            f"the parameters in init_from={settings.init_from!r} do not fit this model:\n  "
            + "\n  ".join(lines)
            + "\nGive config.model the values of that run, or another init_from; layers that it "
            "lacks may start at random with --config.training.init_missing=True."
        )
    return []


def _layer(path: str) -> str:
    """The layer of a parameter, as in "trunk/middle_block_1" of "['trunk']['middle_block_1']...".

    A layer is named by its two outermost modules.
    """
    return "/".join(path.strip("[]'").split("']['")[:2])


def _merge(params: Any, fresh: Any) -> Any:
    """`params` with the entries of `fresh` that it lacks; nested dicts."""
    if not isinstance(fresh, dict):
        return params
    return fresh | {name: _merge(value, fresh[name]) for name, value in params.items()}
