"""Tiled compositing in plain XLA operations, for every backend.

The image is cut into small tiles; a while loop fetches the next C splats of B tiles, an inner one
blends K of them at a time, until every pixel of the tiles is opaque or their lists end. Loops have
dynamic trip counts, which autodiff cannot reverse, so the gradient is written out: it replays the
forward pass front to back (same decisions, no stored intermediates, no division by a vanishing
transmittance).

Letters: I images, N splats, F features, T tiles, P pixels of a tile, S entries of a segment, B
tiles of a batch, C splats of a chunk, K splats of a step.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lgs_jax.rendering.splat import binning, constants, tiled
from lgs_jax.rendering.splat.projection import Splats

Array = jax.Array

# Images are drawn together up to this many splats.
_FOLDED_SPLATS = 65536


def composite(
    splats: Splats, opacities: Array, features: Array, **options: Any
) -> tuple[Array, Array, dict[str, Array]]:
    """Blends splats [I, N] with features [I, N, F] into [I, H, W, F]; see `tiled.composite`.

    Raises:
      NotImplementedError: if the arrays are not float32, on which the exact order of depth relies,
        or more slots are asked for than 32 bits can count.
    """
    return tiled.composite(make_plan, _blend, splats, opacities, features, **options)


@dataclasses.dataclass(frozen=True)
class Plan(tiled.Plan):
    """With the sizes of batch, chunk and step: B, C and K."""

    batch: int
    chunk: int
    step: int


def make_plan(
    height: int,
    width: int,
    *,
    num_images: int,
    num_splats: int,
    capacity: int | None = None,
    tile_size: int | None = None,
    slots_per_splat: int | None = None,
) -> Plan:
    """Chooses the sizes of tile, segment, batch and step.

    Without a capacity, which is meant for each image, several images are drawn as one: many small
    images keep the loops full.
    """
    tile = tile_size or (4 if height * width <= 96**2 else 8)
    most = max(1, _FOLDED_SPLATS // num_splats) if capacity is None else 1
    images = max(i for i in range(1, num_images + 1) if num_images % i == 0 and i <= most)
    grid = binning.Grid(height, width, tile, images)
    # Unrolled, so what is compiled grows with it; short lists gain nothing from long steps.
    step = 8 if num_splats >= 1024 else 2
    segment = max(16384, 128 * grid.num_tiles)
    if slots_per_splat is not None:
        slots = min(slots_per_splat, grid.num_tiles)
        segment = tiled.segment_size(images * num_splats * slots)
    return Plan(
        height,
        width,
        tile,
        images,
        segment=segment,
        kept=tiled.segments_to_keep(images * num_splats, segment),
        batch=min(64, grid.num_tiles),
        # Fetched, summed and scattered together; measured, this alone changes little.
        chunk=4 * step,
        step=step,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _blend(records: Array, bins: binning.Bins, plan: Plan) -> Array:
    """Blends records [I * N, 6 + F] into [T, F + 1, P]: features, then the final transmittance.

    A record: what `tiled.GEOMETRY` counts, then features."""
    return _blend_and_keep(records, bins, dataclasses.replace(plan, kept=0))[0]


def _blend_and_keep(records: Array, bins: binning.Bins, plan: Plan) -> tuple[Array, tiled.Lists]:
    """`_blend`, and the lists of the first segments."""
    num_features = records.shape[-1] - 6
    table = tiled.by_rank(records, bins)

    def blend_step(splats, offsets, state):
        """The last row of the state is the transmittance, negated once the pixel has stopped."""
        *out, signed = state
        alphas = jnp.minimum(_unclamped_alpha(splats, *offsets), constants.MAX_ALPHA)
        for k in range(plan.step):
            alpha = alphas[:, k]
            behind = signed * (1.0 - alpha)
            drawn = behind > constants.MIN_TRANSMITTANCE
            weight = jnp.where(drawn, alpha * signed, 0.0)
            out = [o + weight * splats[:, k, 6 + f, None] for f, o in enumerate(out)]
            signed = jnp.where(drawn, behind, -jnp.abs(signed))
        return (*out, signed)

    def visit(state, batch):
        def blend_chunk(chunk, local):
            return _for_each_step(
                lambda splats, _, local: blend_step(splats, batch.offsets, local),
                local,
                lambda local: local[-1],
                chunk,
                plan,
            )

        local = tuple(state[batch.tiles, f] for f in range(num_features + 1))
        local = _for_each_chunk(blend_chunk, local, lambda local: local[-1], table, batch, plan)
        return state.at[batch.tiles].set(jnp.stack(local, axis=1))

    def still(state):
        return state[:, -1]

    shape = (plan.num_tiles + 1, num_features + 1, plan.tile**2)
    state = jnp.zeros_like(records, shape=shape).at[:, -1].set(1.0)
    state, lists = tiled.blend_segments(
        lambda state, *found: _for_each_batch(visit, state, still, *found, plan),
        state,
        lambda state: _running(still(state), plan),
        bins,
        plan,
    )
    state = state[: plan.num_tiles]
    return state.at[:, -1].set(jnp.abs(state[:, -1])), lists


def _blend_forward(records: Array, bins: binning.Bins, plan: Plan):
    out, lists = _blend_and_keep(records, bins, plan)
    return out, (records, bins, lists, out)


def _blend_backward(plan: Plan, residuals, cotangent: Array):
    """Replays the forward pass with what is still to come, R = v . (image - drawn so far)."""
    records, bins, lists, out = residuals
    num_features = records.shape[-1] - 6
    table = tiled.by_rank(records, bins)
    padded = jnp.concatenate([cotangent, jnp.zeros_like(cotangent[:1])])
    moments = tiled.monomials(plan)

    def visit(carry, batch):
        state, gradient = carry
        toward = padded[batch.tiles, :num_features]

        def gradient_chunk(chunk, local):
            rest, passing, gradient = local
            v_sigma, weights, rest, passing = _gradient_steps(
                chunk, batch, toward, rest, passing, plan
            )
            rows = _splat_gradients(chunk.splats, batch, v_sigma, weights, toward, moments)
            gradient = gradient.at[chunk.ranks.reshape(-1)].add(
                rows.reshape(-1, rows.shape[-1]), mode="drop"
            )
            return rest, passing, gradient

        rest, passing, gradient = _for_each_chunk(
            gradient_chunk,
            (state[batch.tiles, 0], state[batch.tiles, 1], gradient),
            lambda local: local[1],
            table,
            batch,
            plan,
        )
        return state.at[batch.tiles].set(jnp.stack([rest, passing], axis=1)), gradient

    rest = jnp.sum(out * cotangent, axis=1)
    rest = jnp.concatenate([rest, jnp.zeros_like(rest[:1])])
    carry = (jnp.stack([rest, jnp.ones_like(rest)], axis=1), jnp.zeros_like(records))

    def still(carry):
        return carry[0][:, 1]

    _, gradient = tiled.replay_segments(
        lambda carry, *found: _for_each_batch(visit, carry, still, *found, plan),
        carry,
        lambda carry: _running(still(carry), plan),
        lists,
        bins,
        plan,
    )
    by_splat = jnp.zeros_like(records).at[bins.order].set(gradient, unique_indices=True)
    return by_splat, None


_blend.defvjp(_blend_forward, _blend_backward)


def _gradient_steps(chunk: "_Chunk", batch: "_Batch", toward, rest, passing, plan: Plan):
    """d loss / d sigma and weights [B, C, P] of a chunk, and `rest`, `passing` [B, P] after it."""

    def step(splats, first, local):
        *blocks, rest, passing = local
        *parts, rest, passing = _gradient_step(splats, batch, toward, rest, passing, plan)
        blocks = [
            lax.dynamic_update_slice_in_dim(whole, part, first, axis=1)
            for whole, part in zip(blocks, parts, strict=True)
        ]
        return *blocks, rest, passing

    zeros = jnp.zeros_like(rest, shape=(*chunk.ranks.shape, plan.tile**2))
    return _for_each_step(step, (zeros, zeros, rest, passing), lambda local: local[-1], chunk, plan)


def _gradient_step(splats, batch: "_Batch", toward, rest, passing, plan: Plan):
    """d loss / d sigma and weights [B, K, P] of K splats, and `rest`, `passing` after them.

    `passing` is the transmittance, 0 once the pixel has stopped.
    """
    raws = _unclamped_alpha(splats, *batch.offsets)
    alphas = jnp.minimum(raws, constants.MAX_ALPHA)
    # A sum of products, as a matrix product costs more to start than to do at this size.
    values = jnp.zeros_like(raws)
    for f in range(toward.shape[1]):
        values += splats[..., 6 + f, None] * toward[:, None, f]
    sigmas, weights = [], []
    for k in range(plan.step):
        raw, alpha, value = raws[:, k], alphas[:, k], values[:, k]
        behind = passing * (1.0 - alpha)
        drawn = behind > constants.MIN_TRANSMITTANCE
        weight = jnp.where(drawn, alpha * passing, 0.0)
        rest = rest - weight * value
        v_alpha = passing * value - rest / (1.0 - alpha)
        free = drawn & (raw <= constants.MAX_ALPHA)
        sigmas.append(jnp.where(free, -raw * v_alpha, 0.0))
        weights.append(weight)
        passing = jnp.where(drawn, behind, 0.0)
    return jnp.stack(sigmas, axis=1), jnp.stack(weights, axis=1), rest, passing


def _splat_gradients(splats, batch, v_sigma, weights, toward, moments):
    """Gradients [B, C, 6 + F] of the records from d loss / d sigma and the weights [B, C, P].

    Sums over pixels are one product with `tiled.monomials`.
    """
    s = jnp.einsum("bcp,pq->bcq", v_sigma, moments, precision=lax.Precision.HIGHEST)
    v_features = jnp.einsum("bcp,bfp->bcf", weights, toward, precision=lax.Precision.HIGHEST)
    center_x, center_y = batch.centers
    geometry = tiled.geometry_gradients(splats, s, center_x[:, None], center_y[:, None])
    return jnp.concatenate([geometry, v_features], axis=-1)


def _unclamped_alpha(splats: Array, pixel_x: Array, pixel_y: Array) -> Array:
    """Opacity [B, K, P] of splats [B, K, 6 + F] at pixels [B, P], 0 where skipped.

    The exponential comes last, after all conditions: XLA never computes one twice, so that what
    follows starts from this array instead of repeating the arithmetic before it.
    """
    x, y, sharp_x, shear, sharp_y, log_opacity = (splats[..., i, None] for i in range(6))
    dx, dy = x - pixel_x[:, None], y - pixel_y[:, None]
    across = dx + shear * dy
    sigma = 0.5 * (sharp_x * across * across + sharp_y * dy * dy)
    log_alpha = log_opacity - sigma
    seen = log_alpha >= math.log(constants.MIN_ALPHA)
    return jnp.exp(jnp.where(seen, log_alpha, -jnp.inf))


@dataclasses.dataclass(frozen=True)
class _Batch:
    """B tiles (index T: none) and where their lists lie in the ranks of the segment."""

    tiles: Array
    begins: Array
    lengths: Array
    ranks: Array
    plan: Plan

    @property
    def centers(self) -> tuple[Array, Array]:
        """Centres of the tiles, x and y [B]."""
        return tiled.tile_centers(self.tiles, self.plan)

    @property
    def offsets(self) -> tuple[Array, Array]:
        """Centres of the pixels [B, P]."""
        x, y = tiled.pixel_offsets(self.plan)
        center_x, center_y = self.centers
        return center_x[:, None] + x, center_y[:, None] + y


def _running(transmittance: Array, plan: Plan) -> Array:
    """Tiles [T] with a pixel that has not stopped, from [T + 1, P]."""
    return jnp.any(transmittance[: plan.num_tiles] > 0, axis=-1)


def _for_each_batch(visit, carry, transmittance, ranks: Array, offsets: Array, plan: Plan):
    """Calls carry = visit(carry, batch) for all batches of tiles of a segment.

    `transmittance(carry)` gives [T + 1, P], not positive where a pixel has stopped; tiles that have
    stopped altogether are left out.
    """
    ranks = jnp.concatenate([ranks, jnp.zeros(plan.chunk, jnp.int32)])
    lengths = jnp.where(_running(transmittance(carry), plan), offsets[1:] - offsets[:-1], 0)
    # Tiles with lists of like length together: a batch takes as long as its longest list.
    order = binning.stable_order(plan.segment - lengths, plan.segment)
    padding = -plan.num_tiles % plan.batch
    order = jnp.concatenate([order, jnp.full(padding, plan.num_tiles, order.dtype)])
    begins = jnp.append(offsets[:-1], 0)
    lengths = jnp.append(lengths, 0)

    def visit_batch(b, carry):
        tiles = lax.dynamic_slice(order, (b * plan.batch,), (plan.batch,))
        return visit(carry, _Batch(tiles, begins[tiles], lengths[tiles], ranks, plan))

    batches = (jnp.sum(lengths > 0) + plan.batch - 1) // plan.batch
    return lax.fori_loop(0, batches, visit_batch, carry)


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """The next C splats of each tile of a batch: records, ranks, and how many of them are left."""

    splats: Array
    ranks: Array
    left: Array


def _for_each_chunk(visit, local, transmittance, table: Array, batch: _Batch, plan: Plan):
    """Calls local = visit(chunk, local) down the lists of a batch while a pixel needs it.

    Past the end of a list comes the last row of the table, which draws nothing.
    """
    nothing = table.shape[0] - 1
    slots = jnp.arange(plan.chunk, dtype=jnp.int32)

    def body(state):
        done, local = state
        position = done + slots
        ranks = batch.ranks[batch.begins[:, None] + position]
        ranks = jnp.where(position < batch.lengths[:, None], ranks, nothing)
        chunk = _Chunk(table[ranks], ranks, batch.lengths - done)
        return done + plan.chunk, visit(chunk, local)

    def remains(state):
        done, local = state
        return jnp.any((transmittance(local) > 0) & (done < batch.lengths)[:, None])

    return lax.while_loop(remains, body, (jnp.int32(0), local))[1]


def _for_each_step(advance, local, transmittance, chunk: _Chunk, plan: Plan):
    """Calls local = advance(splats [B, K, 6 + F], index of the first, local) through a chunk."""

    def body(state):
        first, local = state
        splats = lax.dynamic_slice_in_dim(chunk.splats, first, plan.step, axis=1)
        return first + plan.step, advance(splats, first, local)

    def remains(state):
        first, local = state
        needed = (transmittance(local) > 0) & (first < chunk.left)[:, None]
        return (first < plan.chunk) & jnp.any(needed)

    return lax.while_loop(remains, body, (jnp.int32(0), local))[1]
