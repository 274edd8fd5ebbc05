"""The Inception network of 2015 whose features FID and KID compare.

Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, as the TensorFlow
graph `inception-2015-12-05` has it and PyTorch ports of it (pytorch-fid, torch-fidelity) call its
layers. It differs from the network of the paper in its pooling: averages leave padding out of their
count, and the last block takes the maximum where the one before takes the average.

A layer is a convolution without bias, a batch normalisation and a ReLU; as the network is frozen,
the normalisation is part of the convolution's weights here (`vision.inception_weights`).

Letters: N images, H, W image, h, w, C feature map.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

INPUT_SIZE = 299
NUM_FEATURES = 2048

_max_pool = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))
_same_max_pool = functools.partial(nn.max_pool, window_shape=(3, 3), padding="SAME")
_same_mean_pool = functools.partial(
    nn.avg_pool, window_shape=(3, 3), padding="SAME", count_include_pad=False
)


class Layer(nn.Module):
    """Convolution with bias and a ReLU of maps [N, h, w, C].

    Attributes:
      features: output channels.
      kernel: its height and width in pixels.
      stride: of the convolution.
      padding: `SAME` or `VALID`.
      precision: as `jax.lax.Precision` names it.
    """

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"
    precision: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=self.precision,
        )
        return nn.relu(x + bias)


class Block(nn.Module):
    """Branches side by side on one map, their outputs concatenated.

    Attributes:
      width: channels of what differs between blocks of one kind, if anything does.
      divisor: all channel counts are divided by this; 1 is the real network.
      precision: of the convolutions.
    """

    width: int = 0
    divisor: int = 1
    precision: str | None = None

    def chain(self, x: Array, *layers: tuple[Any, ...]) -> Array:
        """Layers in a row, each given by the arguments of `layer`."""
        for layer in layers:
            x = self.layer(*layer)(x)
        return x

    def layer(
        self, name: str, features: int, kernel: int | tuple[int, int] = 1, stride: int = 1
    ) -> Layer:
        """A layer that keeps the size of the map, or halves it without padding."""
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = "SAME" if stride == 1 else "VALID"
        return Layer(features // self.divisor, kernel, stride, padding, self.precision, name=name)


class BlockA(Block):
    """At 35 x 35; `width`: channels of the pooled branch."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        branches = (
            self.chain(x, ("branch1x1", 64)),
            self.chain(x, ("branch5x5_1", 48), ("branch5x5_2", 64, 5)),
            self.chain(
                x, ("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)
            ),
            self.chain(_same_mean_pool(x), ("branch_pool", self.width)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockB(Block):
    """From 35 x 35 to 17 x 17."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        branches = (
            self.chain(x, ("branch3x3", 384, 3, 2)),
            self.chain(
                x, ("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)
            ),
            _max_pool(x),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockC(Block):
    """At 17 x 17; `width`: channels inside the branches of 1 x 7 and 7 x 1."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = self.width
        branches = (
            self.chain(x, ("branch1x1", 192)),
            self.chain(
                x,
                ("branch7x7_1", width),
                ("branch7x7_2", width, (1, 7)),
                ("branch7x7_3", 192, (7, 1)),
            ),
            self.chain(
                x,
                ("branch7x7dbl_1", width),
                ("branch7x7dbl_2", width, (7, 1)),
                ("branch7x7dbl_3", width, (1, 7)),
                ("branch7x7dbl_4", width, (7, 1)),
                ("branch7x7dbl_5", 192, (1, 7)),
            ),
            self.chain(_same_mean_pool(x), ("branch_pool", 192)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockD(Block):
    """From 17 x 17 to 8 x 8."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        branches = (
            self.chain(x, ("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2)),
            self.chain(
                x,
                ("branch7x7x3_1", 192),
                ("branch7x7x3_2", 192, (1, 7)),
                ("branch7x7x3_3", 192, (7, 1)),
                ("branch7x7x3_4", 192, 3, 2),
            ),
            _max_pool(x),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockE(Block):
    """At 8 x 8.

    Attributes:
      pool: `mean` or `max`, of the pooled branch.
    """

    pool: str = "mean"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        a = self.chain(x, ("branch3x3_1", 384))
        b = self.chain(x, ("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, 3))
        pooled = {"mean": _same_mean_pool, "max": _same_max_pool}[self.pool](x)
        branches = (
            self.chain(x, ("branch1x1", 320)),
            self.chain(a, ("branch3x3_2a", 384, (1, 3))),
            self.chain(a, ("branch3x3_2b", 384, (3, 1))),
            self.chain(b, ("branch3x3dbl_3a", 384, (1, 3))),
            self.chain(b, ("branch3x3dbl_3b", 384, (3, 1))),
            self.chain(pooled, ("branch_pool", 192)),
        )
        return jnp.concatenate(branches, axis=-1)


class Inception(nn.Module):
    """The network up to its last pooling, `pool_3`; modules are named as weight files name them.

    Attributes:
      divisor: all channel counts are divided by this; 1 is the real network, 16 one for tests.
      precision: of the convolutions; on accelerators all but `highest` change the features.
    """

    divisor: int = 1
    precision: str | None = "highest"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Features [N, 2048] of images [N, 299, 299, 3] in [-1, 1]."""

        def layer(name: str, features: int, side: int, *options: Any) -> Layer:
            kernel, precision = (side, side), self.precision
            return Layer(features // self.divisor, kernel, *options, precision=precision, name=name)

        def block(kind: type[Block], name: str, width: int = 0, **options: Any) -> Block:
            return kind(width, self.divisor, self.precision, name=name, **options)

        x = layer("Conv2d_1a_3x3", 32, 3, 2, "VALID")(x)
        x = layer("Conv2d_2a_3x3", 32, 3, 1, "VALID")(x)
        x = _max_pool(layer("Conv2d_2b_3x3", 64, 3)(x))
        x = layer("Conv2d_3b_1x1", 80, 1)(x)
        x = _max_pool(layer("Conv2d_4a_3x3", 192, 3, 1, "VALID")(x))
        for name, width in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = block(BlockA, name, width)(x)
        x = block(BlockB, "Mixed_6a")(x)
        widths = {"Mixed_6b": 128, "Mixed_6c": 160, "Mixed_6d": 160, "Mixed_6e": 192}
        for name, width in widths.items():
            x = block(BlockC, name, width)(x)
        x = block(BlockD, "Mixed_7a")(x)
        x = block(BlockE, "Mixed_7b", pool="mean")(x)
        x = block(BlockE, "Mixed_7c", pool="max")(x)
        return jnp.mean(x, axis=(1, 2))


def features(net: Inception, params: Any, images: Array) -> Array:
    """Features [N, 2048] of images [N, H, W, 3] in [0, 1], of any size.

    The input is scaled as in the TensorFlow graph and torch-fidelity: values v in 0...255 become
    (v - 128) / 128. pytorch-fid takes v / 127.5 - 1 and another resizing, so its FID differs.
    """
    pixels = resize_as_tensorflow_1(255.0 * images, INPUT_SIZE, INPUT_SIZE)
    return net.apply({"params": params}, (pixels - 128.0) / 128.0)


def resize_as_tensorflow_1(images: Array, height: int, width: int) -> Array:
    """Bilinear resizing of [N, H, W, C] to [N, height, width, C] as `resize_bilinear` of TF 1.

    Output pixel i looks at i * (old size / new size): corners are not aligned, pixel centres are
    not at +0.5, and nothing is smoothed where the image shrinks.
    """
    for axis, new in ((1, height), (2, width)):
        images = _resize_axis(images, axis, new)
    return images


def _resize_axis(x: Array, axis: int, new: int) -> Array:
    """One side of [N, H, W, C]; TensorFlow computes the places in float32."""
    old = x.shape[axis]
    places = np.arange(new, dtype=np.float32) * np.float32(old / new)
    low = np.minimum(places.astype(np.int32), old - 1)
    high = np.minimum(low + 1, old - 1)
    shape = [1] * x.ndim
    shape[axis] = new
    fraction = (places - low).reshape(shape)
    below = jnp.take(x, low, axis=axis)
    return below + (jnp.take(x, high, axis=axis) - below) * fraction
