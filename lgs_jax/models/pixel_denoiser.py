"""The denoiser of pixels: noisy images of all views to a 3D scene, to be rendered.

The rival of the latent denoiser: the same network (`models.denoiser.Denoiser`) with the same
conditions, but on images, and with a scene head (`models.scene_heads`) on top. Rendering the
scene at the views gives the denoised images; that is the task's part.

Letters: B scenes, V views, H, W image, p patch size, D size of the conditioning vector.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models import denoiser
from lgs_jax.models.scene_heads import kinds
from lgs_jax.nn import blocks, multiview_unet

Array = jax.Array

PATCH_SIZES = (1, 2, 4, 8)


class PixelDenoiser(nn.Module):
    """Predicts the scene behind noisy images in [-1, 1]; starts near the head's initial scene.

    Attributes:
      patch_size: p, side of the square of pixels that is one pixel of the U-Net (space to depth on
        the way in, depth to space on the way out). 1 is the standard form in pixel space.
      shortcut: the head's colours start from the pixels themselves, known ones as they are and
        noisy ones the more the less noise there is, and the network adds to them. Without
        parameters; our own addition, the counterpart of the autoencoder's.
      scene_head: `kind` of scene ("gaussians" by default, or another of
        `scene_heads.kinds.SCENE_HEADS`) and arguments of its head, such as near and far.
      scene: "gaussians"; older configurations hold it, `scene_head.kind` has taken its place.
      num_classes: as in `models.denoiser.Denoiser`, like all that follow.
      embedding_size: D.
      widths: channels per level, finest (H/p x W/p) first.
      blocks_per_level: blocks on the way down and again on the way up.
      middle_blocks: blocks at the last level between the two ways.
      attention_levels: levels with self-attention within each view.
      num_heads: heads of every attention.
      cross_view: how views see each other.
      dtype: "float32" or "bfloat16", of the computation; parameters and geometry are float32.
      remat: what the backward pass computes again, to save memory: "none", "dots" or "full", as in
        `nn.multiview_unet.MultiViewUNet`.
    """

    patch_size: int = 1
    shortcut: bool = True
    scene_head: Mapping[str, Any] | None = None
    scene: str = kinds.GAUSSIANS
    num_classes: int = 0
    embedding_size: int = 512
    widths: Sequence[int] = (256, 512, 768)
    blocks_per_level: int = 2
    middle_blocks: int = 2
    attention_levels: Sequence[int] = (2,)
    num_heads: int = 8
    cross_view: str | Sequence[str] = "resnet"
    dtype: str = "float32"
    remat: multiview_unet.Remat = "none"

    def __post_init__(self) -> None:
        if self.patch_size not in PATCH_SIZES:
            raise ValueError(f"patch_size={self.patch_size} must be one of {PATCH_SIZES}")
        kinds.check_older_switch(self.scene)
        self._network(parent=None)
        super().__post_init__()

    @property
    def size_multiple(self) -> int:
        """Image heights and widths must be multiples of this."""
        return self.patch_size * 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(
        self,
        z: Array,
        log_snr: Array,
        cameras: cameras_lib.Cameras,
        known: Array,
        known_mask: Array,
        class_label: Array | None = None,
    ) -> Any:
        """The scene [B] behind noisy images, in the frame of the cameras.

        Args:
          z: noisy images [B, V, H, W, 3] of all views, the known ones included.
          log_snr: [B].
          cameras: [B, V], for H x W images.
          known: clean images [B, V, H, W, 3] in [-1, 1]; those of unknown views are not looked at.
          known_mask: [B, V] bool, which views are known.
          class_label: int [B] or None; see `models.denoiser.Denoiser`.

        Raises:
          ValueError: if the images do not fit the attributes.
        """
        if z.ndim != 5 or z.shape[-1] != 3 or z.shape != known.shape:
            raise ValueError(
                f"noisy images {z.shape} and known images {known.shape} must both be "
                "[B, V, H, W, 3]"
            )
        if any(length % self.size_multiple for length in z.shape[2:4]):
            raise ValueError(
                f"images of {z.shape[2]} x {z.shape[3]} must have sides that are multiples of "
                f"{self.size_multiple} (patch_size={self.patch_size}, halved once per further "
                f"level of widths={tuple(self.widths)})"
            )
        head, p = kinds.build(self.scene_head), self.patch_size
        maps = self._network(name="denoiser")(
            blocks.space_to_depth(z, p),
            log_snr,
            cameras,
            z.shape[2:4],
            blocks.space_to_depth(known, p),
            known_mask,
            class_label,
        )
        maps = blocks.depth_to_space(maps, p)
        if self.shortcut:
            trust = jax.nn.sigmoid(log_snr)[:, None, None, None, None]
            shown = jnp.where(known_mask[:, :, None, None, None], known, trust * z)
            # Colours are sigmoids, of slope 1/4 where they are grey, and images span [-1, 1].
            maps = maps.at[..., head.color_channels].add(2.0 * shown)
        return head(maps, cameras)

    def _network(self, **options: Any) -> denoiser.Denoiser:
        pixels = self.patch_size**2
        return denoiser.Denoiser(
            latent_channels=3 * pixels,
            compression=self.patch_size,
            out_channels=kinds.build(self.scene_head).channels * pixels,
            num_classes=self.num_classes,
            embedding_size=self.embedding_size,
            widths=self.widths,
            blocks_per_level=self.blocks_per_level,
            middle_blocks=self.middle_blocks,
            attention_levels=self.attention_levels,
            num_heads=self.num_heads,
            cross_view=self.cross_view,
            dtype=self.dtype,
            remat=self.remat,
            **options,
        )
