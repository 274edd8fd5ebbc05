"""Reads what `torch.save` wrote, without torch and without running anything that the file names.

Such a file is a zip archive of `<name>/data.pkl`, a pickle of the containers, and of the bytes of
each storage, `<name>/data/<key>`, not compressed. Tensors come out as the place of their bytes, so
that nothing is read that is not used. https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

import collections
import dataclasses
import io
import math
import os
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
from etils import epath

from lgs_jax import files
from lgs_jax.data.images import Span
from lgs_jax.data.report import DataError

# torch's names of the storages that are read.
_STORAGES = {
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "ShortStorage": np.int16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "HalfStorage": np.float16,
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
}
_MAX_PICKLE_BYTES = 2**28
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a file in a zip archive
_AGAIN = "download or export it again"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A contiguous tensor in a file."""

    span: Span
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The numbers."""
        return np.frombuffer(self.span.read(), self.dtype).reshape(self.shape)


def load(path: epath.Path) -> Any:
    """The containers of a file, with a `Tensor` for each tensor.

    Raises:
      DataError: naming the file, if it is missing, broken, or holds anything but numbers, strings,
        tensors of numbers, lists, tuples and dictionaries.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return _Unpickler(path, file, archive).load()
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; {_AGAIN}") from error
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is no file of torch.save from version 1.6 on ({error}); {_AGAIN}"
        ) from error
    except (
        *(pickle.UnpicklingError, AttributeError, IndexError, KeyError, ImportError),
        *files.BROKEN,
    ) as error:
        raise DataError(f"{path} cannot be read ({error}); {_AGAIN}") from error


class _Unpickler(pickle.Unpickler):
    """Knows how torch names tensors and nothing else."""

    def __init__(self, path: epath.Path, file: Any, archive: zipfile.ZipFile):
        pickles = [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it holds {len(pickles)} files <name>/data.pkl, expected one")
        self._folder = pickles[0].removesuffix("data.pkl")
        self._path, self._file, self._archive = path, file, archive
        if self._folder + "byteorder" in archive.namelist():
            with archive.open(self._folder + "byteorder") as entry:
                order = entry.read(20)
            if order != b"little":
                raise ValueError(f"its byte order is {order!r}, expected little")
        if archive.getinfo(pickles[0]).file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"its {pickles[0]} is larger than {_MAX_PICKLE_BYTES} bytes")
        super().__init__(io.BytesIO(archive.read(pickles[0])))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _StorageName(name)
        raise ValueError(
            f"it names the global {module}.{name}, which could run code; only tensors of numbers "
            "in plain containers are read"
        )

    def persistent_load(self, pid: Any) -> "_Storage":
        kind, storage, key, *_ = pid
        if kind != "storage" or not isinstance(storage, _StorageName):
            raise ValueError(f"it refers to {kind!r}, expected a storage")
        info = self._archive.getinfo(f"{self._folder}data/{key}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its {info.filename} is compressed, which torch does not do")
        self._file.seek(info.header_offset)
        header = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
        begin = info.header_offset + _LOCAL_HEADER.size + header[-2] + header[-1]
        if begin + info.file_size > self._file.seek(0, os.SEEK_END):
            raise ValueError(f"its {info.filename} reaches beyond the end of the file")
        span = Span(str(self._path), begin, info.file_size)
        return _Storage(span, np.dtype(_STORAGES[storage.name]))


@dataclasses.dataclass(frozen=True)
class _StorageName:
    """Stands for a class of torch."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The bytes that tensors are cut from."""

    span: Span
    dtype: np.dtype


def _tensor(storage: _Storage, offset: int, shape: tuple, stride: tuple, *_: Any) -> Tensor:
    """What torch's `_rebuild_tensor_v2` says, for contiguous tensors."""
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor has no storage")
    expected = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    if any(size > 1 and a != b for size, a, b in zip(shape, stride, expected, strict=True)):
        raise ValueError(f"a tensor of shape {shape} has strides {stride}, expected {expected}")
    itemsize, count = storage.dtype.itemsize, math.prod(shape)
    if min((offset, *shape)) < 0 or (offset + count) * itemsize > storage.span.length:
        raise ValueError(f"a tensor of shape {shape} does not fit into its storage")
    span = Span(storage.span.path, storage.span.offset + offset * itemsize, count * itemsize)
    return Tensor(span, storage.dtype, tuple(shape))
