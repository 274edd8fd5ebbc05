"""Convolutions that keep the size of their maps, fast on small maps too.

Letters: N maps, h, w height and width, C input channels, D output channels, k side of the kernel.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import sharding

Array = jax.Array


def convolve(
    x: Array,
    kernel: Array,
    strides: Sequence[int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
    *,
    precision: str | None = None,
    **options: Any,
) -> Array:
    """`lax.conv_general_dilated` of [N, h, w, C] with [k, k, C, D], as `nn.Conv` calls it.

    Padding must keep the size of the map where strides are 1. Where then a map is no larger than
    the kernel, at the coarsest levels of U-Nets, it is one product of matrices instead: XLA turns
    the convolution of a 2 x 2 map into one whose kernel is the map, which takes up to forty times
    as long on CPUs (384 channels, measured).
    """
    height, width = x.shape[1:3]
    side, border = kernel.shape[0], kernel.shape[0] // 2
    if min(height, width) > side or max(strides) > 1:
        options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, precision=precision, **options
        )
    padded = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    patches = [padded[:, i : i + height, j : j + width] for i, j in np.ndindex(side, side)]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return jnp.matmul(jnp.concatenate(patches, axis=-1), matrix, precision=precision)


class Conv3x3(nn.Conv):
    """A 3x3 convolution of maps [..., h, w, C]; attributes and parameters are those of `nn.Conv`.

    Of maps [B, V, h, w, C] each device of the mesh in context convolves its own.
    """

    kernel_size: Sequence[int] = (3, 3)
    # Not a plain function, which Linen would take for a method.
    conv_general_dilated: Any = functools.partial(convolve)

    def __call__(self, x: Array) -> Array:
        if x.ndim != 5:
            return super().__call__(x)
        return sharding.unfold_views(super().__call__(sharding.fold_views(x)), x)
