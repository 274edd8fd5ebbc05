"""Views of scenes as the tasks see them: float images with their cameras.

Letters: B scenes, K views, H W image.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax import settings
from lgs_jax.core.cameras import Cameras

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Views:
    """Images [B, K, H, W, 3] in [0, 1] and the cameras [B, K] that took them."""

    images: Array
    cameras: Cameras


def from_batch(group: Mapping[str, Any]) -> Views:
    """The views of one group (`context` or `target`) of a batch of the data pipeline."""
    return Views(
        images=jnp.asarray(group["images"], jnp.float32) / 255.0,
        cameras=Cameras(jnp.asarray(group["world_from_cam"]), jnp.asarray(group["intrinsics"])),
    )


def concatenate(first: Views, second: Views) -> Views:
    """All views of both, the first ones first."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first, second)


def draw(key: Array, group: Views, count: int) -> Views:
    """`count` different views, the same ones of every scene."""
    chosen = jax.random.permutation(key, group.images.shape[1])[:count]
    return jax.tree.map(lambda x: x[:, chosen], group)


def nearest(context: Views, target: Views) -> Array:
    """The context image [B, K, H, W, 3] that is nearest to each target view.

    Distance is that of the camera centres plus the angle between the view directions times the mean
    distance of the context cameras from their mean: turning counts as much as walking.
    """
    offsets = target.cameras.centers[:, :, None] - context.cameras.centers[:, None]
    forward_target = target.cameras.world_from_cam[..., :3, 2]
    forward_context = context.cameras.world_from_cam[..., :3, 2]
    cosine = jnp.einsum("btd,bvd->btv", forward_target, forward_context)
    centers = context.cameras.centers
    spread = jnp.linalg.norm(centers - centers.mean(1, keepdims=True), axis=-1).mean(1)
    distance = jnp.linalg.norm(offsets, axis=-1)
    distance += spread[:, None, None] * jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    index = jnp.argmin(distance, axis=-1)
    return jnp.take_along_axis(context.images, index[:, :, None, None, None], axis=1)


def example_cameras(num_views: int, image_size: tuple[int, int]) -> Cameras:
    """Cameras [1, V] of the right shapes, to initialise a network with."""
    height, width = image_size
    intrinsics = jnp.array([width, width, width / 2, height / 2], jnp.float32)
    return Cameras(
        jnp.broadcast_to(jnp.eye(4), (1, num_views, 4, 4)),
        jnp.broadcast_to(intrinsics, (1, num_views, 4)),
    )


def check_image_size(image_size: tuple[int, int], multiple: int) -> None:
    """Refuses image sizes H, W that the network cannot halve.

    Raises:
      lgs_jax.settings.SettingsError: that names the size.
    """
    for name, length in zip(("height", "width"), image_size, strict=True):
        if length % multiple:
            raise settings.SettingsError(
                f"config.data.{name}={length} must be a multiple of {multiple}, by which "
                "config.model reduces the images; change it, or give fewer config.model.widths"
            )
