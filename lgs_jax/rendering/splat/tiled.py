"""What every tile-based implementation shares: records of splats, and the walk over their lists.

The lists of all tiles come in segments of fixed size (`binning`); an implementation says how one
segment is blended, and how its part of the gradient is summed.

Letters: I images, N splats, F features, T tiles, P pixels of a tile, S entries of a segment.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lgs_jax.rendering.splat import binning
from lgs_jax.rendering.splat.projection import Splats

Array = jax.Array

# Columns of a record before its features: centre x y, sharp_x, shear, sharp_y of `Splats`, and the
# logarithm of the opacity.
GEOMETRY = 6
# Stands for an opacity of 0, far below what is drawn.
_TINY = 1e-12
# Entries of the tiles' lists kept for the gradient, per splat.
_KEPT_ENTRIES = 16
# A change of a few splats should not mean another shape, and so another compilation.
_SEGMENT_MULTIPLE = 4096


@dataclasses.dataclass(frozen=True)
class Plan(binning.Grid):
    """How the work is cut; affects time only, never the image (but for rounding).

    Attributes:
      segment: S.
      kept: segments whose lists the forward pass keeps for the gradient.
    """

    segment: int
    kept: int


def segments_to_keep(num_splats: int, segment: int) -> int:
    """How many segments' lists are worth keeping for the gradient of so many splats."""
    return -(-_KEPT_ENTRIES * num_splats // segment)


def segment_size(slots: int) -> int:
    """The least size of a segment that has so many slots.

    Raises:
      NotImplementedError: if 32 bits cannot count them.
    """
    segment = -(-slots // _SEGMENT_MULTIPLE) * _SEGMENT_MULTIPLE
    if segment >= 2**31:
        raise NotImplementedError(
            f"{segment:,} entries at once are more than int32 counts; ask for fewer slots_per_splat"
        )
    return segment


def plan_of_one_launch(
    height: int,
    width: int,
    *,
    tile: int,
    num_images: int,
    num_splats: int,
    entries: int,
    capacity: int | None,
) -> Plan:
    """The plan of a kernel that draws all images at once, with room for `entries` a splat.

    A scene with more entries takes several launches. A capacity is meant for each image: images are
    then drawn one by one.

    Raises:
      NotImplementedError: if there are more entries than 32 bits can count.
    """
    images = num_images if capacity is None else 1
    grid = binning.Grid(height, width, tile, images)
    most = images * num_splats * min(entries, grid.num_tiles)
    if capacity is not None:
        most = min(capacity, most)
    segment = segment_size(most)
    kept = segments_to_keep(images * num_splats, segment)
    return Plan(height, width, tile, images, segment, kept)


def composite(
    make_plan: Callable[..., Plan],
    blend: Callable[[Array, binning.Bins, Any], Array],
    splats: Splats,
    opacities: Array,
    features: Array,
    *,
    height: int,
    width: int,
    near: float,
    far: float,
    capacity: int | None = None,
    tile_size: int | None = None,
    slots_per_splat: int | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """`reference.composite` by `blend`, as many images at a time as the plan says.

    Args:
      make_plan: (height, width, num_images=, num_splats=, capacity=, tile_size=, slots_per_splat=)
        -> how the work is cut; `plan.images` divides I.
      blend: (records [images * N, 6 + F], bins, plan) -> [T, F + 1, P]: features, then the final
        transmittance.
      splats: [I, N].
      opacities: [I, N].
      features: [I, N, F].
      height, width, near, far, capacity, tile_size, slots_per_splat: as in `reference.composite`.

    Raises:
      NotImplementedError: if the arrays are not float32, on which the exact order of depth relies,
        or `make_plan` declines.
    """
    if features.dtype != jnp.float32:
        raise NotImplementedError(f"takes float32, not {features.dtype}")
    num_images, num_splats, _ = features.shape
    if num_images == 0 or num_splats == 0:
        return _nothing_to_draw(features, height, width)
    plan = make_plan(
        height,
        width,
        num_images=num_images,
        num_splats=num_splats,
        capacity=capacity,
        tile_size=tile_size,
        slots_per_splat=slots_per_splat,
    )
    log_opacities = jnp.log(jnp.maximum(opacities, _TINY))
    columns = (splats.x, splats.y, splats.sharp_x, splats.shear, splats.sharp_y, log_opacities)
    records = jnp.concatenate([jnp.stack(columns, axis=-1), features], axis=-1)

    def draw(args):
        splats, opacities, records = args
        bins = binning.bin_splats(splats, opacities, plan, near=near, far=far, capacity=capacity)
        blended = blend(records.reshape(-1, records.shape[-1]), bins, plan)
        total = jnp.sum(bins.required)
        overflow = 0 * bins.required if capacity is None else (total - bins.drawn)[None]
        return _untile(blended, plan), {"required": bins.required, "overflow": overflow}

    def group(array):
        return array.reshape(-1, plan.images, *array.shape[1:])

    inputs = (*lax.stop_gradient((splats, opacities)), records)
    blended, aux = lax.map(draw, jax.tree.map(group, inputs))
    blended, aux = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (blended, aux))
    return blended[..., :-1], blended[..., -1], aux


def _nothing_to_draw(features: Array, height: int, width: int):
    """What `composite` returns without images or without splats."""
    num_images, _, num_features = features.shape
    none = jnp.zeros(num_images, jnp.int32)
    empty = jnp.zeros_like(features, shape=(num_images, height, width, num_features))
    return empty, jnp.ones_like(empty[..., 0]), {"required": none, "overflow": none}


def by_rank(records: Array, bins: binning.Bins) -> Array:
    """Records in order of depth, and one more that draws nothing [N + 1, 6 + F]."""
    nothing = jnp.zeros_like(records, shape=(1, records.shape[-1])).at[:, 5].set(math.log(_TINY))
    return jnp.concatenate([records[bins.order], nothing])


def pixel_offsets(plan: Plan) -> tuple[Array, Array]:
    """Pixel centres relative to the centre of their tile [P]."""
    index = jnp.arange(plan.tile**2)
    shift = jnp.float32(0.5 - plan.tile / 2)
    return index % plan.tile + shift, index // plan.tile + shift


def tile_centers(tiles: Array, plan: Plan) -> tuple[Array, Array]:
    """Centres of tiles [...] in their image, x and y."""
    column, row = tiles % plan.columns, tiles // plan.columns % plan.rows
    return tuple(((i + 0.5) * plan.tile).astype(jnp.float32) for i in (column, row))


def monomials(plan: Plan) -> Array:
    """1, x, y, x^2, xy, y^2 of the pixels' offsets from the centre of their tile [P, 6].

    Offsets from there are small, which keeps the cancellation in `geometry_gradients` harmless.
    """
    x, y = pixel_offsets(plan)
    return jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def geometry_gradients(records: Array, sums: Array, center_x: Array, center_y: Array) -> Array:
    """Gradients [..., 6] of the geometry of records [..., 6 + F] in one tile each.

    Args:
      records: the splats.
      sums: over the pixels, of d loss / d sigma times their `monomials` [..., 6].
      center_x, center_y: of the tile.
    """
    records, sums = ([a[..., i] for i in range(GEOMETRY)] for a in (records, sums))
    return jnp.stack(geometry_gradient(records, sums, center_x, center_y), axis=-1)


def geometry_gradient(
    record: Sequence[Array], sums: Sequence[Array], center_x: Array, center_y: Array
) -> tuple[Array, ...]:
    """`geometry_gradients` with one array for each of the six components."""
    s0, sx, sy, sxx, sxy, syy = sums
    x, y, sharp_x, shear, sharp_y, _ = record
    # Across its ridge a splat is near its centre wherever it is seen: sums along that direction,
    # not along x, stay small for long thin ones too.
    mx, my = x - center_x, y - center_y
    mu = mx + shear * my
    su, suy = sx + shear * sy, sxy + shear * syy
    suu = sxx + shear * (sxy + suy)
    to_u, to_y = mu * s0 - su, my * s0 - sy
    to_uu = mu * mu * s0 - 2 * mu * su + suu
    to_uy = mu * to_y - my * su + suy
    to_yy = my * my * s0 - 2 * my * sy + syy
    return (
        sharp_x * to_u,
        shear * sharp_x * to_u + sharp_y * to_y,
        0.5 * to_uu,
        sharp_x * to_uy,
        0.5 * to_yy,
        -s0,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lists:
    """What `binning.segment` gave for the first ones: ranks [kept, S], offsets [kept, T + 1]."""

    ranks: Array
    offsets: Array


def blend_segments(visit, carry, running, bins: binning.Bins, plan: Plan) -> tuple[Any, Lists]:
    """Calls carry = visit(carry, ranks [S], offsets [T + 1]) for all segments, nearest first.

    Ends before the segments that no tile needs: `running(carry)` is bool [T].

    Returns:
      the last carry, and the first lists for `replay_segments`.
    """

    def step(state):
        index, carry, lists = state
        ranks, offsets = binning.segment(bins, index, plan.segment, plan)
        if plan.kept:
            lists = Lists(
                lists.ranks.at[index].set(ranks, mode="drop"),
                lists.offsets.at[index].set(offsets, mode="drop"),
            )
        return index + 1, visit(carry, ranks, offsets), lists

    lists = Lists(
        jnp.zeros_like(bins.order, shape=(plan.kept, plan.segment)),
        jnp.zeros_like(bins.order, shape=(plan.kept, plan.num_tiles + 1)),
    )
    remains = _remains(running, bins, plan)
    return lax.while_loop(remains, step, (jnp.int32(0), carry, lists))[1:]


def replay_segments(visit, carry, running, lists: Lists, bins: binning.Bins, plan: Plan) -> Any:
    """`blend_segments` once more, with the lists that were kept."""

    def step(state):
        index, carry = state
        ranks, offsets = lax.cond(
            index < plan.kept,
            lambda: (lists.ranks[index], lists.offsets[index]),
            lambda: binning.segment(bins, index, plan.segment, plan),
        )
        return index + 1, visit(carry, ranks, offsets)

    return lax.while_loop(_remains(running, bins, plan), step, (jnp.int32(0), carry))[1]


def _remains(running, bins: binning.Bins, plan: Plan):
    return lambda state: (state[0] * plan.segment < bins.drawn) & jnp.any(running(state[1]))


def _untile(tiled: Array, plan: Plan) -> Array:
    """[T, C, P] -> [I, H, W, C]."""
    side, channels = plan.tile, tiled.shape[1]
    image = tiled.reshape(plan.images, plan.rows, plan.columns, channels, side, side)
    image = image.transpose(0, 1, 4, 2, 5, 3)
    image = image.reshape(plan.images, plan.rows * side, plan.columns * side, channels)
    return image[:, : plan.height, : plan.width]
