"""Reads named arrays from weight files and checks that they are those of a network."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from lgs_jax import files

SUFFIXES = (".safetensors", ".npz")


def checksum(path: pathlib.Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors or .npz file, unchecked.

    Raises:
      ValueError: if it is damaged, or has neither of these endings.
    """
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is not a readable .safetensors file ({error})") from error
    if suffix != ".npz":
        raise ValueError(
            f"{path} has the unknown ending {suffix!r}; expected {' or '.join(SUFFIXES)}"
        )
    with path.open("rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as file:
                return dict(file)
        except files.BROKEN as error:
            raise ValueError(f"{path} is not a readable .npz file ({error})") from error


def checked(
    arrays: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    path: pathlib.Path,
    network: str,
) -> dict[str, np.ndarray]:
    """The arrays in float32, if names, shapes and values are those of the network.

    Args:
      arrays: what was read from `path`.
      shapes: the names and shapes that the network expects.
      path: for messages.
      network: how messages call the network.

    Raises:
      ValueError: naming the file and the first thing in it that does not fit.
    """
    missing, extra = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
    if missing or extra:
        raise ValueError(f"{path} does not hold {network}: missing {missing}, unknown {extra}")
    for name, shape in shapes.items():
        array = arrays[name]
        if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"{name} in {path} is not an array of floating point numbers")
        if array.shape != shape:
            raise ValueError(
                f"{name} in {path} has shape {array.shape}, but {network} expects {shape}"
            )
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} in {path} holds values that are not finite")
    return {name: np.asarray(arrays[name], np.float32) for name in shapes}
