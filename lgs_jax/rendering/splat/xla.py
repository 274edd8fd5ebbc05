"""Tiled compositing in plain XLA operations, for every backend.

The image is cut into small tiles; a while loop takes the next K splats of B tiles at a time until
every pixel of them is opaque or their lists end. Loops have dynamic trip counts, which autodiff
cannot reverse, so the gradient is written out: it replays the forward pass front to back (same
decisions, no stored intermediates, no division by a vanishing transmittance).

Letters: I images, N splats, F features, T tiles, P pixels of a tile, S entries of a segment, B
tiles of a batch, K splats of a step.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from lgs_jax.rendering.splat import binning, constants
from lgs_jax.rendering.splat.projection import Splats

Array = jax.Array

# Stands for an opacity of 0, far below what is drawn.
_TINY = 1e-12
# Images are drawn together up to this many splats.
_FOLDED_SPLATS = 65536


@dataclasses.dataclass(frozen=True)
class Plan(binning.Grid):
    """How the work is cut; affects time only, never the image (but for rounding)."""

    segment: int
    batch: int
    step: int


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
      NotImplementedError: if the arrays are not float32: the exact order of depth relies on it.
    """
    if features.dtype != jnp.float32:
        raise NotImplementedError(f"takes float32, not {features.dtype}")
    num_images, num_splats, num_features = features.shape
    if num_images == 0 or num_splats == 0:
        none = jnp.zeros(num_images, jnp.int32)
        empty = jnp.zeros((num_images, height, width, num_features))
        return empty, jnp.ones(empty.shape[:-1]), {"required": none, "overflow": none}
    plan = make_plan(
        height,
        width,
        num_images=num_images,
        num_splats=num_splats,
        tile=tile_size,
        fold=capacity is None,
    )
    log_opacities = jnp.log(jnp.maximum(opacities, _TINY))
    columns = (splats.x, splats.y, splats.conic_xx, splats.conic_xy, splats.conic_yy, log_opacities)
    records = jnp.concatenate([jnp.stack(columns, axis=-1), features], axis=-1)

    def draw(args):
        splats, opacities, records = args
        bins = binning.bin_splats(splats, opacities, plan, near=near, far=far, capacity=capacity)
        blended = _blend(records.reshape(-1, records.shape[-1]), bins, plan)
        total = jnp.sum(bins.required)
        overflow = 0 * bins.required if capacity is None else (total - bins.drawn)[None]
        return _untile(blended, plan), {"required": bins.required, "overflow": overflow}

    def group(array):
        return array.reshape(-1, plan.images, *array.shape[1:])

    inputs = (*lax.stop_gradient((splats, opacities)), records)
    blended, aux = lax.map(draw, jax.tree.map(group, inputs))
    blended, aux = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (blended, aux))
    return blended[..., :-1], blended[..., -1], aux


def make_plan(
    height: int, width: int, *, num_images: int, num_splats: int, tile: int | None, fold: bool
) -> Plan:
    """Chooses the sizes of tile, segment, batch and step.

    With `fold`, several images are drawn as one: many small images keep the loops full.
    """
    tile = tile or (4 if height * width <= 128**2 else 8)
    most = max(1, _FOLDED_SPLATS // num_splats) if fold else 1
    images = max(i for i in range(1, num_images + 1) if num_images % i == 0 and i <= most)
    grid = binning.Grid(height, width, tile, images)
    return Plan(
        height,
        width,
        tile,
        images,
        segment=max(16384, 128 * grid.num_tiles),
        batch=min(64, grid.num_tiles),
        # Unrolled, so what is compiled grows with it; short lists gain nothing from long steps.
        step=8 if num_splats >= 1024 else 2,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _blend(records: Array, bins: binning.Bins, plan: Plan) -> Array:
    """Blends records [I * N, 6 + F] into [T, F + 1, P]: features, then the final transmittance.

    A record: centre x y, conic xx xy yy, logarithm of the opacity, features."""
    num_features = records.shape[-1] - 6
    table = _by_rank(records, bins)

    def blend_step(splats, offset_x, offset_y, state):
        """The last row of the state is the transmittance, negated once the pixel has stopped."""
        *out, signed = state
        alphas = jnp.minimum(_unclamped_alpha(splats, offset_x, offset_y), constants.MAX_ALPHA)
        for k in range(plan.step):
            alpha = alphas[:, k]
            behind = signed * (1.0 - alpha)
            drawn = behind > constants.MIN_TRANSMITTANCE
            weight = jnp.where(drawn, alpha * signed, 0.0)
            out = [o + weight * splats[:, k, 6 + f, None] for f, o in enumerate(out)]
            signed = jnp.where(drawn, behind, -jnp.abs(signed))
        return (*out, signed)

    def visit(state, batch):
        local = tuple(state[batch.tiles, f] for f in range(num_features + 1))
        local = _while_alive(
            lambda splats, ranks, local: blend_step(splats, *batch.offsets, local),
            local,
            lambda local: local[-1],
            table,
            batch,
            plan,
        )
        return state.at[batch.tiles].set(jnp.stack(local, axis=1))

    shape = (plan.num_tiles + 1, num_features + 1, plan.tile**2)
    state = jnp.zeros(shape).at[:, -1].set(1.0)
    state = _for_each_batch(visit, state, lambda state: state[:, -1], bins, plan)
    state = state[: plan.num_tiles]
    return state.at[:, -1].set(jnp.abs(state[:, -1]))


def _blend_forward(records: Array, bins: binning.Bins, plan: Plan):
    out = _blend(records, bins, plan)
    return out, (records, bins, out)


def _blend_backward(plan: Plan, residuals, cotangent: Array):
    """Replays the forward pass with what is still to come, R = v . (image - drawn so far)."""
    records, bins, out = residuals
    num_features = records.shape[-1] - 6
    table = _by_rank(records, bins)
    padded = jnp.concatenate([cotangent, jnp.zeros((1, *cotangent.shape[1:]))])
    x, y = _pixel_offsets(plan)
    moments = jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)

    def gradient_step(splats, ranks, batch, toward, state):
        rest, signed, gradient = state
        raws = _unclamped_alpha(splats, *batch.offsets)
        alphas = jnp.minimum(raws, constants.MAX_ALPHA)
        values = jnp.einsum(
            "bkf,bfp->bkp", splats[..., 6:], toward, precision=lax.Precision.HIGHEST
        )
        sigmas, weights = [], []
        for k in range(plan.step):
            raw, alpha, value = raws[:, k], alphas[:, k], values[:, k]
            behind = signed * (1.0 - alpha)
            drawn = behind > constants.MIN_TRANSMITTANCE
            weight = jnp.where(drawn, alpha * signed, 0.0)
            rest = rest - weight * value
            v_alpha = signed * value - rest / (1.0 - alpha)
            free = drawn & (raw <= constants.MAX_ALPHA)
            sigmas.append(jnp.where(free, -raw * v_alpha, 0.0))
            weights.append(weight)
            signed = jnp.where(drawn, behind, -jnp.abs(signed))
        rows = _splat_gradients(
            splats, batch, jnp.stack(sigmas, axis=1), jnp.stack(weights, axis=1), toward, moments
        )
        rows = rows.reshape(-1, rows.shape[-1])
        return rest, signed, gradient.at[ranks.reshape(-1)].add(rows, mode="drop")

    def visit(carry, batch):
        state, gradient = carry
        toward = padded[batch.tiles, :num_features]
        local = (state[batch.tiles, 0], state[batch.tiles, 1], gradient)
        rest, signed, gradient = _while_alive(
            lambda splats, ranks, local: gradient_step(splats, ranks, batch, toward, local),
            local,
            lambda local: local[1],
            table,
            batch,
            plan,
        )
        return state.at[batch.tiles].set(jnp.stack([rest, signed], axis=1)), gradient

    rest = jnp.concatenate([jnp.sum(out * cotangent, axis=1), jnp.zeros((1, plan.tile**2))])
    carry = (jnp.stack([rest, jnp.ones_like(rest)], axis=1), jnp.zeros_like(records))
    _, gradient = _for_each_batch(visit, carry, lambda carry: carry[0][:, 1], bins, plan)
    by_splat = jnp.zeros_like(records).at[bins.order].set(gradient, unique_indices=True)
    return by_splat, None


_blend.defvjp(_blend_forward, _blend_backward)


def _splat_gradients(splats, batch, v_sigma, weights, toward, moments):
    """Gradients [B, K, 6 + F] of the records from d loss / d sigma and the weights [B, K, P].

    Sums over pixels are one product with the monomials of the pixel's offset from the centre of the
    tile, then moved to the centre of the splat: small offsets keep the cancellation harmless.
    """
    s = jnp.einsum("bkp,pq->bkq", v_sigma, moments, precision=lax.Precision.HIGHEST)
    v_features = jnp.einsum("bkp,bfp->bkf", weights, toward, precision=lax.Precision.HIGHEST)
    s0, sx, sy, sxx, sxy, syy = (s[..., q] for q in range(6))
    mx = splats[..., 0] - batch.center_x[:, None]
    my = splats[..., 1] - batch.center_y[:, None]
    to_x, to_y = mx * s0 - sx, my * s0 - sy
    to_xx = mx * mx * s0 - 2 * mx * sx + sxx
    to_xy = mx * my * s0 - mx * sy - my * sx + sxy
    to_yy = my * my * s0 - 2 * my * sy + syy
    xx, xy, yy = (splats[..., i] for i in range(2, 5))
    columns = (
        xx * to_x + xy * to_y,
        xy * to_x + yy * to_y,
        0.5 * to_xx,
        to_xy,
        0.5 * to_yy,
        -s0,
    )
    return jnp.concatenate([jnp.stack(columns, axis=-1), v_features], axis=-1)


def _unclamped_alpha(splats: Array, pixel_x: Array, pixel_y: Array) -> Array:
    """Opacity [B, K, P] of splats [B, K, 6 + F] at pixels [B, P], 0 where skipped.

    The exponential comes last, after all conditions: XLA never computes one twice, so that what
    follows starts from this array instead of repeating the arithmetic before it.
    """
    x, y, xx, xy, yy, log_opacity = (splats[..., i, None] for i in range(6))
    dx, dy = x - pixel_x[:, None], y - pixel_y[:, None]
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    log_alpha = log_opacity - sigma
    seen = (sigma >= 0) & (log_alpha >= math.log(constants.MIN_ALPHA))
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
    def center_x(self) -> Array:
        return ((self.tiles % self.plan.columns + 0.5) * self.plan.tile).astype(jnp.float32)

    @property
    def center_y(self) -> Array:
        row = self.tiles // self.plan.columns % self.plan.rows
        return ((row + 0.5) * self.plan.tile).astype(jnp.float32)

    @property
    def offsets(self) -> tuple[Array, Array]:
        """Centres of the pixels [B, P]."""
        x, y = _pixel_offsets(self.plan)
        return self.center_x[:, None] + x, self.center_y[:, None] + y


def _pixel_offsets(plan: Plan) -> tuple[Array, Array]:
    """Pixel centres relative to the centre of their tile [P]."""
    index = jnp.arange(plan.tile**2)
    shift = 0.5 - plan.tile / 2
    return index % plan.tile + shift, index // plan.tile + shift


def _for_each_batch(visit, carry, transmittance, bins: binning.Bins, plan: Plan):
    """Calls carry = visit(carry, batch) for all segments and batches of tiles, nearest first.

    `transmittance(carry)` gives [T + 1, P], not positive where a pixel has stopped; tiles that have
    stopped altogether are left out, and so are the segments after the last one needed.
    """

    def draw_segment(state):
        index, carry = state
        ranks, offsets = binning.segment(bins, index, plan.segment, plan)
        ranks = jnp.concatenate([ranks, jnp.zeros(plan.step, jnp.int32)])
        live = jnp.any(transmittance(carry)[: plan.num_tiles] > 0, axis=-1)
        lengths = jnp.where(live, offsets[1:] - offsets[:-1], 0)
        # Tiles with lists of like length together: a batch takes as long as its longest list.
        order = jnp.argsort(-lengths)
        padding = -plan.num_tiles % plan.batch
        order = jnp.concatenate([order, jnp.full(padding, plan.num_tiles, order.dtype)])
        begins = jnp.append(offsets[:-1], 0)
        lengths = jnp.append(lengths, 0)

        def visit_batch(b, carry):
            tiles = lax.dynamic_slice(order, (b * plan.batch,), (plan.batch,))
            return visit(carry, _Batch(tiles, begins[tiles], lengths[tiles], ranks, plan))

        batches = (jnp.sum(lengths > 0) + plan.batch - 1) // plan.batch
        return index + 1, lax.fori_loop(0, batches, visit_batch, carry)

    def remains(state):
        index, carry = state
        alive = jnp.any(transmittance(carry)[: plan.num_tiles] > 0)
        return (index * plan.segment < bins.drawn) & alive

    return lax.while_loop(remains, draw_segment, (jnp.int32(0), carry))[1]


def _while_alive(advance, local, transmittance, table: Array, batch: _Batch, plan: Plan):
    """Calls local = advance(splats [B, K, 6 + F], ranks [B, K], local) down the lists of a batch.

    Past the end of a list comes the last row of the table, which draws nothing.
    """
    nothing = table.shape[0] - 1
    slots = jnp.arange(plan.step, dtype=jnp.int32)

    def body(state):
        done, local = state
        position = done + slots
        ranks = batch.ranks[batch.begins[:, None] + position]
        ranks = jnp.where(position < batch.lengths[:, None], ranks, nothing)
        return done + plan.step, advance(table[ranks], ranks, local)

    def remains(state):
        done, local = state
        return jnp.any((transmittance(local) > 0) & (done < batch.lengths)[:, None])

    return lax.while_loop(remains, body, (jnp.int32(0), local))[1]


def _by_rank(records: Array, bins: binning.Bins) -> Array:
    """Records in order of depth, and one more that draws nothing [N + 1, 6 + F]."""
    nothing = jnp.zeros((1, records.shape[-1])).at[:, 5].set(math.log(_TINY))
    return jnp.concatenate([records[bins.order], nothing])


def _untile(tiled: Array, plan: Plan) -> Array:
    """[T, C, P] -> [I, H, W, C]."""
    side, channels = plan.tile, tiled.shape[1]
    image = tiled.reshape(plan.images, plan.rows, plan.columns, channels, side, side)
    image = image.transpose(0, 1, 4, 2, 5, 3)
    image = image.reshape(plan.images, plan.rows * side, plan.columns * side, channels)
    return image[:, : plan.height, : plan.width]
