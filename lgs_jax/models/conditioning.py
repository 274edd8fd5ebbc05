"""What a denoiser is told beside the noisy latents: cameras, known views, class, representation.

Letters: B scenes, V views, h, w latent map, c latent channels, R size of a representation.
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
      representation: [B, R] of what is there (`vision.representation`); None: nobody has said, and
        a task may draw one where scenes are sampled from nothing.
      represented: bool [B], where it is told; None with `representation`.
    """

    cameras: Cameras
    known: Array
    known_mask: Array
    class_label: Array
    representation: Array | None = None
    represented: Array | None = None

    def dropped(self) -> "Conditioning":
        """The same cameras and nothing else, for guidance."""
        return dataclasses.replace(
            self,
            known_mask=jnp.zeros_like(self.known_mask),
            class_label=jnp.full_like(self.class_label, NO_CLASS),
            represented=None if self.represented is None else jnp.zeros_like(self.represented),
        )


def random_known(key: Array, shape: tuple[int, int], *, max_known: int) -> Array:
    """Which views to encode as known ones, bool [B, V].

    A uniformly random number of 1 to `max_known` views of each scene, in random places.
    """
    key_count, key_order = jax.random.split(key)
    count = jax.random.randint(key_count, (shape[0], 1), 1, max_known + 1)
    return jnp.argsort(jax.random.uniform(key_order, shape), axis=-1) < count


def known_of_draw(scene_index: Array, draw: Array, num_views: int, *, max_known: int) -> Array:
    """As `random_known`, but a function of scene and draw (both [B]) alone; bool [B, V].

    No seed takes part: latents encoded once serve runs of all seeds.
    """

    def one(index: Array, number: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), index), number)
        return random_known(key, (1, num_views), max_known=max_known)[0]

    return jax.vmap(one)(jnp.asarray(scene_index), jnp.asarray(draw))


def drop_known(key: Array, known_mask: Array, share: float) -> Array:
    """Which views to tell, bool [B, V]: of a random share of the scenes none."""
    dropped = jax.random.bernoulli(key, share, (known_mask.shape[0], 1))
    return known_mask & ~dropped


def drop_representation(key: Array, known_mask: Array, share: float) -> Array:
    """Where to tell the representation, bool [B], for known views [B, V].

    Never where a view is known, which says all that it says; nor for a random share of the rest.
    """
    dropped = jax.random.bernoulli(key, share, known_mask.shape[:1])
    return ~(dropped | jnp.any(known_mask, axis=-1))


def drop_class(key: Array, class_label: Array, share: float) -> Array:
    """The labels [B], a random share of them replaced by `NO_CLASS`."""
    dropped = jax.random.bernoulli(key, share, class_label.shape)
    return jnp.where(dropped, NO_CLASS, class_label)
