"""How much samples of one scene differ from each other.

Samples that are all alike have a diversity of 0; it says nothing about how good they are.

Letters: K samples of a scene, H, W image, C channels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def deviation_map(samples: Array) -> Array:
    """Standard deviation of each pixel's colours over samples [K, ..., H, W, C] -> [..., H, W].

    Of K values, not of K - 1, and averaged over the channels; colours are clipped to [0, 1]. Bright
    where the scene is uncertain.

    Raises:
      ValueError: if there are fewer than two samples.
    """
    return jnp.clip(_checked(samples), 0.0, 1.0).std(axis=0).mean(axis=-1)


def mean_pairwise(distance: Callable[[Array, Array], Array], samples: Array) -> Array:
    """Mean of a distance over the K (K - 1) / 2 pairs of samples [K, ..., H, W, C] -> [...].

    Args:
      distance: symmetric, of images [..., H, W, C] and as many others -> [...]; for example
        `vision.lpips.Lpips`.
      samples: images of the same views in the same order.

    Raises:
      ValueError: if there are fewer than two samples.
    """
    samples = _checked(samples)
    first, second = np.triu_indices(len(samples), k=1)
    # One pair after the other: all at once would hold K^2 / 2 pairs of feature maps.
    each = jax.lax.map(lambda pair: distance(samples[pair[0]], samples[pair[1]]), (first, second))
    return each.mean(axis=0)


def _checked(samples: Array) -> Array:
    samples = jnp.asarray(samples)
    if samples.ndim < 4 or samples.shape[0] < 2:
        raise ValueError(
            f"expected 2 samples or more as [K, ..., H, W, C], got {samples.shape}; draw more"
        )
    return samples
