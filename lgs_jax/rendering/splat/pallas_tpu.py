"""Tiled compositing as TPU kernels, written in Pallas (Mosaic).

One step of a grid blends one tile. The records of its list are streamed from HBM, K at a time, two
buffers in turn; K splats and P pixels form a block, whose products along the list are sums of
logarithms, and these a matrix product with a triangle of ones. The gradient replays the forward
pass the same way and writes a column of gradients for every entry, which XLA then adds up by splat.

On a machine without a TPU the kernels are interpreted: slow, for tests.

Letters: I images, N splats, F features (G: padded to a multiple of 8), T tiles, P pixels of a tile,
S entries of a segment, K splats of a block, L columns of the stream.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lgs_jax.rendering.splat import binning, constants, tiled
from lgs_jax.rendering.splat import tpu_products as products
from lgs_jax.rendering.splat import tpu_streaming as streaming
from lgs_jax.rendering.splat.projection import Splats
from lgs_jax.rendering.splat.tpu_tables import Table

Array = jax.Array

TILE = 16
# Entries that one launch has room for, per splat; a pixel-aligned scene of six views of 96x96 has
# 1.54 in one more such view.
_ENTRIES = 2
# The tiles' lists begin at numbers that are kept in a memory of 1 MiB.
_MOST_TILES = 2**18 - 2**12


def composite(
    splats: Splats, opacities: Array, features: Array, **options: Any
) -> tuple[Array, Array, dict[str, Array]]:
    """Blends splats [I, N] with features [I, N, F] into [I, H, W, F]; see `tiled.composite`.

    Raises:
      NotImplementedError: if the arrays are not float32, the tile size is neither 16 nor 32,
        there are more entries than 32 bits can count or more tiles than fit into scalar memory,
        or JAX has no Mosaic.
    """
    return tiled.composite(make_plan, _blend, splats, opacities, features, **options)


def make_plan(
    height: int,
    width: int,
    *,
    num_images: int,
    num_splats: int,
    capacity: int | None = None,
    tile_size: int | None = None,
    slots_per_splat: int | None = None,
) -> tiled.Plan:
    """How `composite` cuts its work; declines what it declines."""
    tile = tile_size or TILE
    if tile not in (16, 32):
        raise NotImplementedError(f"takes tiles of 16x16 or 32x32 pixels, not {tile}x{tile}")
    plan = tiled.plan_of_one_launch(
        height,
        width,
        tile=tile,
        num_images=num_images,
        num_splats=num_splats,
        entries=slots_per_splat or _ENTRIES,
        capacity=capacity,
    )
    if plan.num_tiles > _MOST_TILES:
        raise NotImplementedError(
            f"{plan.num_tiles:,} tiles at once are more than {_MOST_TILES:,}, for which a TPU has "
            f"scalar memory; draw fewer than {num_images} images at a time"
        )
    return plan


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _blend(records: Array, bins: binning.Bins, plan: tiled.Plan) -> Array:
    """See `tiled.composite`."""
    return _blend_and_keep(records, bins, dataclasses.replace(plan, kept=0))[0]


def _blend_and_keep(records: Array, bins: binning.Bins, plan: tiled.Plan):
    columns = streaming.wide_records(tiled.by_rank(records, bins))
    table = Table(len(records) + 1, len(columns))
    num_features = records.shape[-1] - tiled.GEOMETRY
    pixels = plan.tile**2
    state = (
        jnp.zeros((plan.num_tiles, len(columns) - streaming.SUBLANES, pixels)),
        jnp.ones((plan.num_tiles, streaming.SUBLANES, pixels)),
    )
    (out, signed), lists = tiled.blend_segments(
        functools.partial(blend_segment, table=table, stored=table.store(columns), plan=plan),
        state,
        lambda state: jnp.any(state[1][:, 0] > 0, axis=-1),
        bins,
        plan,
    )
    return jnp.concatenate([out[:, :num_features], jnp.abs(signed[:, :1])], axis=1), lists


def blend_segment(
    state, ranks: Array, offsets: Array, *, table: Table, stored: Array, plan: tiled.Plan
):
    """Takes all tiles' states down the lists of a segment.

    Args:
      state: features [T, G, P] and signed transmittance [T, 8, P]; see `_blend_tile`.
      ranks, offsets: of `binning.segment`.
      table, stored: how the splats' `streaming.wide_records` are stored, by rank, and where.
      plan: how the work is cut.
    """
    stream = streaming.Stream.make(ranks, offsets, table.records - 1, plan)
    return streaming.launch(
        _blend_tile,
        stream,
        table.fetch(stored, stream.ranks),
        tile_inputs=state,
        tile_outputs=state,
        plan=plan,
    )


def _blend_forward(records: Array, bins: binning.Bins, plan: tiled.Plan):
    out, lists = _blend_and_keep(records, bins, plan)
    return out, (records, bins, lists, out)


def _blend_backward(plan: tiled.Plan, residuals, cotangent: Array):
    """Replays the forward pass with what is still to come, R = v . (image - drawn so far)."""
    records, bins, lists, out = residuals
    columns = streaming.wide_records(tiled.by_rank(records, bins))
    table = Table(len(records) + 1, len(columns))
    num_features = records.shape[-1] - tiled.GEOMETRY
    toward = streaming.pad(cotangent[:, :num_features], len(columns) - streaming.SUBLANES, axis=1)
    replay = functools.partial(
        replay_segment, table=table, stored=table.store(columns), toward=toward, plan=plan
    )
    sums = _table_of_sums(table)
    rest = jnp.sum(out * cotangent, axis=1)
    state = streaming.pad(
        jnp.stack([rest, jnp.ones_like(rest)], axis=1), streaming.SUBLANES, axis=1
    )
    _, gradient = tiled.replay_segments(
        replay,
        (state, jnp.zeros(sums.shape)),
        lambda carry: jnp.any(carry[0][:, 1] > 0, axis=-1),
        lists,
        bins,
        plan,
    )
    columns = sums.load(gradient)
    geometry, features = columns[: tiled.GEOMETRY], columns[streaming.SUBLANES :][:num_features]
    gradient = jnp.concatenate([geometry, features]).T
    return jnp.zeros_like(records).at[bins.order].set(gradient, unique_indices=True), None


def replay_segment(
    carry,
    ranks: Array,
    offsets: Array,
    *,
    table: Table,
    stored: Array,
    toward: Array,
    plan: tiled.Plan,
):
    """Adds what the lists of a segment contribute to the gradient by the records.

    Args:
      carry: R and transmittance [T, 8, P], see `_replay_tile`, and the gradient so far, a table
        of all records but the last.
      ranks, offsets, table, stored, plan: as in `blend_segment`.
      toward: cotangents of the features [T, G, P].
    """
    state, gradient = carry
    stream = streaming.Stream.make(ranks, offsets, table.records - 1, plan)
    state, columns = streaming.launch(
        _replay_tile,
        stream,
        table.fetch(stored, stream.ranks),
        tile_inputs=(toward, state),
        tile_outputs=(state,),
        sums=True,
        plan=plan,
    )
    return state, _table_of_sums(table).add(gradient, stream.ranks, columns)


def _table_of_sums(table: Table) -> Table:
    """Without the last record, which draws nothing."""
    return dataclasses.replace(table, records=table.records - 1)


_blend.defvjp(_blend_forward, _blend_backward)


def _blend_tile(starts, stream, *refs, plan: tiled.Plan):
    """Takes a tile's features [G, P] and transmittance [8, P] down its list.

    The first row of the transmittance counts; it is negated once a pixel has stopped.
    """
    before, signed_before, after, signed_after, buffers, arrived = refs
    blocks = streaming.Blocks.of_tile(starts, stream, buffers, arrived)
    triangle, offsets = _triangle(), _pixel_offsets(plan)
    copier = products.copier(tiled.GEOMETRY, streaming.LANES)

    def body(state):
        block, signed, out = state
        records = blocks.take(block)
        alpha, _ = _alpha(records, offsets, copier, blocks.tile, plan)
        passing = jnp.maximum(signed, 0.0)
        behind, inverse = _running_product(triangle, 1.0 - alpha)
        behind = behind * passing
        drawn = behind > constants.MIN_TRANSMITTANCE
        weight = jnp.where(drawn, behind * inverse * alpha, 0.0)
        features = products.stack(records[streaming.SUBLANES :])
        out = out + products.stacked_dot(features, weight)
        lowest = jnp.min(behind, axis=0, keepdims=True)
        # The last one that was drawn; 2 where none was.
        last = jnp.min(jnp.where(drawn, behind, 2.0), axis=0, keepdims=True)
        stopped = jnp.where(passing > 0, -jnp.minimum(last, passing), signed)
        signed = jnp.where(lowest > constants.MIN_TRANSMITTANCE, lowest, stopped)
        return block + 1, signed, out

    _, signed, out = blocks.run(body, signed_before[0, :1, :], before[0])
    after[0] = out
    signed_after[0] = jnp.broadcast_to(signed, signed_after.shape[1:])


def _replay_tile(starts, stream, *refs, plan: tiled.Plan):
    """Takes a tile's R and transmittance (rows 0 and 1 of [8, P]) down its list.

    Writes the gradient [8 + G] by every record. The transmittance is 0 once a pixel has stopped.
    """
    monomials, toward, before, after, sums, buffers, arrived, sum_buffers, written = refs
    blocks = streaming.Blocks.of_tile(starts, stream, buffers, arrived)
    gradients = streaming.Sums(blocks, sums, sum_buffers, written)
    triangle, offsets = _triangle(), _pixel_offsets(plan)
    copier = products.copier(tiled.GEOMETRY, streaming.LANES)
    monomials, wanted = products.stack(monomials[...]), products.stack(toward[0])

    def body(state):
        block, passing, rest = state
        records = blocks.take(block)
        alpha, raw = _alpha(records, offsets, copier, blocks.tile, plan)
        behind, inverse = _running_product(triangle, 1.0 - alpha)
        behind = behind * passing
        drawn = behind > constants.MIN_TRANSMITTANCE
        here = behind * inverse
        value = products.inner_dot(records[streaming.SUBLANES :], wanted)
        weight = jnp.where(drawn, here * alpha, 0.0)
        share = weight * value
        v_alpha = here * value - (rest - products.exact_dot(triangle, share)) * inverse
        free = drawn & (alpha > 0) & (raw <= constants.MAX_ALPHA)
        v_sigma = jnp.where(free, -raw * v_alpha, 0.0)
        moments = products.stacked_dot(monomials, v_sigma, over=1)
        geometry = tiled.geometry_gradient(
            _rows(records), _rows(moments), *_center(blocks.tile, plan)
        )
        nothing = jnp.zeros((streaming.SUBLANES - tiled.GEOMETRY, streaming.BLOCK))
        features = products.stacked_dot(wanted, weight, over=1)
        gradients.put(block, jnp.concatenate([*geometry, nothing, features], axis=0))
        lowest = jnp.min(behind, axis=0, keepdims=True)
        passing = jnp.where(lowest > constants.MIN_TRANSMITTANCE, lowest, 0.0)
        return block + 1, passing, rest - jnp.sum(share, axis=0, keepdims=True)

    block, passing, rest = blocks.run(body, before[0, 1:2, :], before[0, 0:1, :])
    gradients.finish(block)
    after[0] = jnp.concatenate(
        [rest, passing, jnp.zeros((streaming.SUBLANES - 2, plan.tile**2))], axis=0
    )


def _rows(array: Array) -> list[Array]:
    """The components [1, K] of a record's geometry, or of the moments."""
    return [array[i : i + 1] for i in range(tiled.GEOMETRY)]


def _triangle() -> Array:
    """Ones on and below the diagonal [K, K]: sums of what comes first."""
    rows, columns = (
        lax.broadcasted_iota(jnp.int32, (streaming.BLOCK, streaming.BLOCK), i) for i in (0, 1)
    )
    return (rows >= columns).astype(jnp.float32).astype(jnp.bfloat16)


def _running_product(triangle: Array, factors: Array) -> tuple[Array, Array]:
    """Products of the first 1, 2, ... K factors [K, P], all between 0.01 and 1, and 1 / factor."""
    logarithms = jnp.log(factors)
    return jnp.exp(products.exact_dot(triangle, logarithms)), jnp.exp(-logarithms)


def _pixel_offsets(plan: tiled.Plan) -> tuple[Array, Array]:
    """Pixel centres relative to the centre of their tile, x and y [1, P]."""
    index = lax.broadcasted_iota(jnp.int32, (1, plan.tile**2), 1)
    shift = 0.5 - plan.tile / 2
    x = (index & (plan.tile - 1)).astype(jnp.float32) + shift
    row = lax.shift_right_logical(index, np.int32(plan.tile.bit_length() - 1))
    return x, row.astype(jnp.float32) + shift


def _center(tile: Array, plan: tiled.Plan) -> tuple[Array, Array]:
    """Centre of a tile in its image, x and y."""
    column = lax.rem(tile, plan.columns)
    row = lax.rem(lax.div(tile, plan.columns), plan.rows)
    return tuple((i.astype(jnp.float32) + 0.5) * plan.tile for i in (column, row))


def _alpha(records: Array, offsets, copier: Array, tile: Array, plan: tiled.Plan):
    """Opacity of K splats at P pixels, 0 where skipped, and the same unclamped [K, P]."""
    center_x, center_y = _center(tile, plan)
    x, y, sharp_x, shear, sharp_y, log_opacity = _rows(records)
    rows = (x - center_x, y - center_y, 0.5 * sharp_x, shear, 0.5 * sharp_y, log_opacity)
    columns = products.copy_along(jnp.concatenate(rows, axis=0), copier)
    x, y, sharp_x, shear, sharp_y, log_opacity = (
        jnp.concatenate([column] * (plan.tile**2 // streaming.LANES), axis=1) for column in columns
    )
    dx, dy = x - offsets[0], y - offsets[1]
    across = dx + shear * dy
    sigma = sharp_x * across * across + sharp_y * dy * dy
    log_alpha = log_opacity - sigma
    seen = log_alpha >= math.log(constants.MIN_ALPHA)
    raw = jnp.where(seen, jnp.exp(log_alpha), 0.0)
    return jnp.minimum(raw, constants.MAX_ALPHA), raw
