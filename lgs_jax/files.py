"""Writing files so that a reader never meets half of one."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any, TypeVar

# A local path, or one of an object store as `etils.epath` has it.
PathType = TypeVar("PathType", bound=pathlib.PurePath)


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
