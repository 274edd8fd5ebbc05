"""Tiled compositing as GPU kernels, written in Pallas (Triton).

One program blends one tile: its pixels are one vector, and it walks down the tile's list splat by
splat. All images of a batch are drawn by one launch, longest lists first. The gradient replays the
forward pass; every (splat, tile) pair writes its own row where it stands in the sequence of
entries (`binning`), so that the rows of a splat are neighbours, and a second kernel adds those up.
Nothing is added by atomics: a gradient is the same to the last bit whenever it is computed.

On a machine without a GPU the kernels are interpreted: slow, for tests.

Letters: I images, N splats, F features, T tiles, P pixels of a tile, S entries of a segment, R
splats of a program of the second kernel.
"""

import dataclasses
import functools
import math
import types
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from lgs_jax.rendering.splat import binning, constants, tiled
from lgs_jax.rendering.splat.projection import Splats

Array = jax.Array

# Entries that one launch has room for, per splat; see docs/rasterizer.md.
_ENTRIES = 4
# R, and how many rows of each of them are fetched at once.
_SPLATS, _ROWS = 32, 4


def composite(
    splats: Splats, opacities: Array, features: Array, **options: Any
) -> tuple[Array, Array, dict[str, Array]]:
    """Blends splats [I, N] with features [I, N, F] into [I, H, W, F]; see `tiled.composite`.

    Raises:
      NotImplementedError: if the arrays are not float32, the tile size is no power of two, there
        are more entries than 32 bits can count, or JAX has no Triton.
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
    tile = tile_size or (8 if height * width <= 256**2 else 16)
    if tile & (tile - 1):
        raise NotImplementedError(f"takes tiles with a power of two of pixels, not {tile}x{tile}")
    return tiled.plan_of_one_launch(
        height,
        width,
        tile=tile,
        num_images=num_images,
        num_splats=num_splats,
        entries=slots_per_splat or _ENTRIES,
        capacity=capacity,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _blend(records: Array, bins: binning.Bins, plan: tiled.Plan) -> Array:
    """See `tiled.composite`."""
    return _blend_and_keep(records, bins, dataclasses.replace(plan, kept=0))[0]


def _blend_and_keep(records: Array, bins: binning.Bins, plan: tiled.Plan):
    table = tiled.by_rank(records, bins)
    num_features = records.shape[-1] - tiled.GEOMETRY

    def visit(state, ranks, offsets):
        kernel = functools.partial(_blend_tile, plan=plan, num_features=num_features)
        arrays = (_longest_first(offsets, plan), offsets, ranks, table, state)
        return _launch_tiles(kernel, arrays, (state,), plan)[0]

    state = jnp.zeros((plan.num_tiles, num_features + 1, plan.tile**2)).at[:, -1].set(1.0)
    state, lists = tiled.blend_segments(
        visit, state, lambda state: jnp.any(state[:, -1] > 0, axis=-1), bins, plan
    )
    return state.at[:, -1].set(jnp.abs(state[:, -1])), lists


def _blend_forward(records: Array, bins: binning.Bins, plan: tiled.Plan):
    out, lists = _blend_and_keep(records, bins, plan)
    return out, (records, bins, lists, out)


def _blend_backward(plan: tiled.Plan, residuals, cotangent: Array):
    """Replays the forward pass with what is still to come, R = v . (image - drawn so far)."""
    records, bins, lists, out = residuals
    table = tiled.by_rank(records, bins)
    num_features = records.shape[-1] - tiled.GEOMETRY
    toward = cotangent[:, :num_features]
    places = binning.places(bins)
    begins = jnp.minimum(jnp.concatenate([jnp.zeros(1, jnp.int32), bins.ends]), bins.drawn)
    begins = jnp.pad(begins, (0, -len(records) % _SPLATS), mode="edge")

    def visit(carry, ranks, offsets):
        state, gradient, first = carry
        order = _longest_first(offsets, plan)
        kernel = functools.partial(_replay_tile, plan=plan, num_features=num_features)
        arrays = (order, offsets, ranks, places - first, bins.columns, table, toward, state)
        rows = jax.ShapeDtypeStruct((plan.segment, records.shape[-1]), jnp.float32)
        state, rows = _launch_tiles(kernel, arrays, (state, rows), plan)
        runs = jnp.clip(begins - first, 0, plan.segment)
        kernel = functools.partial(_add_runs, num_columns=records.shape[-1])
        (sums,) = _launch(kernel, (runs, rows), (gradient,), programs=len(gradient) // _SPLATS)
        return state, gradient + sums, first + plan.segment

    rest = jnp.sum(out * cotangent, axis=1)
    state = jnp.stack([rest, jnp.ones_like(rest)], axis=1)
    gradient = jnp.zeros((len(begins) - 1, records.shape[-1]))
    _, gradient, _ = tiled.replay_segments(
        visit,
        (state, gradient, jnp.int32(0)),
        lambda carry: jnp.any(carry[0][:, 1] > 0, axis=-1),
        lists,
        bins,
        plan,
    )
    gradient = gradient[: len(records)]
    return jnp.zeros_like(records).at[bins.order].set(gradient, unique_indices=True), None


_blend.defvjp(_blend_forward, _blend_backward)


def _blend_tile(
    order, offsets, ranks, table, before, after, *, plan: tiled.Plan, num_features: int
):
    """Takes a tile's features and transmittance [F + 1, P] down its list.

    The transmittance is negated once a pixel has stopped.
    """
    tile = order[pl.program_id(0)]
    pixels = _pixels(tile, plan)

    def advance(state):
        entry, signed, out = state
        rank = ranks[entry]
        splat = tuple(table[rank, i] for i in range(tiled.GEOMETRY))
        alpha = jnp.minimum(_unclamped_alpha(splat, *pixels)[0], constants.MAX_ALPHA)
        behind = signed * (1.0 - alpha)
        drawn = behind > constants.MIN_TRANSMITTANCE
        weight = jnp.where(drawn, alpha * signed, 0.0)
        out = tuple(o + weight * table[rank, tiled.GEOMETRY + f] for f, o in enumerate(out))
        return entry + 1, jnp.where(drawn, behind, -jnp.abs(signed)), out

    start = (offsets[tile], before[tile, num_features, :])
    out = tuple(before[tile, f, :] for f in range(num_features))
    end = offsets[tile + 1]
    _, signed, out = lax.while_loop(
        lambda state: (state[0] < end) & (jnp.max(state[1]) > 0), advance, (*start, out)
    )
    for f in range(num_features):
        after[tile, f, :] = out[f]
    after[tile, num_features, :] = signed


def _replay_tile(
    order,
    offsets,
    ranks,
    places,
    columns,
    table,
    toward,
    before,
    after,
    rows,
    *,
    plan: tiled.Plan,
    num_features: int,
):
    """Takes a tile's R and transmittance [2, P] down its list; writes the gradient of every entry.

    The transmittance is 0 once a pixel has stopped. An entry's row is where it stands in the
    segment before that is sorted by tile: `binning.places`.
    """
    tile = order[pl.program_id(0)]
    pixels = _pixels(tile, plan)
    row, column = lax.div(tile, plan.columns), lax.rem(tile, plan.columns)

    def place(rank):
        return places[rank] + row * columns[rank] + column

    wanted = tuple(toward[tile, f, :] for f in range(num_features))
    num_columns = tiled.GEOMETRY + num_features

    def advance(state):
        entry, passing, rest = state
        rank = ranks[entry]
        splat = tuple(table[rank, i] for i in range(tiled.GEOMETRY))
        raw, dx, dy = _unclamped_alpha(splat, *pixels)
        alpha = jnp.minimum(raw, constants.MAX_ALPHA)
        behind = passing * (1.0 - alpha)
        drawn = behind > constants.MIN_TRANSMITTANCE
        weight = jnp.where(drawn, alpha * passing, 0.0)
        value = sum((table[rank, tiled.GEOMETRY + f] * v for f, v in enumerate(wanted)), 0.0 * raw)
        rest = rest - weight * value
        v_alpha = passing * value - rest / (1.0 - alpha)
        v_sigma = jnp.where(drawn & (raw <= constants.MAX_ALPHA), -raw * v_alpha, 0.0)
        sharp_x, shear, sharp_y = splat[2:5]

        def sums_over_pixels():
            across = dx + shear * dy
            to_x = sharp_x * jnp.sum(v_sigma * across)
            return (
                to_x,
                shear * to_x + sharp_y * jnp.sum(v_sigma * dy),
                0.5 * jnp.sum(v_sigma * across * across),
                sharp_x * jnp.sum(v_sigma * across * dy),
                0.5 * jnp.sum(v_sigma * dy * dy),
                -jnp.sum(v_sigma),
                *(jnp.sum(weight * v) for v in wanted),
            )

        # Many entries draw no pixel, and the sums, zeros then, are most of the work.
        most = jnp.max(weight)
        sums = lax.cond(most > 0, sums_over_pixels, lambda: (most,) * num_columns)
        own = place(rank)
        for i, total in enumerate(sums):
            rows[own, i] = total
        return entry + 1, jnp.where(drawn, behind, 0.0), rest

    end = offsets[tile + 1]
    start = (offsets[tile], before[tile, 1, :], before[tile, 0, :])
    entry, passing, rest = lax.while_loop(
        lambda state: (state[0] < end) & (jnp.max(state[1]) > 0), advance, start
    )
    after[tile, 0, :] = rest
    after[tile, 1, :] = passing

    def skip(entry):
        """Zeros for the next entries, which no pixel needs."""
        skipped = place(ranks[jnp.minimum(entry + lax.iota(jnp.int32, rest.size), end - 1)])
        for i in range(num_columns):
            rows[skipped, i] = jnp.zeros_like(rest)
        return entry + rest.size

    lax.while_loop(lambda entry: entry < end, skip, entry)


def _add_runs(runs, rows, sums, *, num_columns: int):
    """Adds up the rows [S, 6 + F] of R splats each, rows runs[r] to runs[r + 1] for rank r."""
    ranks = pl.program_id(0) * _SPLATS + lax.iota(jnp.int32, _SPLATS)
    begins, ends = runs[ranks], runs[ranks + 1]

    def advance(state):
        done, totals = state
        place = (begins + done)[:, None] + lax.iota(jnp.int32, _ROWS)
        inside = place < ends[:, None]
        place = jnp.where(inside, place, 0)
        return done + _ROWS, tuple(
            total + jnp.where(inside, rows[place, i], 0.0) for i, total in enumerate(totals)
        )

    longest = jnp.max(ends - begins)
    zeros = (jnp.zeros((_SPLATS, _ROWS)),) * num_columns
    _, totals = lax.while_loop(lambda state: state[0] < longest, advance, (jnp.int32(0), zeros))
    for i, total in enumerate(totals):
        sums[ranks, i] = jnp.sum(total, axis=1)


def _pixels(tile: Array, plan: tiled.Plan) -> tuple[Array, Array]:
    """Centres of a tile's pixels in its image, x and y [P]."""
    side = plan.tile
    column = lax.rem(tile, plan.columns)
    row = lax.rem(lax.div(tile, plan.columns), plan.rows)
    index = lax.iota(jnp.int32, side * side)
    x = (column * side + (index & (side - 1))).astype(jnp.float32) + 0.5
    y = (row * side + (index >> (side.bit_length() - 1))).astype(jnp.float32) + 0.5
    return x, y


def _unclamped_alpha(splat: tuple[Array, ...], pixel_x: Array, pixel_y: Array):
    """Opacity of a splat at pixels [P], 0 where skipped, and its offsets dx, dy from them [P]."""
    x, y, sharp_x, shear, sharp_y, log_opacity = splat
    dx, dy = x - pixel_x, y - pixel_y
    across = dx + shear * dy
    sigma = 0.5 * (sharp_x * across * across + sharp_y * dy * dy)
    log_alpha = log_opacity - sigma
    seen = log_alpha >= math.log(constants.MIN_ALPHA)
    return jnp.where(seen, jnp.exp(log_alpha), 0.0), dx, dy


def _longest_first(offsets: Array, plan: tiled.Plan) -> Array:
    """Tiles [T], those with the longest lists first: the last to end should not start last."""
    return binning.stable_order(plan.segment - (offsets[1:] - offsets[:-1]), plan.segment)


def _triton() -> types.ModuleType:
    """Pallas' compiler for GPUs; its import costs a tenth of a second, so not that of lgs_jax."""
    try:
        from jax.experimental.pallas import triton
    except ImportError as error:
        raise NotImplementedError(
            f"JAX {jax.__version__} has no jax.experimental.pallas.triton ({error}), for which "
            "these kernels are written; take implementation='xla'"
        ) from error
    return triton


def _launch_tiles(kernel, arrays, outputs, plan: tiled.Plan):
    """Runs a kernel once for every tile."""
    # One warp of 32 threads for 32 to 64 pixels.
    warps = min(4, max(1, plan.tile**2 // 64))
    return _launch(kernel, arrays, outputs, programs=plan.num_tiles, warps=warps)


def _launch(kernel, arrays, outputs, *, programs: int, warps: int = 1):
    """Runs so many programs of a kernel; `outputs` have the shapes of its results."""
    triton = _triton()
    call = functools.partial(
        pl.pallas_call,
        kernel,
        grid=(programs,),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)] * len(arrays),
        out_specs=[pl.BlockSpec(memory_space=pl.ANY)] * len(outputs),
        out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in outputs],
    )
    compiled = call(compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1))
    return lax.platform_dependent(*arrays, cuda=compiled, default=call(interpret=True))
