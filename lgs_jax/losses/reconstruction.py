"""Pixel-wise reconstruction errors.

Letters: H, W image, C channels.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def l1(images: Array, truth: Array, mask: Array | None = None) -> Array:
    """Mean absolute error per image, [..., H, W, C] -> [...]; see `_image_mean` for the mask."""
    return _image_mean(jnp.abs(_difference(images, truth)), mask)


def l2(images: Array, truth: Array, mask: Array | None = None) -> Array:
    """Mean squared error per image, [..., H, W, C] -> [...]; see `_image_mean` for the mask."""
    return _image_mean(jnp.square(_difference(images, truth)), mask)


def _difference(images: Array, truth: Array) -> Array:
    """images - truth, without silent broadcasting: a missing dimension would be a wrong loss."""
    if images.shape != truth.shape:
        raise ValueError(f"images {images.shape} and truth {truth.shape} must have one shape")
    return images - truth


def _image_mean(errors: Array, mask: Array | None) -> Array:
    """Mean of errors [..., H, W, C] over each image.

    A mask [..., H, W, 1] of weights >= 0 makes it the weighted mean; an image without any weight
    gets 0, so that it adds nothing to a loss.

    Raises:
      ValueError: if the mask is not [..., H, W, 1] of the images' shape.
    """
    if mask is None:
        return jnp.mean(errors, axis=(-3, -2, -1))
    if mask.shape != (*errors.shape[:-1], 1):
        raise ValueError(
            f"mask has shape {mask.shape}, but images {errors.shape} ask for "
            f"{(*errors.shape[:-1], 1)}"
        )
    weight = jnp.sum(mask, axis=(-3, -2, -1)) * errors.shape[-1]
    total = jnp.sum(errors * mask, axis=(-3, -2, -1))
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)
