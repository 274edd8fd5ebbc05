"""Rendering of Gaussians: projection, compositing by one of the implementations, background.

Letters: I images (all leading dimensions folded), N Gaussians, C colour channels.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import sharding
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering import output
from lgs_jax.rendering.output import Rendering
from lgs_jax.rendering.splat import constants, dispatch, projection

Array = jax.Array
ImageAxes = str | tuple[str, ...] | jax.sharding.PartitionSpec | None


def render_gaussians(
    scene: Gaussians,
    cameras: Cameras,
    *,
    height: int,
    width: int,
    background: Any,
    depth_mode: str | None,
    near: float,
    far: float,
    implementation: str | None,
    antialiased: bool = False,
    camera_model: str = "pinhole",
    eps2d: float = constants.EPS2D,
    capacity: int | None = None,
    tile_size: int | None = None,
    slots_per_splat: int | None = None,
    image_axes: ImageAxes = None,
) -> Rendering:
    """Renders Gaussians [S..., N] into cameras [S..., ...]; see `rendering.api.render`.

    Args:
      scene: Gaussians whose leading dimensions are a prefix of the cameras'.
      cameras: cameras [...].
      height: rows of the image.
      width: columns of the image.
      background: a number, [C] or [..., C].
      depth_mode: "expected", "accumulated" or None.
      near: nearest depth drawn, exclusive.
      far: farthest depth drawn, exclusive.
      implementation: a name in `dispatch.IMPLEMENTATIONS`, or None.
      antialiased: scales opacities so that the pixel blur keeps the energy of small splats
        (Mip-Splatting; Yu et al. 2024).
      camera_model: "pinhole", or "orthographic" with focal lengths in pixels per unit of length.
      eps2d: variance of the pixel blur in px^2.
      capacity: most (splat, tile) pairs drawn per image; beyond it the farthest splats are cut and
        counted in `aux["overflow"]`. None sets no bound and is exact.
      tile_size: side of a tile in pixels; None chooses by the size of the image.
      slots_per_splat: (splat, tile) pairs, per splat, that are listed at a time. Only time and
        memory depend on it, never the image; `lists.slots_for` chooses it by what a scene needs,
        None is the implementation's default.
      image_axes: axes of the mesh in context (`jax.set_mesh`) over which the first of the cameras'
        dimensions is split, or a `PartitionSpec` of all of them and of the rows; every device then
        projects and draws its own, from all splats of its scenes. None leaves it to the compiler,
        which is right but draws all images on all devices.

    Returns:
      A Rendering; `aux["required"]` counts the (splat, tile) pairs of each image and
      `aux["overflow"]` those cut by the capacity.
    """
    scene.check()
    _check_options(antialiased, camera_model, eps2d)
    scene, cameras = output.promote(scene, cameras)
    lead = cameras.batch_shape
    scene = _align(scene, lead)
    return _draw(
        scene,
        cameras,
        output.backdrop(background, lead, scene.colors),
        lens=_Lens(height, width, near, far, float(eps2d), camera_model),
        antialiased=bool(antialiased),
        depth_mode=depth_mode,
        implementation=implementation,
        sizes=_Sizes.checked(
            capacity=capacity, tile_size=tile_size, slots_per_splat=slots_per_splat
        ),
        image_axes=image_axes,
    )


class _Lens(NamedTuple):
    """The part of the options that the projection takes."""

    height: int
    width: int
    near: float
    far: float
    eps2d: float
    camera_model: str


class _Sizes(NamedTuple):
    """The part of the options that only the compositing takes."""

    capacity: int | None
    tile_size: int | None
    slots_per_splat: int | None

    @classmethod
    def checked(cls, **sizes: Any) -> "_Sizes":
        """Of whole numbers and None, which is the default."""
        return cls(**{k: v if v is None else output.positive_int(k, v) for k, v in sizes.items()})


# Compiled here too, so that a call outside of `jit` is not hundreds of small operations.
@functools.partial(
    jax.jit,
    static_argnames=(
        "lens",
        "antialiased",
        "depth_mode",
        "implementation",
        "sizes",
        "image_axes",
    ),
)
def _draw(
    scene: Gaussians,
    cameras: Cameras,
    background: Array,
    *,
    lens: _Lens,
    antialiased: bool,
    depth_mode: str | None,
    implementation: str | None,
    sizes: _Sizes,
    image_axes: ImageAxes,
) -> Rendering:
    draw = functools.partial(
        _draw_rows,
        lens=lens,
        antialiased=antialiased,
        depth_mode=depth_mode,
        composite=functools.partial(
            dispatch.composite,
            implementation,
            width=lens.width,
            near=lens.near,
            far=lens.far,
            **sizes._asdict(),
        ),
    )
    lead = cameras.batch_shape
    if image_axes is None:
        return draw(scene, cameras, background, rows=jax.sharding.PartitionSpec(None))
    images, rows = output.split_images(image_axes, lead)
    if sizes.capacity is not None and rows[-1] is not None:
        raise ValueError(
            f"capacity={sizes.capacity} bounds whole images; it cannot go with {image_axes=}"
        )
    own = jax.sharding.PartitionSpec(
        *(axes if scene.batch_shape[i] == lead[i] else None for i, axes in enumerate(images))
    )
    # No operation crosses images or rows, so there is nothing to check.
    return jax.shard_map(
        functools.partial(draw, rows=rows),
        in_specs=(own, images, images),
        out_specs=Rendering(rgb=rows, alpha=rows, depth=rows, aux=images),
        check_vma=False,
    )(scene, cameras, background)


def _draw_rows(
    scene: Gaussians,
    cameras: Cameras,
    background: Array,
    *,
    rows: jax.sharding.PartitionSpec,
    lens: _Lens,
    antialiased: bool,
    depth_mode: str | None,
    composite: Callable,
) -> Rendering:
    """Draws the rows of this device (all, where `rows` ends in None)."""
    lead, channels = cameras.batch_shape, scene.num_channels
    splats = projection.project(scene, cameras, **lens._asdict())
    first_row, num_rows, row_axes = sharding.own_rows(rows, lens.height)
    if row_axes:
        splats = dataclasses.replace(splats, y=splats.y - first_row)
    # Products, which broadcast to the dimensions of the splats and vary over a mesh as these do.
    opacities = scene.opacities * (
        splats.compensation if antialiased else jnp.ones_like(splats.compensation)
    )
    features = scene.colors * jnp.ones_like(splats.depths)[..., None]
    if depth_mode is not None:
        features = jnp.concatenate([features, splats.depths[..., None]], axis=-1)
    folded = jax.tree.map(
        lambda a: a.reshape(math.prod(lead), *a.shape[len(lead) :]), (splats, opacities, features)
    )
    blended, transmittance, aux = composite(*folded, height=num_rows)
    aux = jax.lax.psum(aux, row_axes) if row_axes else aux
    blended, transmittance, aux = jax.tree.map(
        lambda a: a.reshape(*lead, *a.shape[1:]), (blended, transmittance[..., None], aux)
    )
    alpha = 1.0 - transmittance
    rgb = blended[..., :channels] + transmittance * background[..., None, None, :]
    depth = None if depth_mode is None else blended[..., channels:]
    if depth_mode == "expected":
        depth = depth / jnp.maximum(alpha, constants.MIN_ALPHA_FOR_DEPTH)
    return Rendering(rgb=rgb, alpha=alpha, depth=depth, aux=aux)


def _check_options(antialiased: bool, camera_model: str, eps2d: float) -> None:
    if not isinstance(antialiased, bool | np.bool_):
        raise ValueError(f"{antialiased=} must be True or False")
    if camera_model not in projection.CAMERA_MODELS:
        raise ValueError(f"{camera_model=} must be one of {projection.CAMERA_MODELS}")
    if not constants.MIN_EPS2D <= eps2d < math.inf:
        least = constants.MIN_EPS2D
        raise ValueError(f"{eps2d=} must be a number of at least {least} px^2, and finite")


def _align(scene: Gaussians, lead: tuple[int, ...]) -> Gaussians:
    """Gives the scene singleton dimensions so that it broadcasts against cameras `lead`."""
    own = scene.batch_shape
    output.check_prefix(own, lead)
    ones = (1,) * (len(lead) - len(own))

    def expand(array: Array) -> Array:
        return array.reshape(*own, *ones, *array.shape[len(own) :])

    return dataclasses.replace(scene, **{k: expand(v) for k, v in vars(scene).items()})
