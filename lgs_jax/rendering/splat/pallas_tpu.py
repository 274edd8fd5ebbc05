"""Tiled compositing as TPU kernels, written in Pallas (Mosaic).

One step of a grid blends one tile. The records of its list are streamed from HBM, K at a time, two
buffers in turn; K splats and P pixels form a block, whose products along the list are sums of
logarithms, and these a matrix product with a triangle of ones. The gradient replays the forward
pass the same way and writes a row of sums for every entry, which XLA then turns into gradients and
adds up by splat.

On a machine without a TPU the kernels are interpreted: slow, for tests.

Letters: I images, N splats, F features (G: padded to a multiple of 8), T tiles, P pixels of a tile,
S entries of a segment, K splats of a block, L rows of the stream.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from lgs_jax.rendering.splat import binning, constants, tiled
from lgs_jax.rendering.splat import tpu_streaming as streaming
from lgs_jax.rendering.splat.projection import Splats

Array = jax.Array

TILE = 16
# Entries that one launch has room for, per splat.
_ENTRIES = 8
_EXACT = {"precision": lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}


def composite(
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
) -> tuple[Array, Array, dict[str, Array]]:
    """Blends splats [I, N] with features [I, N, F] into [I, H, W, F]; see `reference.composite`.

    Raises:
      NotImplementedError: if the arrays are not float32, the tile size is neither 16 nor 32,
        there are more entries than 32 bits can count, or JAX has no Mosaic.
    """
    tiled.check_float32(features)
    num_images, num_splats, _ = features.shape
    if num_images == 0 or num_splats == 0:
        return tiled.nothing_to_draw(features, height, width)
    tile = tile_size or TILE
    if tile not in (16, 32):
        raise NotImplementedError(f"takes tiles of 16x16 or 32x32 pixels, not {tile}x{tile}")
    plan = tiled.plan_of_one_launch(
        height,
        width,
        tile=tile,
        num_images=num_images,
        num_splats=num_splats,
        entries=_ENTRIES,
        capacity=capacity,
    )
    return tiled.composite(
        _blend, plan, splats, opacities, features, near=near, far=far, capacity=capacity
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _blend(records: Array, bins: binning.Bins, plan: tiled.Plan) -> Array:
    """See `tiled.composite`."""
    return _blend_and_keep(records, bins, dataclasses.replace(plan, kept=0))[0]


def _blend_and_keep(records: Array, bins: binning.Bins, plan: tiled.Plan):
    table = streaming.wide_records(tiled.by_rank(records, bins))
    num_features = records.shape[-1] - tiled.GEOMETRY

    def visit(carry, ranks, offsets):
        stream = streaming.Stream.make(ranks, offsets, len(records), plan)
        return streaming.launch(
            _blend_tile,
            stream,
            table[stream.ranks],
            tile_inputs=carry,
            tile_outputs=carry,
            plan=plan,
        )

    pixels = plan.tile**2
    state = (
        jnp.zeros((plan.num_tiles, table.shape[-1] - streaming.SUBLANES, pixels)),
        jnp.ones((plan.num_tiles, streaming.SUBLANES, pixels)),
    )
    (out, signed), lists = tiled.blend_segments(
        visit, state, lambda state: jnp.any(state[1][:, 0] > 0, axis=-1), bins, plan
    )
    return jnp.concatenate([out[:, :num_features], jnp.abs(signed[:, :1])], axis=1), lists


def _blend_forward(records: Array, bins: binning.Bins, plan: tiled.Plan):
    out, lists = _blend_and_keep(records, bins, plan)
    return out, (records, bins, lists, out)


def _blend_backward(plan: tiled.Plan, residuals, cotangent: Array):
    """Replays the forward pass with what is still to come, R = v . (image - drawn so far)."""
    records, bins, lists, out = residuals
    table = tiled.by_rank(records, bins)
    wide = streaming.wide_records(table)
    num_splats, num_features = len(records), records.shape[-1] - tiled.GEOMETRY
    toward = streaming.pad(cotangent[:, :num_features], wide.shape[-1] - streaming.SUBLANES, axis=1)

    def visit(carry, ranks, offsets):
        state, gradient = carry
        stream = streaming.Stream.make(ranks, offsets, num_splats, plan)
        state, sums = streaming.launch(
            _replay_tile,
            stream,
            wide[stream.ranks],
            tile_inputs=(toward, state),
            tile_outputs=(state,),
            stream_outputs=1,
            plan=plan,
        )
        geometry = tiled.geometry_gradients(
            table[stream.ranks], sums, *tiled.tile_centers(stream.tiles, plan)
        )
        rows = jnp.concatenate(
            [geometry, sums[:, streaming.SUBLANES : streaming.SUBLANES + num_features]], axis=-1
        )
        return state, gradient.at[stream.ranks].add(rows, mode="drop")

    rest = jnp.sum(out * cotangent, axis=1)
    state = streaming.pad(
        jnp.stack([rest, jnp.ones_like(rest)], axis=1), streaming.SUBLANES, axis=1
    )
    _, gradient = tiled.replay_segments(
        visit,
        (state, jnp.zeros_like(records)),
        lambda carry: jnp.any(carry[0][:, 1] > 0, axis=-1),
        lists,
        bins,
        plan,
    )
    return jnp.zeros_like(records).at[bins.order].set(gradient, unique_indices=True), None


_blend.defvjp(_blend_forward, _blend_backward)


def _blend_tile(starts, counts, stream, *refs, plan: tiled.Plan):
    """Takes a tile's features [G, P] and transmittance [8, P] down its list.

    The first row of the transmittance counts; it is negated once a pixel has stopped.
    """
    before, signed_before, after, signed_after, buffers, arrived = refs
    blocks = streaming.Blocks.of_tile(pl.program_id(0), starts, counts, stream, buffers, arrived)
    triangle, offsets = _triangle(), _pixel_offsets(plan)

    def body(state):
        index, signed, out = state
        records, listed = blocks.take(index)
        alpha, _ = _alpha(records, offsets, listed, blocks.tile, plan)
        passing = jnp.maximum(signed, 0.0)
        behind = _running_product(triangle, 1.0 - alpha) * passing
        drawn = behind > constants.MIN_TRANSMITTANCE
        weight = jnp.where(drawn, behind * (alpha / (1.0 - alpha)), 0.0)
        out = out + lax.dot_general(
            records[:, streaming.SUBLANES :], weight, (((0,), (0,)), ((), ())), **_EXACT
        )
        # The last one that was drawn; 2 where none was.
        last = jnp.min(jnp.where(drawn, behind, 2.0), axis=0, keepdims=True)
        goes_on = jnp.min(jnp.where(drawn, 1.0, 0.0), axis=0, keepdims=True) > 0
        stopped = jnp.where(passing > 0, -jnp.minimum(last, passing), signed)
        return index + 1, jnp.where(goes_on, last, stopped), out

    start = (jnp.int32(0), signed_before[0, :1, :], before[0])
    _, signed, out = blocks.run(body, start)
    after[0] = out
    signed_after[0] = jnp.broadcast_to(signed, signed_after.shape[1:])


def _replay_tile(starts, counts, stream, *refs, plan: tiled.Plan):
    """Takes a tile's R and transmittance (rows 0 and 1 of [8, P]) down its list.

    Writes for every entry the sums over pixels of d loss / d sigma times the monomials, and of the
    weights times the cotangents [8 + G]. The transmittance is 0 once a pixel has stopped. Rows that
    a block writes past the end of its list are 0 and belong to tiles that come later, or to none.
    """
    monomials, toward, before, _, after, sums, buffers, arrived, row_buffer, written = refs
    blocks = streaming.Blocks.of_tile(pl.program_id(0), starts, counts, stream, buffers, arrived)
    triangle, offsets, wanted = _triangle(), _pixel_offsets(plan), toward[0]

    def body(state):
        index, passing, rest = state
        records, listed = blocks.take(index)
        alpha, raw = _alpha(records, offsets, listed, blocks.tile, plan)
        behind = _running_product(triangle, 1.0 - alpha) * passing
        drawn = behind > constants.MIN_TRANSMITTANCE
        here = behind / (1.0 - alpha)
        value = jnp.dot(records[:, streaming.SUBLANES :], wanted, **_EXACT)
        weight = jnp.where(drawn, here * alpha, 0.0)
        rests = rest - jnp.dot(triangle, weight * value, **_EXACT)
        v_alpha = here * value - rests / (1.0 - alpha)
        free = drawn & (alpha > 0) & (raw <= constants.MAX_ALPHA)
        v_sigma = jnp.where(free, -raw * v_alpha, 0.0)
        row_buffer[...] = jnp.concatenate(
            [
                jnp.dot(v_sigma, monomials[...], **_EXACT),
                lax.dot_general(weight, wanted, (((1,), (1,)), ((), ())), **_EXACT),
            ],
            axis=1,
        )
        blocks.store(index, row_buffer, sums, written)
        goes_on = jnp.min(jnp.where(drawn, behind, 0.0), axis=0, keepdims=True)
        last = rest - jnp.sum(weight * value, axis=0, keepdims=True)
        return index + 1, goes_on, last

    start = (jnp.int32(0), before[0, 1:2, :], before[0, 0:1, :])
    _, passing, rest = blocks.run(body, start)
    after[0] = jnp.concatenate(
        [rest, passing, jnp.zeros((streaming.SUBLANES - 2, plan.tile**2))], axis=0
    )


def _triangle() -> Array:
    """Ones on and below the diagonal [K, K]: sums of what comes first."""
    rows, columns = (
        lax.broadcasted_iota(jnp.int32, (streaming.BLOCK, streaming.BLOCK), i) for i in (0, 1)
    )
    return (rows >= columns).astype(jnp.float32)


def _running_product(triangle: Array, factors: Array) -> Array:
    """Products of the first 1, 2, ... K factors [K, P], all between 0.01 and 1."""
    return jnp.exp(jnp.dot(triangle, jnp.log(factors), **_EXACT))


def _pixel_offsets(plan: tiled.Plan) -> tuple[Array, Array]:
    """Pixel centres relative to the centre of their tile, x and y [1, P]."""
    index = lax.broadcasted_iota(jnp.int32, (1, plan.tile**2), 1)
    shift = 0.5 - plan.tile / 2
    x = (index & (plan.tile - 1)).astype(jnp.float32) + shift
    row = lax.shift_right_logical(index, np.int32(plan.tile.bit_length() - 1))
    return x, row.astype(jnp.float32) + shift


def _alpha(records: Array, offsets, listed: Array, tile: Array, plan: tiled.Plan):
    """Opacity of K splats at P pixels, 0 where skipped, and the same unclamped [K, P]."""
    column = lax.rem(tile, plan.columns)
    row = lax.rem(lax.div(tile, plan.columns), plan.rows)
    middle_x, middle_y = ((i.astype(jnp.float32) + 0.5) * plan.tile for i in (column, row))
    x, y, xx, xy, yy, log_opacity = (records[:, i : i + 1] for i in range(tiled.GEOMETRY))
    dx, dy = (x - middle_x) - offsets[0], (y - middle_y) - offsets[1]
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    log_alpha = log_opacity - sigma
    seen = (sigma >= 0) & (log_alpha >= math.log(constants.MIN_ALPHA)) & listed
    raw = jnp.where(seen, jnp.exp(log_alpha), 0.0)
    return jnp.minimum(raw, constants.MAX_ALPHA), raw
