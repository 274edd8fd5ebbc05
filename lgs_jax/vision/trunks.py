"""The convolutional trunks of LPIPS, as tables: AlexNet and VGG16 as torchvision defines them.

A trunk is the part of the classifier before its fully connected layers; LPIPS taps it after five of
the ReLUs and never uses the last pooling.

Letters: H, W image, h, w, C feature map.
"""

import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax

from lgs_jax.nn import convolution

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with a ReLU.

    Attributes:
      features: output channels.
      kernel: its side in pixels.
      stride: of the convolution.
      pool: side of the max pooling in front of it, with stride 2 and no padding; 0: none.
      tap: whether LPIPS reads the output.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    pool: int = 0
    tap: bool = False

    @property
    def padding(self) -> int:
        """Zeros on each side; AlexNet's first layer has 2, all others keep the size."""
        return 2 if self.stride > 1 else self.kernel // 2


# Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
_ALEX = (
    Layer(64, kernel=11, stride=4, tap=True),
    Layer(192, kernel=5, pool=3, tap=True),
    Layer(384, pool=3, tap=True),
    Layer(256, tap=True),
    Layer(256, tap=True),
)

# Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition",
# configuration D; the taps are relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.
_VGG = (
    *(Layer(64), Layer(64, tap=True)),
    *(Layer(128, pool=2), Layer(128, tap=True)),
    *(Layer(256, pool=2), Layer(256), Layer(256, tap=True)),
    *(Layer(512, pool=2), Layer(512), Layer(512, tap=True)),
    *(Layer(512, pool=2), Layer(512), Layer(512, tap=True)),
)

TRUNKS: Mapping[str, tuple[Layer, ...]] = {"alex": _ALEX, "vgg": _VGG}


def layers_of(trunk: str) -> tuple[Layer, ...]:
    """The table of the trunk `alex` or `vgg`.

    Raises:
      ValueError: if there is no such trunk.
    """
    if trunk not in TRUNKS:
        raise ValueError(f"unknown {trunk=}; expected one of {', '.join(sorted(TRUNKS))}")
    return TRUNKS[trunk]


@functools.cache
def min_size(trunk: str) -> int:
    """The shortest image side in pixels that leaves every feature map at least one pixel."""

    def fits(side: int) -> bool:
        for layer in layers_of(trunk):
            if layer.pool:
                side = (side - layer.pool) // 2 + 1
            side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
            if side < 1:
                return False
        return True

    return next(side for side in range(1, 256) if fits(side))


def weight_shapes(trunk: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of LPIPS on a trunk, as weight files name them.

    `conv_<i>.kernel` [k, k, in, out] and `conv_<i>.bias` [out] of the trunk's layers in order;
    `head_<j>.kernel` [1, 1, C, 1] of the taps in order.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    channels, num_taps = 3, 0
    for i, layer in enumerate(layers_of(trunk)):
        shapes[f"conv_{i}.kernel"] = (layer.kernel, layer.kernel, channels, layer.features)
        shapes[f"conv_{i}.bias"] = (layer.features,)
        channels = layer.features
        if layer.tap:
            shapes[f"head_{num_taps}.kernel"] = (1, 1, channels, 1)
            num_taps += 1
    return shapes


class Conv(nn.Module):
    """The convolution of a `Layer`, with its bias, on [N, h, w, C]."""

    layer: Layer
    precision: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        side, layer = self.layer.kernel, self.layer
        shape = (side, side, x.shape[-1], layer.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (layer.features,))
        strides, padding = (layer.stride,) * 2, [(layer.padding,) * 2] * 2
        return convolution.convolve(x, kernel, strides, padding, precision=self.precision) + bias


def tapped_features(trunk: str, convs: list[Conv], x: Array) -> list[Array]:
    """Runs the layers of a trunk on [N, H, W, 3]; the taps [N, h, w, C], in order."""
    taps = []
    for layer, conv in zip(layers_of(trunk), convs, strict=True):
        if layer.pool:
            x = nn.max_pool(x, (layer.pool, layer.pool), strides=(2, 2))
        x = nn.relu(conv(x))
        if layer.tap:
            taps.append(x)
    return taps
