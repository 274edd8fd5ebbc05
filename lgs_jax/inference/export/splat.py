"""Gaussian scenes as .splat files: 32 bytes each, no header (antimatter15/splat).

Position and scale are float32; RGB with opacity, and the quaternion wxyz as round(128 q) + 128, are
bytes. Viewers draw from the first on while the file is still loading, so the largest and most
opaque come first. Axes and units are those of the scene.
"""

import pathlib

import numpy as np

from lgs_jax import files
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import fields, ply

_RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def save_splat(path: str | pathlib.Path, scene: Gaussians) -> pathlib.Path:
    """Writes one scene (N Gaussians, RGB) and returns the path.

    Colours outside [0, 1] are cut off, since the format has 8 bits for them. The file appears only
    when complete.

    Raises:
      ValueError: if the scene is batched, is not RGB, or holds values that the format cannot.
    """
    means, quats, scales, opacities, colors = ply.host_values(path, scene)
    order = np.argsort(-np.prod(scales, axis=-1) * opacities, kind="stable")
    records = np.zeros(len(means), _RECORD)
    records["mean"], records["scale"] = means, scales
    rgba = np.concatenate([colors, opacities[:, None]], axis=-1)
    records["rgba"] = np.rint(255 * np.clip(rgba, 0, 1))
    unit = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    records["quat"] = np.clip(np.rint(128 * unit + 128), 0, 255)
    with files.replacing(path) as partial:
        partial.write_bytes(records[order].tobytes())
    return pathlib.Path(path)


def load_splat(path: str | pathlib.Path) -> Gaussians:
    """Reads a scene of N Gaussians.

    Raises:
      ValueError: naming the file, if its length or its values are none of this format.
    """
    path = pathlib.Path(path)
    data = path.read_bytes()
    if not data or len(data) % _RECORD.itemsize:
        raise ValueError(
            f"{path} has {len(data)} bytes, expected a positive multiple of {_RECORD.itemsize}; it "
            "is no .splat file, or is cut short"
        )
    records = np.frombuffer(data, _RECORD)
    rgba = records["rgba"].astype(np.float32) / 255
    return fields.from_file(
        path,
        means=records["mean"],
        quats=(records["quat"].astype(np.float32) - 128) / 128,
        scales=records["scale"],
        opacities=rgba[:, 3],
        colors=rgba[:, :3],
    )
