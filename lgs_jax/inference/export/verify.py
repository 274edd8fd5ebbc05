"""Is a file what it was made from? Compares the fields, and pictures from around the scene."""

import numpy as np

from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference import splat_views
from lgs_jax.metrics.image import psnr
from lgs_jax.rendering.api import render

# What formats of 8 bits must reach in every picture; differences are invisible from 40 dB on.
MIN_PSNR_DB = 45.0

NUM_VIEWS = 4
_SIZE = 256

# (relative, absolute) errors of one rounding to float32 of what is stored: of logarithms of scales,
# of logits, which also keep a margin from opacities 0 and 1, of harmonics, of unit quaternions.
_ROUNDING = {
    "means": (0.0, 0.0),
    "quats": (0.0, 1e-6),
    "scales": (4e-6, 0.0),
    "opacities": (0.0, 1.5e-6),
    "colors": (1e-6, 5e-7),
}


def compare_pictures(scene: Gaussians, other: Gaussians, *, up: str = "-y") -> list[float]:
    """PSNR (dB) between two scenes in each of `NUM_VIEWS` pictures along an arc around the first.

    Args:
      scene: the one that the arc goes around.
      other: the one to compare.
      up: where up is; a name in `splat_views.UPS`.

    Raises:
      ValueError: if `up` is unknown, or a picture holds more splats than the renderer has room for.
    """
    if up not in splat_views.UPS:
        raise ValueError(f"{up=} must be one of {', '.join(splat_views.UPS)}")
    axis = np.array(splat_views.UPS[up])
    cameras = splat_views.arc(scene, "verify", NUM_VIEWS, _SIZE, axis)
    pictures = []
    for shown in (scene, other):
        rendering = render(shown, cameras, height=_SIZE, width=_SIZE, depth_mode=None)
        if cut := int(np.sum(rendering.aux["overflow"])):
            raise ValueError(f"the renderer had no room for {cut} splats, so nothing is compared")
        pictures.append(rendering.rgb)
    return np.asarray(psnr(*pictures)).tolist()


def differing_fields(scene: Gaussians, other: Gaussians) -> list[str]:
    """Names of the fields that differ by more than a lossless format rounds them."""
    if scene.num_gaussians != other.num_gaussians:
        return [f"{other.num_gaussians} instead of {scene.num_gaussians} Gaussians"]
    differing = []
    for name, (relative, absolute) in _ROUNDING.items():
        a, b = (np.asarray(getattr(s, name), np.float64) for s in (scene, other))
        if name == "quats":  # of any length and sign
            a, b = (q / np.linalg.norm(q, axis=-1, keepdims=True) for q in (a, b))
            b = b * np.where(np.sum(a * b, axis=-1, keepdims=True) < 0, -1, 1)
        if not np.allclose(a, b, rtol=relative, atol=absolute):
            differing.append(name)
    return differing
