"""What a denoiser is told beside the noisy latents: cameras, known views and the class.

Letters: B scenes, V views, h, w latent map, c latent channels.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lgs_jax.core.cameras import Cameras

Array = jax.Array

NO_CLASS = -1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Conditions of a batch of scenes.

    Attributes:
      cameras: of all views [B, V]; always given.
      known: clean latents [B, V, h, w, c]; those of unknown views are not looked at.
      known_mask: which views are known, bool [B, V].
      class_label: int32 [B]; `NO_CLASS` for none.
    """

    cameras: Cameras
    known: Array
    known_mask: Array
    class_label: Array

    def dropped(self) -> "Conditioning":
        """The same cameras without known views and class, for guidance."""
        return dataclasses.replace(
            self,
            known_mask=jnp.zeros_like(self.known_mask),
            class_label=jnp.full_like(self.class_label, NO_CLASS),
        )


def random_known(
    key: Array, shape: tuple[int, int], *, unconditional: float, max_known: int
) -> Array:
    """Which views to tell, bool [B, V].

    A share `unconditional` of the scenes gets none; the others a uniformly random number of 1 to
    `max_known` views, in random places.
    """
    key_none, key_count, key_order = jax.random.split(key, 3)
    num_scenes, _ = shape
    count = jax.random.randint(key_count, (num_scenes, 1), 1, max_known + 1)
    none = jax.random.bernoulli(key_none, unconditional, (num_scenes, 1))
    rank = jnp.argsort(jax.random.uniform(key_order, shape), axis=-1)
    return rank < jnp.where(none, 0, count)


def drop_class(key: Array, class_label: Array, share: float) -> Array:
    """The labels [B], a random share of them replaced by `NO_CLASS`."""
    dropped = jax.random.bernoulli(key, share, class_label.shape)
    return jnp.where(dropped, NO_CLASS, class_label)
