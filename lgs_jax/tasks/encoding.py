"""What a diffusion model learns from: a scene's latents, encoded here and now or beforehand.

Letters: B scenes, V views, h, w latent map, c latent channels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax.core.cameras import Cameras
from lgs_jax.models.autoencoder import Posterior
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.tasks import views

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
    """Normalised latents of a batch.

    Attributes:
      cameras: of all views [B, V].
      posterior: of all views, encoded together.
      known: of the known views, encoded with each other alone, so that nothing of the others leaks
        into a condition (the posterior's mean) [B, V, h, w, c].
      known_mask: which views these are, bool [B, V].
    """

    cameras: Cameras
    posterior: Posterior
    known: Array
    known_mask: Array


def encode_known(frozen: FrozenAutoencoder, context: views.Views, known_mask: Array) -> Array:
    """Latents [B, V, h, w, c] of the known views, encoded with each other alone."""
    return frozen.encode(context.images, context.cameras, known_mask).mean


def from_images(frozen: FrozenAutoencoder, context: views.Views, known_mask: Array) -> Encoded:
    """Encodes the photographs of a batch."""
    return Encoded(
        cameras=context.cameras,
        posterior=frozen.encode(context.images, context.cameras),
        known=encode_known(frozen, context, known_mask),
        known_mask=known_mask,
    )


def from_latents(frozen: FrozenAutoencoder, batch: Mapping[str, Any]) -> Encoded:
    """Takes what `data.latents.EncodedLatents` serves."""
    latents, cameras = batch["latents"], batch["context"]
    return Encoded(
        cameras=Cameras(cameras["world_from_cam"], cameras["intrinsics"]),
        posterior=frozen.normalized(Posterior(latents["mean"], latents["log_var"])),
        known=frozen.normalized_mean(latents["known"]),
        known_mask=jnp.asarray(latents["known_mask"]),
    )
