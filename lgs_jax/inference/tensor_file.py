"""Named arrays and one JSON object in a safetensors file, which may be compressed (.xz).

Nothing in such a file can run code, and other programs can read it, after `xz -d` if need be.
Parameters in bfloat16 shrink by about a third: their bits that tell the size are alike, and only
those that tell the digits are not.
"""

import json
import lzma
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from lgs_jax import files

COMPRESSED = ".safetensors.xz"
SUFFIXES = (".safetensors", COMPRESSED)

# No model of this package is near this size; a small file that claims more is no model.
MAX_BYTES = 8 << 30

_TYPES = {"BF16": jnp.bfloat16, "F16": np.float16, "F32": np.float32, "I32": np.int32}
_TYPES |= {"I64": np.int64}
# Numbers of two bytes: what precedes a byte in its number says more than the byte before it.
_FILTERS = ({"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 1, "pb": 1},)
_LENGTH = 8  # bytes at the start that tell the length of the header


def suffix(path: pathlib.Path) -> str:
    """The one of `SUFFIXES` that a name ends in; "" if it ends otherwise."""
    return next((each for each in SUFFIXES if path.name.endswith(each)), "")


def save(path: pathlib.Path, arrays: Mapping[str, np.ndarray], about: Any, *, entry: str) -> None:
    """Writes arrays, and `about` as JSON under `entry` of the metadata, as the name's end says."""
    content = safetensors.numpy.save(dict(arrays), metadata={entry: json.dumps(about)})
    if suffix(path) == COMPRESSED:
        content = lzma.compress(content, filters=_FILTERS)
    with files.replacing(path) as partial:
        # Not `save_file`, whose files only their owner may read.
        partial.write_bytes(content)


def load(path: pathlib.Path, *, entry: str) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays, and what `save` put under `entry`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is damaged, has no such entry, or holds more than `MAX_BYTES`.
    """
    try:
        content = _decompressed(path) if suffix(path) == COMPRESSED else path.read_bytes()
        arrays = {
            name: np.frombuffer(each["data"], _TYPES[each["dtype"]]).reshape(each["shape"])
            for name, each in safetensors.deserialize(content)
        }
        end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
        about = json.loads(content[_LENGTH:end]).get("__metadata__", {})
        return arrays, json.loads(about[entry])
    except (safetensors.SafetensorError, lzma.LZMAError, EOFError, KeyError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _decompressed(path: pathlib.Path) -> bytes:
    with lzma.open(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it holds more than {MAX_BYTES >> 30} GiB, which is no model")
    return content
