"""Checkpoints: written by the trainer, read by the trainer and by inference.

A checkpoint is a folder `checkpoints/step_00001000` with the items `train` (the whole state), `ema`
(the averaged parameters alone), `config` (JSON: it describes its own model) and `run` (JSON: time
and versions). A folder gets its name only when it is complete (in an object store: its file
commit_success.txt), so a killed save leaves nothing that could be mistaken for a checkpoint.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, SingleDeviceSharding

from lgs_jax.training import mesh as meshes
from lgs_jax.training import older_configs, processes
from lgs_jax.training import state as states
from lgs_jax.training import workdir as workdirs

_PREFIX = "step"
_DIGITS = 8
_TRAIN = "train"  # the item that only the trainer needs
# Sees complete checkpoints only: on a disk by their name, in an object store by a last file.
_NAMES = ocp.path.step.standard_name_format(step_prefix=_PREFIX, step_format_fixed_length=_DIGITS)

# TensorStore appends its whole specification to a message, as " [name='...']".
_REASON_LENGTH = 300
_ANNOTATIONS = re.compile(r" \[\w+='.*", re.DOTALL)


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, unfit or cannot be written; the message says what to do."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
      folder: where they lie; made if absent.
      keep: how many of the newest are kept.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int):
        self.folder = folder
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            step_name_format=_NAMES,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(folder, options=options)
        self._saving = 0  # the step that is written in the background, or was

    def __enter__(self) -> "Checkpoints":
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_silent_threads())
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # Where a save has failed, closing fails too, and has nothing to add.
        with self._stack, contextlib.suppress(*[Exception] if kind else []):
            self._manager.close()

    def save(
        self,
        step: int,
        state: states.TrainState,
        config: Mapping[str, Any],
        run: Mapping[str, Any],
    ) -> None:
        """Copies the state to the host and writes it in the background.

        The copy is complete when this returns, so the state may be donated to the next step.

        Raises:
          CheckpointError: if this save, or the one before, failed.
        """
        self.wait()
        self._saving = step
        items = ocp.args.Composite(
            train=ocp.args.StandardSave(_fields(state)),
            ema=ocp.args.StandardSave(state.ema),
            config=ocp.args.JsonSave(dict(config)),
            run=ocp.args.JsonSave(dict(run)),
        )
        with self._explained():
            # force: the loop has decided; Orbax's own cadence has no say.
            self._manager.save(step, args=items, force=True)

    def check(self) -> None:
        """Raises CheckpointError if the last save has failed; does not wait for it."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is complete; raises CheckpointError if it failed."""
        with self._explained():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns whatever the block raises into the failure of the save at hand."""
        try:
            yield
        # A disk raises OSError, TensorStore ValueError, an object store's client types of its own.
        except Exception as error:
            if jax.process_count() > 1 and processes.from_backend(error):
                raise  # another process is lost, as the loop says
            steps = steps_in(self.folder)
            kept = (
                f"continues from step {steps[-1]}" if steps else "starts over: none was saved yet"
            )
            raise CheckpointError(
                f"the checkpoint of step {self._saving} cannot be written into {self.folder} "
                f"({_cause(error)}); make room or mend what is wrong there, then the same command "
                f"{kept}"
            ) from error

    def restore(self, step: int, abstract: states.TrainState) -> states.TrainState:
        """The state saved at a step, straight into the shardings of `abstract`.

        Raises:
          CheckpointError: if it cannot be read or does not fit.
        """
        args = ocp.args.Composite(train=ocp.args.StandardRestore(_fields(abstract)))
        if not (_path(self.folder, step) / _TRAIN).is_dir():
            raise CheckpointError(
                f"{_path(self.folder, step)} holds parameters alone, as unpack-model writes them, "
                "and no training to be continued; give another workdir, and this one as "
                "--config.training.init_from"
            )
        try:
            return states.TrainState(**self._manager.restore(step, args=args)["train"])
        # Orbax, TensorStore and JSON raise many types for a damaged file; all end the run here.
        except Exception as error:
            raise _unreadable(self.folder, step, error) from error


def write_params(folder: pathlib.Path, step: int, config: Mapping[str, Any], params: Any) -> None:
    """Writes a checkpoint for inference alone: `ema` and `config`, nothing to continue from."""
    items = ocp.args.Composite(
        ema=ocp.args.StandardSave(params), config=ocp.args.JsonSave(dict(config))
    )
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        writer.save(_path(folder, step).absolute(), items)


def steps_in(folder: pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, oldest first; looks only, changes nothing."""
    if not folder.is_dir():
        return []
    return sorted(found.step for found in _NAMES.find_all(folder))


def read_config(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """The configuration of a checkpoint, with the values of today.

    Raises:
      CheckpointError: if it cannot be read.
    """
    return older_configs.upgraded(_read_json(folder, step, "config"))


def read_run(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """What a checkpoint says of its run: `seconds` until then, and versions.

    Raises:
      CheckpointError: if it cannot be read.
    """
    return _read_json(folder, step, "run")


def restore_params(
    source: str | os.PathLike, *, step: int | None = None, mesh: Mesh | None = None
) -> tuple[dict[str, Any], Any]:
    """The configuration and the averaged parameters of a run: what inference needs.

    Args:
      source: a workdir, its folder `checkpoints`, or the folder of one checkpoint.
      step: which checkpoint; the newest if None.
      mesh: where the parameters go, as the trainer would place them; None: the first local device.
        The number of devices need not be that of the training.

    Returns:
      (config, params).

    Raises:
      CheckpointError: if there is no such checkpoint or it cannot be read.
    """
    folder, step = locate(source, step)
    config = read_config(folder, step)
    try:
        path = epath.Path(_path(folder, step) / "ema")
        with contextlib.closing(ocp.StandardCheckpointHandler()) as reader:
            abstract = _abstract_like(reader.metadata(path).tree, mesh)
            return config, reader.restore(path, args=ocp.args.StandardRestore(abstract))
    except Exception as error:
        raise _unreadable(folder, step, error) from error


def locate(source: str | os.PathLike, step: int | None = None) -> tuple[pathlib.Path, int]:
    """The folder of checkpoints and the step that `source` and `step` mean; see `restore_params`.

    Raises:
      CheckpointError: if there is none.
    """
    path = workdirs.as_path(source)
    number = path.name.removeprefix(f"{_PREFIX}_")
    if path.name != number and number.isdigit() and path.is_dir():
        if step not in (None, int(number)):
            raise CheckpointError(f"{path} is one checkpoint, but {step=} was asked for; drop one")
        return path.parent, int(number)
    folder = path / workdirs.CHECKPOINTS if (path / workdirs.CHECKPOINTS).is_dir() else path
    steps = steps_in(folder)
    if not steps:
        raise CheckpointError(
            f"no checkpoint in {path}; expected a training workdir, its folder "
            f"{workdirs.CHECKPOINTS!r}, or one checkpoint {_PREFIX}_{'0' * _DIGITS}"
        )
    if step is not None and step not in steps:
        raise CheckpointError(f"no checkpoint of {step=} in {folder}; there are {steps}")
    return folder, steps[-1] if step is None else step


def _read_json(folder: pathlib.Path, step: int, item: str) -> dict[str, Any]:
    try:
        reader = ocp.JsonCheckpointHandler()
        return reader.restore(epath.Path(_path(folder, step) / item), ocp.args.JsonRestore())
    except Exception as error:
        raise _unreadable(folder, step, error) from error


def _fields(state: states.TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _path(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / _NAMES.build_name(step)


def _abstract_like(metadata: Any, mesh: Mesh | None) -> Any:
    if mesh is None:
        device = SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: device, metadata)
    else:
        shardings = meshes.state_shardings(mesh, metadata)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        metadata,
        shardings,
    )


@contextlib.contextmanager
def _silent_threads() -> Iterator[None]:
    """Keeps Orbax's threads from printing tracebacks: `Checkpoints` raises what they end with."""

    def is_no_failure(record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in pathlib.Path(record.pathname).parts)

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":  # TensorStore's, after a failure
            before(unraisable)

    logger, before = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(is_no_failure)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        logger.removeFilter(is_no_failure)


def _cause(error: Exception) -> str:
    """Why something could not be written, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = _ANNOTATIONS.sub("", str(error)).strip()
    of_tensorstore = text != str(error).strip()
    reason = text.rpartition(": ")[2] if of_tensorstore else text[:_REASON_LENGTH]
    return reason or type(error).__name__


def _unreadable(folder: pathlib.Path, step: int, error: Exception) -> CheckpointError:
    path = _path(folder, step)
    others = [other for other in steps_in(folder) if other != step]
    older = f"use the one of step {others[-1]}" if others else "start over; there is no other one"
    reason = str(error).strip()[:_REASON_LENGTH] or type(error).__name__
    return CheckpointError(
        f"checkpoint {path} cannot be read: it is damaged, or the model has changed.\n"
        f"Delete or move that folder to {older}.\nThe reason: {reason}"
    )
