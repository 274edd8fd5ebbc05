"""Reads the tensors of a state dictionary that `torch.save` wrote, without torch.

The file is a zip archive since version 1.6 (`data.torch_zip`). Older ones, and the Inception of FID
is of that age, hold one pickle after the other: a magic number, the version of the protocol, what
machine wrote it, the dictionary, the keys of its storages; then, for each key, the count of its
numbers in eight bytes and the numbers.
https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

import collections
import dataclasses
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from lgs_jax.data import torch_zip

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT = struct.Struct("<q")
# torch's names of the storages that weights come in.
_STORAGES = {
    "HalfStorage": np.float16,
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
}


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary, by name.

    Raises:
      ValueError: naming the file, if it is broken or holds anything but a dictionary of tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            state = torch_zip.load(epath.Path(path))
            kind, tensor = torch_zip.Tensor, torch_zip.Tensor.read
        else:
            state, tensor = _load_legacy(path)
            kind = _Tensor
    except (
        *(pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, ImportError),
        *(MemoryError, OverflowError, TypeError, ValueError, struct.error),
    ) as error:
        raise ValueError(
            f"{path} is not a readable file of torch.save ({error}); download it again, or convert "
            "it to .safetensors in a place where you trust it"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, kind) for v in state.values()):
        raise ValueError(f"{path} does not hold a state dictionary: names, each with a tensor")
    return {str(name): tensor(value) for name, value in state.items()}


def _load_legacy(path: pathlib.Path) -> tuple[Any, Any]:
    """The containers of a file from before version 1.6, and what reads its tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
            raise ValueError("it does not begin as such a file does")
        if _Unpickler(file).load().get("little_endian") is not True:
            raise ValueError("it was written on a big-endian machine")
        reader = _Unpickler(file)
        state = reader.load()
        storages = {}
        for key in _Unpickler(file).load():
            storages[key] = _read_storage(file, reader.storages[key], size)
    if storages.keys() != reader.storages.keys():
        raise ValueError("numbers of some tensors are missing")
    return state, lambda tensor: tensor.read(storages)


def _read_storage(file: BinaryIO, storage: "_Storage", size: int) -> np.ndarray:
    """The numbers of a storage, which come next in a file of `size` bytes."""
    (count,) = _COUNT.unpack(file.read(_COUNT.size))
    if count != storage.count or not 0 <= count * storage.dtype.itemsize <= size - file.tell():
        raise ValueError(f"storage {storage.key!r} of {count} numbers does not fit into the file")
    return np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)


class _Unpickler(pickle.Unpickler):
    """Knows how torch names tensors and nothing else."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise ValueError(
            f"it names the global {module}.{name}, which could run code; only tensors of numbers "
            "in plain containers are read"
        )

    def persistent_load(self, pid: Any) -> "_Storage":
        kind, dtype, key, _, count, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise ValueError(f"it refers to {kind!r}, expected a whole storage")
        return self.storages.setdefault(key, _Storage(key, dtype, count))


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The numbers that tensors are cut from, further down in the file."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor whose numbers have not been read yet; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        values = storages[self.storage.key][self.offset :]
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values, self.shape, strides, writeable=False).copy()


def _tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor:
    """What torch's `_rebuild_tensor_v2` says, if all of the tensor lies in the storage."""
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor is not described as torch does")
    if min((offset, *shape, *strides)) < 0:
        raise ValueError(f"a tensor has {shape=}, {strides=}, {offset=}")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count > storage.count or (count and last >= storage.count) or offset > storage.count:
        raise ValueError(f"a tensor of shape {shape} does not fit into its storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))
