"""The folder of a run: is it writable, is it ours, is it free?

config.json   metrics.jsonl   train.log   results.json
checkpoints/step_00001000/   tensorboard/   visuals/step_00001000/

It lies on this machine or, as gs://bucket/run, in Google Cloud Storage (see `mirror`).
"""

import contextlib
import errno
import fnmatch
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from etils import epath

from lgs_jax.data import places

CHECKPOINTS = "checkpoints"

# What may differ between a checkpoint and the run that continues it: how long, how often, what is
# measured, where files lie and on how many devices; nothing that changes what a step computes. (A
# new num_steps stretches the cosine from there on.)
MAY_CHANGE = (
    "training.num_steps",
    "training.log_every",
    "training.eval_*",
    "training.save_*",
    "training.keep_checkpoints",
    "training.visualize",
    "training.tensorboard",
    "training.max_nonfinite",
    "training.stop_check_every",
    "training.stall_seconds",
    "training.heartbeat_seconds",
    "profile",
    "mesh.*",
    "metrics.*",
    "sampler.*",
    "rendering.*",  # the same images up to rounding
    "autoencoder",  # where it lies; which one it is, its latents' statistics tell
    "latents",  # encoded beforehand or at every step: the same up to rounding
    "data.root",
    "data.num_workers",
    "data.num_threads",
    "data.cache_mb",
    "loss.perceptual_weights",
)

_ABSENT = "(absent)"

_STORE = "gs://"


class WorkdirError(RuntimeError):
    """The workdir cannot be used; the message says why and what to do."""


def as_path(place: str | os.PathLike) -> pathlib.Path | epath.Path:
    """The absolute path of a folder on this machine, or of one in the object store (gs://).

    Raises:
      WorkdirError: for another kind of address.
    """
    text = os.fspath(place)
    if text.startswith(_STORE):
        return epath.Path(text)
    if "://" in text:
        raise WorkdirError(
            f"workdir {text} is neither a folder nor in Google Cloud Storage ({_STORE}bucket/run); "
            "give one of these, or mount that store and give the folder"
        )
    return pathlib.Path(text).expanduser().absolute()


def default(config_name: str) -> str:
    """runs/vae for configs/vae.py, runs/vae-small for configs/vae.py:small."""
    file, _, variant = config_name.partition(":")
    return str(pathlib.Path("runs", "-".join(filter(None, (pathlib.Path(file).stem, variant)))))


def in_store(folder: pathlib.Path | epath.Path) -> bool:
    """Whether a folder lies in the object store."""
    return os.fspath(folder).startswith(_STORE)


def prepare(workdir: str | os.PathLike, *, primary: bool = True) -> pathlib.Path | epath.Path:
    """Makes the workdir and proves that it can be written, before anything costs time.

    Raises:
      WorkdirError: if the folder cannot be made or written.
    """
    folder = as_path(workdir)
    if not primary:
        return folder
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except ImportError as error:
        raise WorkdirError(
            f"workdir {folder} needs the package gcsfs; install it: pip install 'lgs_jax[gcs]'"
        ) from error
    # A disk raises OSError; the store's client has types of its own: no bucket, no credentials.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise WorkdirError(
            f"workdir {folder} cannot be written ({reason}); "
            "choose another with --workdir or change its permissions"
        ) from error
    return folder


def lock(workdir: pathlib.Path) -> TextIO:
    """Claims a workdir on this machine for as long as the returned file is open: `places.claim`.

    Raises:
      WorkdirError: if another process is training in it.
    """
    try:
        return places.claim(workdir)
    except BlockingIOError as error:
        raise WorkdirError(
            f"another run is training in {workdir}; wait for it, stop it, or choose another folder "
            "with --workdir"
        ) from error


@contextlib.contextmanager
def disk_full_explained(workdir: str | os.PathLike) -> Iterator[None]:
    """Raises WorkdirError where the block cannot write for want of room, whatever it writes."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise WorkdirError(
            f"a file of the run in {workdir} cannot be written ({error}); make room there, then "
            "the same command continues from the last checkpoint"
        ) from error


def check_config(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> list[str]:
    """Compares the configuration of a checkpoint with that of the run that wants to continue it.

    Returns:
      one line for every difference that is allowed (`MAY_CHANGE`).

    Raises:
      WorkdirError: that lists every key that differs and may not.
    """
    before, after = _flatten(found), _flatten(json.loads(json.dumps(wanted)))
    allowed, refused = [], []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if old != new or type(old) is not type(new):
            free = any(fnmatch.fnmatch(key, pattern) for pattern in MAY_CHANGE)
            (allowed if free else refused).append(f"{key}: {old!r} -> {new!r}")
    if refused:
        raise WorkdirError(
            f"{where} belongs to a run with another configuration:\n  "
            + "\n  ".join(refused)
            + "\nChoose another --workdir, restore these values, or delete the folder to start "
            f"over. Free to change are {', '.join(MAY_CHANGE)}."
        )
    return allowed


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty group counts as a value."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
