"""Rendering of fields: rays of all pixels in pieces of bounded size, background.

Letters: S scenes (leading dimensions folded), R rays of a scene, C colour channels.
"""

import dataclasses
import functools
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from lgs_jax.core import rays, sharding
from lgs_jax.core.cameras import Cameras
from lgs_jax.rendering import output
from lgs_jax.rendering.output import Rendering
from lgs_jax.rendering.volume import integrate

Array = jax.Array

# Most samples that are looked at together, of all scenes: what a step needs of memory is this times
# a few times the floats per sample. Gradients look at the samples again, piece by piece.
POINTS_PER_PIECE = 2**17
# Floor of alpha where the accumulated depth is divided by it: a field's opacity comes continuously
# near 0, where the quotient's gradient has no bound.
MIN_ALPHA_FOR_DEPTH = 1e-4


class Field(Protocol):
    """What `render_field` draws: a pytree whose arrays share leading dimensions [...]."""

    samples: integrate.Samples
    batch_shape: tuple[int, ...]
    num_channels: int

    def check(self) -> "Field":
        """Raises ValueError if the shapes do not fit."""

    def field(self, points: Array) -> tuple[Array, Array]:
        """Of one scene: density per unit of length [N] and colours [N, C] at points [N, 3]."""


def render_field(
    scene: Field,
    cameras: Cameras,
    *,
    height: int,
    width: int,
    background: Any,
    depth_mode: str | None,
    near: float,
    far: float,
    implementation: str | None,
    key: Array | None = None,
    image_axes: str | tuple[str, ...] | jax.sharding.PartitionSpec | None = None,
    **unknown: Any,
) -> Rendering:
    """Renders fields [S...] into cameras [S..., ...]; see `rendering.api.render`.

    Args:
      scene: whose leading dimensions are a prefix of the cameras'; says how many samples are taken
        between which depths.
      cameras: cameras [...].
      height: rows of the image.
      width: columns of the image.
      background: a number, [C] or [..., C].
      depth_mode: "expected", "accumulated" or None.
      near: nearest depth looked at, where the scene's own is nearer.
      far: farthest depth looked at, where the scene's own is farther.
      implementation: None; there is only one.
      key: draws a place for each sample in its bin, instead of the middle; with `image_axes` the
        places depend on the mesh.
      image_axes: axes of the mesh in context (`jax.set_mesh`) over which the first of the cameras'
        dimensions is split, or a `PartitionSpec` of all of them and of the rows; every device then
        draws its own. None leaves it to the compiler.
      **unknown: options of other renderers, which are refused.

    Returns:
      A Rendering; `aux["overflow"]` is 0, since no bound cuts anything.

    Raises:
      TypeError: if an option is unknown.
      ValueError: if shapes do not fit.
      NotImplementedError: if an implementation is named.
    """
    kind = type(scene).__name__
    if unknown:
        raise TypeError(
            f"{', '.join(unknown)}: not an option of a {kind}, which is drawn by volume rendering; "
            "its own are key and image_axes"
        )
    if implementation is not None:
        raise NotImplementedError(f"{implementation=}: a {kind} has one implementation; give None")
    scene.check()
    lead, own = cameras.batch_shape, scene.batch_shape
    output.check_prefix(own, lead)
    scene, cameras = output.promote(scene, cameras)
    colors, alpha, depth = _drawer(scene, lead, image_axes)(
        scene, cameras, key, size=(height, width), limits=(near, far)
    )
    behind = output.backdrop(background, lead, colors)[..., None, None, :]
    rgb = colors + (1.0 - alpha) * behind
    if depth_mode == "expected":
        depth = depth / jnp.maximum(alpha, MIN_ALPHA_FOR_DEPTH)
    return Rendering(
        rgb=rgb,
        alpha=alpha,
        depth=None if depth_mode is None else depth,
        aux={"overflow": jnp.zeros(lead, jnp.int32)},
    )


# Compiled here too, so that a call outside of `jit` is not hundreds of small operations.
@functools.partial(jax.jit, static_argnames=("size", "limits"))
def _draw(
    scene: Field,
    cameras: Cameras,
    key: Array | None,
    *,
    size: tuple[int, int],
    limits: tuple[float, float],
) -> integrate.Integrals:
    """Colours [..., H, W, C], opacities and accumulated depths [..., H, W, 1]."""
    lead, own = cameras.batch_shape, scene.batch_shape
    num_scenes, count = math.prod(own), scene.samples.count
    scene = jax.tree.map(lambda x: x.reshape(num_scenes, *x.shape[len(own) :]), scene)
    num_rays = math.prod((*lead[len(own) :], *size))
    # Pieces of equal size, so that as few rays as possible are drawn in vain at the end.
    pieces = max(1, math.ceil(num_scenes * num_rays * count / POINTS_PER_PIECE))
    per_piece = math.ceil(num_rays / min(pieces, num_rays))
    pieces = math.ceil(num_rays / per_piece)

    def cut(x: Array) -> Array:
        """[..., H, W, 3] -> [pieces, S, rays of a piece, 3]."""
        x = x.reshape(num_scenes, num_rays, 3)
        x = jnp.pad(x, ((0, 0), (0, pieces * per_piece - num_rays), (0, 0)), mode="edge")
        return jnp.moveaxis(x.reshape(num_scenes, pieces, per_piece, 3), 1, 0)

    def of_scene(scene: Field, origins: Array, directions: Array, jitter: Array | None) -> Any:
        depths, widths = integrate.bins(scene.samples.clipped(*limits), jitter)
        return integrate.integrate(scene.field, origins, directions, depths, widths)

    def draw(piece: tuple[Array, Array, Array]) -> integrate.Integrals:
        index, origins, directions = piece
        jitter = None
        if key is not None:
            shape = (num_scenes, per_piece, count)
            jitter = jax.random.uniform(jax.random.fold_in(key, index), shape)
        return jax.vmap(of_scene)(scene, origins, directions, jitter)

    origins, directions = (cut(x) for x in rays.pixel_rays(cameras, *size))
    # Without this the gradient would keep what every piece has computed.
    draw = jax.checkpoint(draw, prevent_cse=False)
    drawn = jax.lax.map(draw, (jnp.arange(pieces), origins, directions))

    def join(x: Array) -> Array:
        """[pieces, S, rays of a piece, ...] -> [..., H, W, channels]."""
        x = jnp.moveaxis(x, 0, 1).reshape(num_scenes, pieces * per_piece, -1)
        return x[:, :num_rays].reshape(*lead, *size, -1)

    return jax.tree.map(join, drawn)


def _drawer(scene: Field, lead: tuple[int, ...], image_axes: Any) -> Any:
    """`_draw`, on every device for its share of the cameras and of the rows."""
    if image_axes is None:
        return _draw
    images, rows = output.split_images(image_axes, lead)
    own = jax.sharding.PartitionSpec(*images[: len(scene.batch_shape)])

    def draw(scene: Field, cameras: Cameras, key: Array | None, **options: Any) -> Any:
        # No operation crosses images or rows, so there is nothing to check.
        return jax.shard_map(
            functools.partial(_draw_rows, rows=rows, **options),
            in_specs=(own, images, jax.sharding.PartitionSpec()),
            out_specs=rows,
            check_vma=False,
        )(scene, cameras, key)

    return draw


def _draw_rows(
    scene: Field,
    cameras: Cameras,
    key: Array | None,
    *,
    rows: jax.sharding.PartitionSpec,
    size: tuple[int, int],
    limits: tuple[float, float],
) -> integrate.Integrals:
    """`_draw` of the rows of this device: an image whose centre lies higher."""
    if key is not None:  # not the same places on every device
        key = jax.random.fold_in(key, sharding.own_place(rows))
    first_row, num_rows, _ = sharding.own_rows(rows, size[0])
    intrinsics = cameras.intrinsics.at[..., 3].add(-first_row)
    cameras = dataclasses.replace(cameras, intrinsics=intrinsics)
    return _draw(scene, cameras, key, size=(num_rows, size[1]), limits=limits)
