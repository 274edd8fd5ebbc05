"""Writing files so that a reader never meets half of one."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path with the same suffix that becomes `path` when the block succeeds.

    The folder is created. If the block raises, `path` keeps what it held and nothing is left over.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """Writes JSON, indented, with `replacing`."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n")
