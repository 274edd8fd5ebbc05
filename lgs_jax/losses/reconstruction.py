"""Pixel-wise reconstruction errors.

Letters: H, W image, C channels.
"""

import jax
import jax.numpy as jnp

Array = jax.Array

_IMAGE_AXES = (-3, -2, -1)


def l1(images: Array, truth: Array) -> Array:
    """Mean absolute error per image, [..., H, W, C] -> [...]."""
    return jnp.mean(jnp.abs(_difference(images, truth)), axis=_IMAGE_AXES)


def l2(images: Array, truth: Array) -> Array:
    """Mean squared error per image, [..., H, W, C] -> [...]."""
    return jnp.mean(jnp.square(_difference(images, truth)), axis=_IMAGE_AXES)


def _difference(images: Array, truth: Array) -> Array:
    """images - truth, without silent broadcasting: a missing dimension would be a wrong loss."""
    if images.shape != truth.shape:
        raise ValueError(f"images {images.shape} and truth {truth.shape} must have one shape")
    return images - truth
