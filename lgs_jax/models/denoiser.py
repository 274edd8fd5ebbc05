"""The denoiser: noisy latents of all views of a scene, jointly, to a prediction.

The trunk is the multi-view U-Net of the autoencoder, at the latents' resolution. Known views come
in as clean latents and a mask channel beside the noisy latents (our choice; `docs/paper_map.md`).

Letters: B scenes, V views, H, W image height and width, h, w latent map, c latent channels,
D size of the conditioning vector, R size of a representation.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.nn import multiview_unet

Array = jax.Array

# Angular frequencies per unit of log-SNR: the slowest turns once over the range of any schedule
# (about 40 units), the fastest tells levels apart that differ by a tenth.
SLOWEST, FASTEST = 0.15, 30.0


class Denoiser(nn.Module):
    """Predicts what it is trained for (x, noise or velocity); starts with zeros.

    Works for any number of views and is equivariant under their order.

    Attributes:
      latent_channels: c.
      compression: H / h, a check against an autoencoder that does not fit.
      out_channels: channels of the output; None: c.
      num_classes: classes of scenes; 0: the network takes no class. One more entry, learnt like the
        others, stands for "no class".
      representation_size: R, of `vision.representation`; 0: the network takes none.
      embedding_size: D, of the vector made of log-SNR, class and representation.
      widths: channels per level, finest (h x w) first.
      blocks_per_level: blocks on the way down and again on the way up.
      middle_blocks: blocks at the last level between the two ways.
      attention_levels: levels with self-attention within each view.
      num_heads: heads of every attention.
      cross_view: how views see each other: a mode of `nn.cross_view`, or one per level.
      dtype: "float32" or "bfloat16", of the computation; parameters and output are float32.
      remat: what the backward pass computes again, to save memory: "none", "dots" or "full", as in
        `nn.multiview_unet.MultiViewUNet`.
    """

    latent_channels: int = 6
    compression: int = 8
    out_channels: int | None = None
    num_classes: int = 0
    representation_size: int = 0
    embedding_size: int = 512
    widths: Sequence[int] = (256, 512, 768)
    blocks_per_level: int = 2
    middle_blocks: int = 2
    attention_levels: Sequence[int] = (0, 1, 2)
    num_heads: int = 8
    cross_view: str | Sequence[str] = "resnet"
    dtype: str = "float32"
    remat: multiview_unet.Remat = "none"

    def __post_init__(self) -> None:
        least_of = {"latent_channels": 1, "compression": 1}
        least_of |= {"num_classes": 0, "representation_size": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.embedding_size < 2 or self.embedding_size % 2:
            raise ValueError(f"embedding_size={self.embedding_size} must be a positive even number")
        if self.out_channels is not None and self.out_channels < 1:
            raise ValueError(f"out_channels={self.out_channels} must be at least 1, or None")
        multiview_unet.MultiViewUNet(out_channels=1, parent=None, **self._unet_arguments())
        super().__post_init__()

    @property
    def size_multiple(self) -> int:
        """Image heights and widths must be multiples of this."""
        return self.compression * 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(
        self,
        z: Array,
        log_snr: Array,
        cameras: cameras_lib.Cameras,
        image_size: tuple[int, int],
        known: Array,
        known_mask: Array,
        class_label: Array | None = None,
        representation: Array | None = None,
        represented: Array | None = None,
    ) -> Array:
        """The raw prediction [B, V, h, w, c or `out_channels`], float32.

        Args:
          z: noisy latents [B, V, h, w, c], of all views, the known ones included.
          log_snr: [B].
          cameras: [B, V], for images of `image_size`.
          image_size: H, W.
          known: clean latents [B, V, h, w, c]; those of unknown views are not looked at.
          known_mask: [B, V] bool, which views are known.
          class_label: int [B]; anything outside 0 ... num_classes - 1 is "no class". None: no class
            for all.
          representation: [B, R]; looked at where it is told. None: told of none.
          represented: [B] bool, where it is told.

        Raises:
          ValueError: if the latents do not fit the image size or the attributes.
        """
        self._check_shapes(z, known, image_size)
        mask = known_mask[:, :, None, None, None]
        shown = jnp.where(mask, known, 0.0)
        mask = jnp.broadcast_to(mask, (*z.shape[:-1], 1)).astype(z.dtype)
        embedding = self._embedding(log_snr, class_label)
        if self.representation_size:
            embedding += self._represented(len(z), representation, represented)
        output = multiview_unet.MultiViewUNet(
            out_channels=self.out_channels or self.latent_channels,
            output_scale=0.0,
            name="unet_trunk",
            **self._unet_arguments(),
        )(jnp.concatenate([z, shown, mask], axis=-1), cameras, image_size, None, embedding)
        return output

    def _embedding(self, log_snr: Array, class_label: Array | None) -> Array:
        """The conditioning vector [B, D]."""
        size = self.embedding_size
        x = nn.Dense(size, name="log_snr_in")(fourier_features(log_snr, size))
        x = nn.Dense(size, name="log_snr_out")(nn.silu(x))
        if self.num_classes:
            none = self.num_classes
            if class_label is None:
                class_label = jnp.full(log_snr.shape, none, jnp.int32)
            index = jnp.where((class_label >= 0) & (class_label < none), class_label, none)
            x = x + nn.Embed(none + 1, size, name="classes")(index)
        return x

    def _represented(self, count: int, representation: Array | None, told: Array | None) -> Array:
        """What the representation adds to the conditioning vector [B, D]."""
        if representation is None or told is None:
            representation = jnp.zeros((count, self.representation_size))
            told = jnp.zeros(count, bool)
        seen = jnp.where(told[:, None], representation, 0.0)
        seen = jnp.concatenate([seen, told[:, None].astype(seen.dtype)], axis=-1)
        hidden = nn.Dense(self.embedding_size, name="representation_in")(seen)
        return nn.Dense(self.embedding_size, name="representation_out")(nn.silu(hidden))

    def _unet_arguments(self) -> dict:
        names = ("widths", "blocks_per_level", "middle_blocks", "attention_levels", "num_heads")
        return {name: getattr(self, name) for name in (*names, "cross_view", "dtype", "remat")}

    def _check_shapes(self, z: Array, known: Array, image_size: tuple[int, int]) -> None:
        fits = tuple(length // self.compression for length in image_size)
        if any(length % self.size_multiple for length in image_size):
            raise ValueError(
                f"image_size={tuple(image_size)} must be multiples of {self.size_multiple} "
                f"(compression={self.compression}, halved once per further level of "
                f"widths={tuple(self.widths)}); change it, or give fewer widths"
            )
        if z.shape != known.shape or z.shape[2:] != (*fits, self.latent_channels):
            raise ValueError(
                f"latents {z.shape} and known latents {known.shape} must both be "
                f"[B, V, {fits[0]}, {fits[1]}, {self.latent_channels}] for images of "
                f"{tuple(image_size)} with compression={self.compression}"
            )


def fourier_features(log_snr: Array, size: int) -> Array:
    """Sines and cosines of log-SNR [...] at `size` / 2 frequencies, [..., size]."""
    frequencies = np.geomspace(SLOWEST, FASTEST, size // 2).astype(np.float32)
    angles = jnp.asarray(log_snr, jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
