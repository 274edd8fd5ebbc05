"""The autoencoder: posed images to latents to a 3D scene (Henderson et al. 2024, stage 1).

Letters: B scenes, V views, H, W image height and width, h, w size of the latent maps, f compression
(h = H/f), c latent channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from lgs_jax import settings
from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models import decoder, encoder
from lgs_jax.models.scene_heads import kinds
from lgs_jax.nn import multiview_unet

Array = jax.Array
Posterior = encoder.Posterior
sample = encoder.sample

PATCH_SIZES = (1, 2, 4)
# Small weights in the decoder's last layer: training starts near the head's shell of splats.
DECODER_OUTPUT_SCALE = 0.01


class Autoencoder(nn.Module):
    """A variational autoencoder whose decoder yields a 3D scene.

    Encoder and decoder are multi-view U-Nets of the same shape; the first leaves, and the second
    enters, at the level where the resolution is H/f. All attributes are plain values.

    Attributes:
      compression: f, a power of two.
      latent_channels: c.
      patch_size: 1, 2 or 4 image pixels per side of a pixel of level 0; divides f.
      widths: channels per level, finest first; level 0 is H / patch_size.
      blocks_per_level: blocks on the way down and again on the way up.
      middle_blocks: blocks at the last level between the two ways.
      attention_levels: levels with self-attention within each view.
      num_heads: heads of every attention.
      cross_view: how views see each other: a mode of `nn.cross_view`, or one per level.
      dtype: "float32" or "bfloat16", of the networks; parameters and geometry are float32.
      remat: what the backward pass computes again, to save memory: "none", "dots" or "full", as in
        `nn.multiview_unet.MultiViewUNet`.
      shortcut: add a linear path around both U-Nets, from pixels to latents and from latents to
        maps; colours are then learnt within a few hundred steps. Our own addition.
      refine: channels of a small network over the decoder's maps at full resolution, which
        sees across the borders of patches; 0: none. Our own addition, for `patch_size` above 1.
      scene_head: `kind` of scene ("gaussians" by default, or another of
        `scene_heads.kinds.SCENE_HEADS`) and arguments of its head, such as near and far.
      scene: "gaussians"; older configurations hold it, `scene_head.kind` has taken its place.
      encoder_unet: arguments of `nn.multiview_unet.MultiViewUNet` for the encoder alone.
      decoder_unet: the same for the decoder.
    """

    compression: int = 8
    latent_channels: int = 6
    patch_size: int = 1
    widths: Sequence[int] = (128, 256, 384, 512)
    blocks_per_level: int = 2
    middle_blocks: int = 2
    attention_levels: Sequence[int] = (2, 3)
    num_heads: int = 8
    cross_view: str | Sequence[str] = "resnet"
    dtype: str = "float32"
    remat: multiview_unet.Remat = "none"
    shortcut: bool = True
    refine: int = 0
    scene_head: Mapping[str, Any] | None = None
    scene: str = kinds.GAUSSIANS
    encoder_unet: Mapping[str, Any] | None = None
    decoder_unet: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self._check()
        super().__post_init__()

    @property
    def latent_level(self) -> int:
        """Level of the U-Nets at which the latents live."""
        return (self.compression // self.patch_size).bit_length() - 1

    @property
    def size_multiple(self) -> int:
        """Image heights and widths must be multiples of this."""
        return self.patch_size * 2 ** (self._deepest_level())

    def setup(self) -> None:
        self.encoder = encoder.Encoder(
            latent_channels=self.latent_channels,
            out_level=self.latent_level,
            patch_size=self.patch_size,
            shortcut=self.shortcut,
            unet=self._unet_arguments(self.encoder_unet),
        )
        self.decoder = decoder.Decoder(
            in_level=self.latent_level,
            patch_size=self.patch_size,
            shortcut=self.shortcut,
            refine=self.refine,
            head=dict(self.scene_head or {}),
            unet={"output_scale": DECODER_OUTPUT_SCALE, **self._unet_arguments(self.decoder_unet)},
        )

    def encode(
        self, images: Array, cameras: cameras_lib.Cameras, view_mask: Array | None = None
    ) -> Posterior:
        """Distributions of the latents of posed images.

        Args:
          images: [B, V, H, W, 3] in [0, 1]; any V.
          cameras: [B, V], for H x W images.
          view_mask: [B, V] bool; the others are encoded as if the views left out did not exist.

        Returns:
          Mean and log-variance [B, V, h, w, c], float32.

        Raises:
          ValueError: if H or W is not a multiple of `size_multiple`.
        """
        if images.ndim != 5 or images.shape[-1] != 3:
            raise ValueError(f"images must be [B, V, H, W, 3], got {images.shape}")
        self._check_image_size(images.shape[2:4])
        return self.encoder(images, cameras, view_mask)

    def decode(
        self,
        latents: Array,
        cameras: cameras_lib.Cameras,
        image_size: tuple[int, int],
        view_mask: Array | None = None,
    ) -> Any:
        """The scene of latents [B, V, h, w, c], in the frame of the cameras.

        Args:
          latents: [B, V, h, w, c].
          cameras: [B, V], for images of `image_size`.
          image_size: H, W = f h, f w.
          view_mask: [B, V] bool; views left out add nothing to the scene (splats of opacity 0).

        Returns:
          What the scene head makes: by default `core.gaussians.Gaussians` [B, V * H * W], ordered
          by view, row, column; otherwise a field [B] of `rendering.volume`.

        Raises:
          ValueError: if the shape of the latents does not fit.
        """
        self._check_image_size(image_size)
        expected = (*(length // self.compression for length in image_size), self.latent_channels)
        if latents.ndim != 5 or latents.shape[2:] != expected:
            raise ValueError(
                f"latents of shape {latents.shape} do not fit image_size={tuple(image_size)}; "
                f"expected [B, V, {', '.join(map(str, expected))}]"
            )
        return self.decoder(latents, cameras, tuple(image_size), view_mask)

    def __call__(
        self,
        images: Array,
        cameras: cameras_lib.Cameras,
        key: Array | None = None,
        view_mask: Array | None = None,
    ) -> tuple[Any, Posterior]:
        """Encodes, samples with `key` (or takes the mean) and decodes: (scene, posterior)."""
        posterior = self.encode(images, cameras, view_mask)
        latents = posterior.mean if key is None else sample(posterior, key)
        return self.decode(latents, cameras, images.shape[2:4], view_mask), posterior

    def _unet_arguments(self, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
        shared = {
            name: getattr(self, name)
            for name in (
                "widths",
                "blocks_per_level",
                "middle_blocks",
                "attention_levels",
                "num_heads",
                "cross_view",
                "dtype",
                "remat",
            )
        }
        return {**shared, **(overrides or {})}

    def _deepest_level(self) -> int:
        every = map(self._unet_arguments, (self.encoder_unet, self.decoder_unet))
        return max(len(arguments["widths"]) for arguments in every) - 1

    def _check(self) -> None:
        """Raises ValueError if the attributes do not fit together."""
        if self.latent_channels < 1:
            raise ValueError(f"latent_channels={self.latent_channels} must be at least 1")
        if self.compression < 1 or self.compression & (self.compression - 1):
            raise ValueError(f"compression={self.compression} must be a power of two, such as 8")
        if self.patch_size not in PATCH_SIZES or self.compression % self.patch_size:
            raise ValueError(
                f"patch_size={self.patch_size} must be one of {PATCH_SIZES} and divide "
                f"compression={self.compression}"
            )
        if self.refine < 0:
            raise ValueError(f"refine={self.refine} must be 0 (none) or a number of channels")
        kinds.check_older_switch(self.scene)
        kinds.build(self.scene_head)
        for name in ("encoder_unet", "decoder_unet"):
            overrides = getattr(self, name)
            known = (*self._unet_arguments(None), "output_scale")
            settings.check_keys(overrides or {}, known, name)
            arguments = self._unet_arguments(overrides)
            levels = len(arguments["widths"])
            if self.latent_level >= levels:
                raise ValueError(
                    f"compression={self.compression} with patch_size={self.patch_size} needs at "
                    f"least {self.latent_level + 1} widths, got widths={arguments['widths']}"
                )
            multiview_unet.MultiViewUNet(out_channels=1, parent=None, **arguments)

    def _check_image_size(self, image_size: Sequence[int]) -> None:
        if any(length % self.size_multiple for length in image_size):
            raise ValueError(
                f"image_size={tuple(image_size)} must be multiples of {self.size_multiple} "
                f"(patch_size={self.patch_size} halved once per further level of the U-Net); "
                "crop or pad the images, or give fewer widths"
            )
