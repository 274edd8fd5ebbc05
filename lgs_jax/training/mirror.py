"""The small files of a run whose workdir lies in an object store.

Nothing can be appended to an object. metrics.jsonl, train.log, events and pictures are therefore
written into a folder on this machine, and whole files that have changed are copied into the store:
before every save, after every evaluation and at the end. So a checkpoint in the store always finds
the lines that lead up to it. Checkpoints do not pass through here: every process writes its part of
them straight into the store.
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterable

from etils import epath

from lgs_jax.training import workdir as workdirs

# What a run that is continued reads or adds to.
_CONTINUED = ("metrics.jsonl", "timings.jsonl", "train.log")


class Mirror:
    """Copies files between a folder and its likeness in the store.

    Args:
      folder: on this machine.
      store: where its files lie in the end.
    """

    def __init__(self, folder: pathlib.Path, store: pathlib.Path | epath.Path):
        self._folder = folder
        self._store = store
        self._copied: dict[pathlib.Path, tuple[int, int]] = {}

    def pull(self, names: Iterable[str]) -> None:
        """Fetches those of the named files that the store has."""
        for name in names:
            if (self._store / name).exists():
                (self._folder / name).write_bytes((self._store / name).read_bytes())

    def push(self) -> None:
        """Copies the files that are new or have changed since they were last copied."""
        for path in sorted(self._folder.rglob("*")):
            stat = path.stat()
            version = (stat.st_mtime_ns, stat.st_size)
            if path.is_file() and self._copied.get(path) != version:
                target = self._store / path.relative_to(self._folder).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                self._copied[path] = version


def open_files(
    place: pathlib.Path | epath.Path, stack: contextlib.ExitStack, *, primary: bool
) -> tuple[pathlib.Path, Callable[[], None]]:
    """Where the small files of a run are written, and a function that puts them into its workdir.

    Args:
      place: the workdir. On this machine, it is that folder, and the function does nothing.
      stack: copies a last time and removes the folder when it is closed.
      primary: whether this process is the one that writes.
    """
    if not workdirs.in_store(place):
        return place, lambda: None
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lgs_jax_")))
    mirror = Mirror(folder, place)
    mirror.pull(_CONTINUED)
    if not primary:
        return folder, lambda: None
    stack.callback(mirror.push)
    return folder, mirror.push
