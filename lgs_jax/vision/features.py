"""Feature vectors of images, for distances between sets of images.

`inception` is the network that the names FID and KID stand for. `vgg16` and `alex` are the trunks
of LPIPS, for use where its weights are not at hand: their distances are smaller or larger by any
factor, and have names of their own.

Letters: H, W image, N images, D features.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from lgs_jax.vision import array_files, inception, inception_weights, lpips, trunks
from lgs_jax.vision import weights as lpips_weights

Array = jax.Array

# Our names of the networks that are trunks of LPIPS, and LPIPS's.
_TRUNKS = {"vgg16": "vgg", "alex": "alex"}
NETWORKS = ("inception", *_TRUNKS)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A frozen network with its weights: call it with images.

    Attributes:
      name: one of `NETWORKS`.
      size: D.
      checksum: SHA-256 of the weight file; show it beside the figures.
      published: whether that is the file that others use too.
      min_size: the shortest side in pixels that images may have.
      params: the weights.
      function: (params, images [N, H, W, 3] in [0, 1]) -> [N, D]; pure.
    """

    name: str
    size: int
    checksum: str
    published: bool
    min_size: int
    params: Any
    function: Callable[[Any, Array], Array]

    def __call__(self, images: Array) -> Array:
        """Features [..., D] of images [..., H, W, 3] in [0, 1], float32.

        The network sees what a file of the image would hold: values are clipped to [0, 1] and
        rounded to 8 bits.

        Raises:
          TypeError: if the images have integers.
          ValueError: if they are not RGB or smaller than `min_size`.
        """
        images = jnp.asarray(images)
        if images.ndim < 3 or images.shape[-1] != 3:
            raise ValueError(f"expected RGB images [..., H, W, 3], got {images.shape}")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(
                f"expected float images in [0, 1], got {images.dtype}; divide uint8 images by 255"
            )
        if min(images.shape[-3:-1]) < self.min_size:
            raise ValueError(
                f"{self.name} needs images of at least {self.min_size} x {self.min_size} pixels, "
                f"got {images.shape[-3]} x {images.shape[-2]}"
            )
        found = _extract(self.function, self.params, images.reshape(-1, *images.shape[-3:]))
        return found.reshape(*images.shape[:-3], self.size)


@functools.partial(jax.jit, static_argnums=0)
def _extract(function: Callable[[Any, Array], Array], params: Any, images: Array) -> Array:
    images = jnp.clip(images.astype(jnp.float32), 0.0, 1.0)
    return function(params, jnp.round(255.0 * images) / 255.0)


def load(
    name: str,
    weights: str | pathlib.Path | None = None,
    *,
    allow_other_weights: bool = False,
) -> FeatureNetwork:
    """A network of `NETWORKS` with the weights of a file.

    Args:
      name: of the network.
      weights: for `inception` a path, see `inception_weights.load`; for the others see
        `weights.load`, where None takes the installed package.
      allow_other_weights: take a file whose SHA-256 is not that of a published file too; the names
        of the metrics then say so.

    Raises:
      WeightsMissing: if the weights are not on this machine.
      ValueError: if the name is unknown, or the file is damaged, does not fit, or is another one
        than the published without `allow_other_weights`.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name=}; expected one of {', '.join(NETWORKS)}")
    if name == "inception":
        path, is_known = inception_weights.locate(weights), inception_weights.is_known
    else:
        path, is_known = lpips_weights.locate(_TRUNKS[name], weights), lpips_weights.is_known
    checksum = array_files.checksum(path)
    published = is_known(checksum)
    if not (published or allow_other_weights):
        raise ValueError(
            f"{path} has the SHA-256 {checksum}, which no published weight file of {name!r} has; "
            "download it again, or allow other weights and get figures under another name"
        )
    build = _inception if name == "inception" else functools.partial(_trunk, _TRUNKS[name])
    size, min_size, params, function = build(path)
    params = jax.tree.map(jnp.asarray, params)  # on the device once, not with every batch
    return FeatureNetwork(name, size, checksum, published, min_size, params, function)


def _inception(path: pathlib.Path) -> tuple[int, int, Any, Callable[[Any, Array], Array]]:
    """Size, smallest image, weights and function of the Inception network."""
    net = inception.Inception()
    function = functools.partial(inception.features, net)
    return inception.NUM_FEATURES, 1, inception_weights.load(path, net), function


def _trunk(trunk: str, path: pathlib.Path) -> tuple[int, int, Any, Callable[[Any, Array], Array]]:
    """The same of a trunk of LPIPS: the last map that LPIPS taps, averaged over its places."""
    net = lpips.LpipsNet(trunk)
    flat = lpips_weights.load(trunk, path)
    params = flax.traverse_util.unflatten_dict(flat, sep=".")

    def function(params: Any, images: Array) -> Array:
        last = net.apply({"params": params}, images, method=lpips.LpipsNet.features)[-1]
        return jnp.mean(last, axis=(1, 2))

    return trunks.layers_of(trunk)[-1].features, trunks.min_size(trunk), params, function
