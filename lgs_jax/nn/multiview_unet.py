"""A U-Net over the views of a scene, the trunk of the encoder, the decoder and the denoiser.

Each block is a 2-D residual block on every view, self-attention within the view at chosen levels,
and a cross-view block (Henderson et al. 2024: after each block a small ResNet combines the views,
for each pixel independently). Level 0 is the finest; each further level halves the resolution. The
input enters at `in_level`, goes down to the last level, and comes up to `out_level`; a level that
both paths visit has skip connections.

Letters: B scenes, V views, H, W size of the cameras' images, h, w size of a map, C channels,
D size of the conditioning vector.
"""

import typing
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import rays, sharding
from lgs_jax.nn import attention, blocks, convolution, cross_view

Array = jax.Array

DTYPES = ("float32", "bfloat16")

# What the backward pass computes again of a block, cheapest first: nothing; all but the results of
# its products of matrices and convolutions, which are kept; all of it, from its input.
Remat = Literal["none", "dots", "full"]
REMATS: tuple[str, ...] = typing.get_args(Remat)
_KEPT = {"dots": jax.checkpoint_policies.dots_saveable, "full": None}


class MultiViewBlock(nn.Module):
    """Residual block per view, self-attention per view (optional), cross-view block."""

    features: int
    self_attention: bool
    cross_view_mode: str
    num_heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, view_mask: Array | None, embedding: Array | None) -> Array:
        """Maps [B, V, h, w, C] to [B, V, h, w, features]; `embedding` is [B, V, D]."""
        x = blocks.ResidualBlock(self.features, dtype=self.dtype, name="residual")(x, embedding)
        if self.self_attention:
            tokens = x.reshape(*x.shape[:2], -1, self.features)
            attend = attention.SelfAttention(
                self.num_heads, axes=sharding.MAPS, dtype=self.dtype, name="attention"
            )
            x = sharding.constrain(attend(tokens).reshape(x.shape), *sharding.MAPS)
        return cross_view.CrossView(
            self.cross_view_mode, num_heads=self.num_heads, dtype=self.dtype, name="cross_view"
        )(x, view_mask)


class MultiViewUNet(nn.Module):
    """The U-Net; see the module's docstring.

    Attributes:
      out_channels: channels of the output.
      in_level: level at which the input enters.
      out_level: level at which the output leaves.
      widths: channels per level, multiples of 4, finest first.
      blocks_per_level: blocks on the way down and again on the way up.
      middle_blocks: blocks at the last level between the two ways.
      attention_levels: levels with self-attention within each view.
      num_heads: heads of every attention; must divide the widths where attention is used.
      cross_view: a mode of `nn.cross_view`, or one per level.
      output_scale: variance scale of the last layer's initial weights; 0 starts with zeros.
      dtype: "float32" or "bfloat16", of the computation; parameters, rays and the last layer, whose
        output may be a depth, are float32.
      remat: what the backward pass computes again of every block, to save memory: "none", "dots"
        (all but products of matrices and convolutions) or "full".
    """

    out_channels: int
    in_level: int = 0
    out_level: int = 0
    widths: Sequence[int] = (128, 256, 384, 512)
    blocks_per_level: int = 2
    middle_blocks: int = 2
    attention_levels: Sequence[int] = (2, 3)
    num_heads: int = 8
    cross_view: str | Sequence[str] = "resnet"
    output_scale: float = 1.0
    dtype: str = "float32"
    remat: Remat = "none"

    def __post_init__(self) -> None:
        _check_settings(self)
        super().__post_init__()

    @property
    def cross_view_modes(self) -> tuple[str, ...]:
        """One cross-view mode per level."""
        return _modes_per_level(self.cross_view, len(self.widths))

    @nn.compact
    def __call__(
        self,
        x: Array,
        cameras: cameras_lib.Cameras,
        image_size: tuple[int, int],
        view_mask: Array | None = None,
        embedding: Array | None = None,
    ) -> Array:
        """Maps [B, V, h, w, C] at `in_level` to [B, V, h', w', out_channels] at `out_level`.

        Args:
          x: one map per view.
          cameras: of the views [B, V], for images of `image_size`.
          image_size: H, W.
          view_mask: [B, V] bool; views left out do not influence the others. None keeps all.
          embedding: conditioning vector [B, D] or one per view [B, V, D].

        Raises:
          ValueError: if h or w cannot be halved down to the last level.
        """
        last = len(self.widths) - 1
        _check_map_size(x.shape[2:4], last - self.in_level)
        dtype = jnp.dtype(self.dtype)
        if embedding is not None:
            embedding = embedding[:, None] if embedding.ndim == 2 else embedding
            embedding = jnp.broadcast_to(embedding, (*x.shape[:2], embedding.shape[-1]))

        def block(name: str, level: int, x: Array) -> Array:
            return self._block(name, level)(x, view_mask, embedding)

        def enter(name: str, x: Array) -> Array:
            # A linear layer on the concatenation (features, rays), written as a sum: the features'
            # part is the convolution that x comes from. The rays' part stays in float32.
            plucker = _rays_of_map(cameras, image_size, x.shape[2:4])
            return x + nn.Dense(x.shape[-1], use_bias=False, name=name)(plucker).astype(dtype)

        x = convolution.Conv3x3(self.widths[self.in_level], dtype=dtype, name="stem")(
            x.astype(dtype)
        )
        skips: list[Array] = []
        for level in range(self.in_level, last + 1):
            if level > self.in_level:
                x = blocks.Downsample(self.widths[level], dtype=dtype, name=f"down_{level}")(x)
            x = enter(f"down_{level}_rays", x)
            for i in range(self.blocks_per_level):
                x = block(f"down_{level}_block_{i}", level, x)
                skips.append(x)
        for i in range(self.middle_blocks):
            x = block(f"middle_block_{i}", last, x)
        for level in range(last, self.out_level - 1, -1):
            if level < last:
                x = blocks.Upsample(self.widths[level], dtype=dtype, name=f"up_{level}")(x)
                x = enter(f"up_{level}_rays", x)
            for i in range(self.blocks_per_level):
                if level >= self.in_level:
                    x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = block(f"up_{level}_block_{i}", level, x)
        return self._output(x)

    def _block(self, name: str, level: int) -> nn.Module:
        make = MultiViewBlock
        if self.remat != "none":
            make = nn.remat(make, policy=_KEPT[self.remat])
        return make(
            features=self.widths[level],
            self_attention=level in self.attention_levels,
            cross_view_mode=self.cross_view_modes[level],
            num_heads=self.num_heads,
            dtype=jnp.dtype(self.dtype),
            name=name,
        )

    def _output(self, x: Array) -> Array:
        init = nn.initializers.zeros
        if self.output_scale > 0:
            init = nn.initializers.variance_scaling(self.output_scale, "fan_in", "truncated_normal")
        x = nn.silu(blocks.group_norm(x.shape[-1], dtype=jnp.float32, name="norm_out")(x))
        return convolution.Conv3x3(self.out_channels, kernel_init=init, name="out")(x)


def _rays_of_map(
    cameras: cameras_lib.Cameras, image_size: tuple[int, int], map_size: tuple[int, int]
) -> Array:
    """Plücker coordinates [B, V, h, w, 6] of the pixels of a map of another size than the image."""
    (image_height, image_width), (height, width) = image_size, map_size
    resized = cameras_lib.resize(
        cameras, scale_x=width / image_width, scale_y=height / image_height
    )
    return rays.plucker(resized, height, width)


def _modes_per_level(modes: str | Sequence[str], levels: int) -> tuple[str, ...]:
    return (modes,) * levels if isinstance(modes, str) else tuple(modes)


def _check_settings(unet: MultiViewUNet) -> None:
    """Raises ValueError if the attributes do not fit together."""
    levels = len(unet.widths)
    for name in ("in_level", "out_level"):
        if not 0 <= (level := getattr(unet, name)) < levels:
            raise ValueError(
                f"{name}={level} is not a level of widths={tuple(unet.widths)}, which has "
                f"{levels}; give a width for every level from 0 to {name}"
            )
    for width in unet.widths:
        if width <= 0 or width % blocks.MIN_CHANNELS_PER_GROUP:
            raise ValueError(
                f"widths={tuple(unet.widths)}: {width} must be a positive multiple of "
                f"{blocks.MIN_CHANNELS_PER_GROUP}, for the group normalisation"
            )
    if unet.blocks_per_level < 1:
        raise ValueError(f"blocks_per_level={unet.blocks_per_level} must be at least 1")
    if unet.middle_blocks < 0:
        raise ValueError(f"middle_blocks={unet.middle_blocks} must not be negative")
    if unet.dtype not in DTYPES:
        raise ValueError(f"dtype={unet.dtype!r} must be one of {DTYPES}")
    if unet.remat not in REMATS:
        raise ValueError(f"remat={unet.remat!r} must be one of {REMATS}")
    _check_attention(unet, levels)


def _check_attention(unet: MultiViewUNet, levels: int) -> None:
    modes = _modes_per_level(unet.cross_view, levels)
    if len(modes) != levels or not set(modes) <= set(cross_view.MODES):
        raise ValueError(
            f"cross_view={unet.cross_view!r} must be one of {cross_view.MODES}, or one of them "
            f"for each of the {levels} levels of widths={tuple(unet.widths)}"
        )
    if any(not 0 <= level < levels for level in unet.attention_levels):
        raise ValueError(
            f"attention_levels={tuple(unet.attention_levels)} must lie between 0 and {levels - 1}, "
            f"the levels of widths={tuple(unet.widths)}"
        )
    for level, width in enumerate(unet.widths):
        attends = level in unet.attention_levels or modes[level] in ("attention", "full")
        if attends and (unet.num_heads < 1 or width % unet.num_heads):
            raise ValueError(
                f"num_heads={unet.num_heads} must divide the width {width} of level {level}, "
                "which has attention; change num_heads or that width"
            )


def _check_map_size(size: tuple[int, int], halvings: int) -> None:
    if any(length % 2**halvings for length in size):
        raise ValueError(
            f"a map of {size[0]} x {size[1]} cannot be halved {halvings} times; make the image "
            f"height and width such that the input map's sides are multiples of {2**halvings}, or "
            "give fewer widths"
        )
