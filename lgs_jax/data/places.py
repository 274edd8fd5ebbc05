"""Where data lie: folders on disk, network file systems, or object stores (gs://, s3://).

Everything goes through `etils.epath`, as the checkpoints do; a place on disk behaves like a
`pathlib.Path`.
"""

import contextlib
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import fsspec
from etils import epath

from lgs_jax.data.report import DataError

# Names the folder of what was fetched or computed once; see `cache`.
CACHE_VARIABLE = "LGS_JAX_DATA_CACHE"
# Object stores, and the extra of this package that reads them.
STORES = {"gs": "gcs", "s3": "s3"}
# In a folder that a process claims; it stays there, empty.
LOCK = ".lock"


def place(root: str | os.PathLike) -> epath.Path:
    """The place that a user named; `~` is the user's home.

    Raises:
      DataError: if it lies in a store that is not known, or whose package is not installed.
    """
    text = os.fspath(root)
    if is_remote(text):
        scheme = text.partition("://")[0]
        if scheme not in STORES:
            known = ", ".join(f"{name}://" for name in STORES)
            raise DataError(f"{text} lies in no store that can be read; expected a path or {known}")
        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise DataError(
                f"{text} needs a package that is not installed ({error}); "
                f"pip install 'lgs_jax[{STORES[scheme]}]'"
            ) from error
        return epath.Path(root)
    return epath.Path(root).expanduser()


def cache() -> Path:
    """The folder of what was fetched or computed once; it need not exist yet."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/lgs_jax/data").expanduser()


def is_remote(path: str) -> bool:
    """Whether it lies in an object store."""
    return "://" in path


def claim(folder: Path | epath.Path) -> TextIO:
    """Claims a folder on disk for as long as the returned file is open.

    A killed process lets go of it. Systems other than Unix have no such lock: nothing is claimed.

    Raises:
      BlockingIOError: if another process has claimed it.
    """
    lock = os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666))
    if os.name == "posix":
        import fcntl  # absent elsewhere

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise
    return lock


@contextlib.contextmanager
def locked(folder: epath.Path) -> Iterator[None]:
    """Claims a folder for the block, unless it lies in an object store, which has no such lock.

    Raises:
      DataError: if another process has claimed it.
    """
    if is_remote(str(folder)):
        yield
        return
    try:
        lock = claim(folder)
    except BlockingIOError as error:
        raise DataError(
            f"another process is writing to {folder}; wait for it, stop it, or choose another "
            "folder"
        ) from error
    with lock:
        yield


def child(folder: epath.Path, relative: str) -> epath.Path:
    """`folder / relative`; `..` is resolved by name where there are only names."""
    text = str(folder)
    if not is_remote(text):
        return folder / relative
    scheme, _, rest = text.partition("://")
    return epath.Path(f"{scheme}://{posixpath.normpath(posixpath.join(rest, relative))}")


def is_inside(folder: epath.Path, relative: str, *, or_beside: bool = False) -> bool:
    """Whether `child(folder, relative)` lies in the folder by its name, wherever links lead.

    With `or_beside` the folder around it will do as well, unless that is all of a disk or store.
    """
    text = str(folder)
    whole = f"/{text.partition('://')[2]}" if is_remote(text) else str(Path(text).absolute())
    top = posixpath.normpath(whole)
    around = posixpath.dirname(top)
    limit = around if or_beside and around != "/" else top
    target = posixpath.normpath(posixpath.join(top, relative))
    return posixpath.commonpath([limit, target]) == limit


def read_span(path: str, offset: int, length: int) -> bytes:
    """`length` bytes from `offset` on; fewer where the file ends before."""
    if is_remote(path):
        store, inside = fsspec.core.url_to_fs(path)
        return store.cat_file(inside, start=offset, end=offset + length)
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(length)
