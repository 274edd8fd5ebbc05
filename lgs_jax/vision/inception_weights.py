"""The weights of the Inception network: read from the user's file, checked, folded.

Nothing is ever downloaded. The published file is `pt_inception-2015-12-05-6726825d.pth` of
pytorch-fid, the same bytes as `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity; the
names end in the beginning of its SHA-256.
"""

import functools
import pathlib
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from lgs_jax.vision import array_files, inception, torch_files
from lgs_jax.vision.weights import WeightsMissing

PUBLISHED_FILE = "pt_inception-2015-12-05-6726825d.pth"
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

_NETWORK = "the Inception network of FID"
_TORCH_SUFFIXES = (".pth", ".pt")
_EPSILON = 1e-3  # of the batch normalisation
_NORMALISATION = ("weight", "bias", "running_mean", "running_var")


def load(path: str | pathlib.Path, net: inception.Inception) -> Any:
    """The parameters of the network, from a file with the names of pytorch-fid.

    Args:
      path: .pth as published, or .safetensors or .npz with the same names and shapes: for every
        layer `conv.weight` [out, in, h, w] and `bn.{weight, bias, running_mean, running_var}`. The
        classifier (`fc.*`) and counters of batches may be there and are not read.
      net: the network that they are for.

    Raises:
      WeightsMissing: if there is no such file.
      ValueError: if the file is damaged or does not fit.
    """
    path = locate(path)
    read = torch_files.load if path.suffix.lower() in _TORCH_SUFFIXES else array_files.read
    arrays = {
        name: array
        for name, array in read(path).items()
        if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
    }
    arrays = array_files.checked(arrays, file_shapes(net), path, _NETWORK)
    layers = [name.removesuffix(".conv.weight") for name in arrays if name.endswith(".conv.weight")]
    for layer in layers:
        if np.any(arrays[f"{layer}.bn.running_var"] < 0):
            raise ValueError(f"{layer}.bn.running_var in {path} holds negative variances")
    folded = {tuple(layer.split(".")): _folded(arrays, layer) for layer in layers}
    return flax.traverse_util.unflatten_dict(folded)


def locate(path: str | pathlib.Path | None) -> pathlib.Path:
    """The path, if there is a file.

    Raises:
      WeightsMissing: if not, saying which file it should be.
    """
    remedy = (
        f"download {PUBLISHED_FILE} from the release `fid_weights` of "
        "https://github.com/mseitzer/pytorch-fid and give its path, or take another network"
    )
    if path is None:
        raise WeightsMissing(f"no package carries the weights of {_NETWORK}; {remedy}")
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise WeightsMissing(f"there is no weight file {path}; {remedy}")
    return path


def is_known(checksum: str) -> bool:
    """Whether this is the SHA-256 of the published file."""
    return checksum == PUBLISHED_SHA256


def file_shapes(net: inception.Inception) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a weight file must hold for the network."""
    shapes = {}
    for layer, (height, width, inputs, outputs) in _kernel_shapes(net).items():
        shapes[f"{layer}.conv.weight"] = (outputs, inputs, height, width)
        shapes |= {f"{layer}.bn.{name}": (outputs,) for name in _NORMALISATION}
    return shapes


@functools.cache
def _kernel_shapes(net: inception.Inception) -> dict[str, tuple[int, ...]]:
    """The shape [h, w, in, out] of each layer's kernel, by the layer's dotted name."""
    images = jax.ShapeDtypeStruct((1, inception.INPUT_SIZE, inception.INPUT_SIZE, 3), np.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    flat = flax.traverse_util.flatten_dict(params)
    return {".".join(path[:-1]): x.shape for path, x in flat.items() if path[-1] == "kernel"}


def _folded(arrays: dict[str, np.ndarray], layer: str) -> dict[str, np.ndarray]:
    """Kernel and bias of a layer with its batch normalisation in them, computed in float64."""
    gain, shift, mean, variance = (
        arrays[f"{layer}.bn.{name}"].astype(np.float64) for name in _NORMALISATION
    )
    scale = gain / np.sqrt(variance + _EPSILON)
    kernel = arrays[f"{layer}.conv.weight"].transpose(2, 3, 1, 0) * scale
    bias = shift - mean * scale
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
