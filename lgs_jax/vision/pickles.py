"""Reads arrays out of a pickle file without letting the file run anything.

A pickle is a program: it may name any importable function and call it. Here the only names that
resolve are those by which NumPy rebuilds an array, and even these stand for our own substitutes.
"""

import io
import pathlib
import pickle
from typing import Any

import numpy as np


class ForbiddenPickle(ValueError):
    """A pickle that asks for more than NumPy arrays."""


class _NdarrayName:
    """Stands for `numpy.ndarray` inside a pickle: a name to compare with, not to call."""


def _empty_array(kind: type, shape: tuple[int, ...], dtype: bytes | str) -> np.ndarray:
    """What NumPy's `_reconstruct` does: an array whose state the pickle sets next."""
    if kind is not _NdarrayName:
        raise ForbiddenPickle(f"only plain NumPy arrays may be rebuilt, not {kind!r}")
    if shape != (0,):
        raise ForbiddenPickle(f"an array must be rebuilt from an empty one, not from {shape=}")
    return np.empty(0, np.dtype(dtype.decode() if isinstance(dtype, bytes) else dtype))


def _dtype(code: str, *flags: bool) -> np.dtype:
    """A number type by its code, such as "f4"; structured and object types are refused."""
    dtype = np.dtype(code) if isinstance(code, str) and len(code) <= 3 else None
    if dtype is None or dtype.kind not in "fiub":
        raise ForbiddenPickle(f"the type {code!r} of an array is not a plain number")
    # The pickle then calls __setstate__ on it, which must not touch NumPy's shared instances.
    return np.dtype(dtype, copy=True)


_ALLOWED = {
    ("numpy", "ndarray"): _NdarrayName,
    ("numpy", "dtype"): _dtype,
    # NumPy renamed the module in version 2; importing the old name warns.
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows the names in `_ALLOWED` and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ForbiddenPickle(
                f"it names the global {module}.{name}, but only NumPy arrays in plain containers "
                "are read, because any other name could run code; convert it to .safetensors or "
                ".npz in a place where you trust it"
            )
        return _ALLOWED[module, name]


def load_arrays(path: pathlib.Path) -> Any:
    """The containers and NumPy arrays pickled in a file.

    Raises:
      ForbiddenPickle: if the file refers to anything else; nothing of it is imported or run.
      ValueError: if the file is no whole pickle.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except ForbiddenPickle as error:
        raise ForbiddenPickle(f"refused to read the pickle {path}: {error}") from None
    except (
        *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError),
        *(MemoryError, OverflowError, TypeError, UnicodeDecodeError, ValueError),
    ) as error:
        # What the standard library documents for broken pickles, and what NumPy raises on them.
        raise ValueError(
            f"{path} is not a readable pickle of NumPy arrays ({type(error).__name__}: {error})"
        ) from error
