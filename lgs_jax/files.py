"""Writing files so that a reader never meets half of one, and what broken ones raise."""

import contextlib
import json
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, TypeVar

# A local path, or one of an object store as `etils.epath` has it.
PathType = TypeVar("PathType", bound=pathlib.PurePath)

# What NumPy and zipfile raise on broken .npy, .npz and other zip files.
BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, SyntaxError, MemoryError, OverflowError),
    *(RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error),
)


def local(place: str | os.PathLike, flag: str) -> pathlib.Path:
    """The path of what a flag names on this machine; `~` is the user's home.

    Raises:
      ValueError: if it lies in an object store or at another address.
    """
    if "://" in os.fspath(place):
        raise ValueError(
            f"{flag}={place} is an address, but this command writes to folders of this machine; "
            "give one of these and copy what it holds"
        )
    return pathlib.Path(place).expanduser()


@contextlib.contextmanager
def replacing(path: str | PathType) -> Iterator[PathType]:
    """Gives a temporary path with the same suffix that becomes `path` when the block succeeds.

    The folder is created. If the block raises, `path` keeps what it held and nothing is left over.
    """
    path = pathlib.Path(path) if isinstance(path, str) else path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | pathlib.PurePath, value: Any) -> None:
    """Writes JSON, indented, with `replacing`."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n")


def read_json(path: pathlib.PurePath) -> Any:
    """What a JSON file holds, whichever Unicode it is written in.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("lists or objects in it are nested too deeply") from error
