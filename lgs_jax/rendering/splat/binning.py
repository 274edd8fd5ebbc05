"""Which splats touch which tile, nearest first, in pieces of fixed size.

All (splat, tile) pairs of an image, splat after splat in order of depth, form one long sequence of
`entries`. Its length is only known at run time, so it is never stored: `bin_splats` prepares the
order, `segment` lists any S consecutive entries by tile. Drawing the segments one after another
draws everything, whatever the scene: there is no buffer to overflow.

Sorts use a single uint32 operand (key and index packed together), several times faster than sorting
pairs on CPUs; on GPUs pairs, which XLA hands to CUB's radix sort in one go, however many they are.

Letters: I images, N splats, T tiles, S entries of a segment. Rank: position of a splat in order of
depth.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lgs_jax.rendering.splat import constants
from lgs_jax.rendering.splat.projection import Splats

Array = jax.Array

_MOST = np.int32(2**31 - 1)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Images of one size cut into square tiles, row by row, one image below the other."""

    height: int
    width: int
    tile: int
    images: int

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile)

    @property
    def num_tiles(self) -> int:
        return self.images * self.rows * self.columns


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bins:
    """The splats of I images in order of depth, those that touch no tile last; int32.

    Attributes:
      order: splat of each rank [N].
      left: first column of tiles that the splat touches, by rank [N].
      top: first row of tiles, by rank [N].
      columns: number of columns of tiles, by rank [N].
      ends: entries up to and including this rank [N].
      required: entries of each image, at most 2^31 - 1 [I].
      drawn: entries of all images within the capacity [].
    """

    order: Array
    left: Array
    top: Array
    columns: Array
    ends: Array
    required: Array
    drawn: Array


def bin_splats(
    splats: Splats, opacities: Array, grid: Grid, *, near: float, far: float, capacity: int | None
) -> Bins:
    """Orders the splats [I, N] of I images by depth and counts the tiles they touch.

    A capacity bounds the entries of all I images together.
    """
    left, right, top, bottom = _tile_bounds(splats, opacities, grid)
    touches = splats.visible & (right >= left) & (bottom >= top)
    columns = jnp.where(touches, right - left + 1, 0)
    counts = columns * (bottom - top + 1)
    required = _saturating_cumsum(counts.T, grid.num_tiles)[-1]
    top = top + grid.rows * jnp.arange(grid.images, dtype=jnp.int32)[:, None]
    order = _depth_order(splats.depths.reshape(-1), touches.reshape(-1), near=near, far=far)
    left, top, columns, counts = (a.reshape(-1)[order] for a in (left, top, columns, counts))
    ends = _saturating_cumsum(counts, grid.num_tiles)
    drawn = ends[-1] if capacity is None else jnp.minimum(ends[-1], min(capacity, int(_MOST)))
    return Bins(order, left, top, columns, ends, required, drawn)


def places(bins: Bins) -> Array:
    """Where the splats' runs of entries lie in the sequence, by rank [N].

    Rank r and the tile in row y and column x (images below each other) are entry
    places[r] + y * columns[r] + x.
    """
    begins = jnp.concatenate([jnp.zeros(1, jnp.int32), bins.ends[:-1]])
    return begins - bins.top * bins.columns - bins.left


def segment(bins: Bins, index: Array, size: int, grid: Grid) -> tuple[Array, Array]:
    """Lists entries [index * size, (index + 1) * size) by tile, nearest first within a tile.

    Returns:
      ranks [S] of the entries, and the offset of each tile's list [T + 1]; offsets[T] is the number
      of entries, what follows is padding.
    """
    num_splats = bins.order.shape[0]
    position = jnp.arange(size, dtype=jnp.int32)
    entry = index * size + position
    # The ranks with an entry in here: at most `size`, all consecutive.
    window = min(size, num_splats)
    first = jnp.searchsorted(bins.ends, index * size, side="right").astype(jnp.int32)
    low = jnp.minimum(first, num_splats - window)
    begins = jnp.concatenate([jnp.zeros(1, jnp.int32), bins.ends])
    begins_here = lax.dynamic_slice(begins, (low,), (window,)) - index * size
    # A mark where a later rank begins, then a running count. Only ranks without entries, the last
    # ones, share a place.
    marks = (
        jnp.zeros(size, jnp.int32)
        .at[jnp.where(begins_here > 0, begins_here, size)]
        .set(1, mode="drop")
    )
    rank = jnp.minimum(first + jnp.cumsum(marks), num_splats - 1)
    offset = entry - begins[rank]
    columns = bins.columns[rank]
    # Exact for the integers at hand and, unlike integer division, vectorised.
    row = jnp.floor((offset.astype(jnp.float32) + 0.5) / columns.astype(jnp.float32))
    row = row.astype(jnp.int32)
    tile = (bins.top[rank] + row) * grid.columns + bins.left[rank] + offset - row * columns
    tile = jnp.where(entry < bins.drawn, tile, grid.num_tiles)
    position, tile = _stable_sort(tile, grid.num_tiles.bit_length())
    tiles = jnp.arange(grid.num_tiles + 1, dtype=jnp.int32)
    return rank[position], jnp.searchsorted(tile, tiles).astype(jnp.int32)


def _tile_bounds(splats: Splats, opacities: Array, grid: Grid) -> tuple[Array, ...]:
    """First and last column and row of the tiles with a pixel centre in the splat's rectangle."""
    # alpha >= MIN_ALPHA holds within this squared Mahalanobis distance.
    reach = 2.0 * jnp.log(jnp.maximum(opacities, 1e-12) / constants.MIN_ALPHA)
    reach = jnp.minimum(reach, constants.MAX_EXTENT**2)
    bounds = []
    for center, variance, size in (
        (splats.x, splats.var_x, grid.width),
        (splats.y, splats.var_y, grid.height),
    ):
        radius = jnp.sqrt(jnp.maximum(reach, 0.0) * variance)
        first = jnp.clip(jnp.ceil(center - radius - 0.5), 0, size)
        last = jnp.clip(jnp.floor(center + radius - 0.5), -1, size - 1)
        empty = (reach < 0) | ~(last >= first)
        bounds.append(jnp.where(empty, 1, first.astype(jnp.int32) // grid.tile))
        bounds.append(jnp.where(empty, 0, last.astype(jnp.int32) // grid.tile))
    return tuple(bounds)


def _depth_order(depths: Array, touches: Array, *, near: float, far: float) -> Array:
    """Stable order by depth [N], exact to the last bit; what touches nothing comes last."""
    # The bits of positive floats are ordered like the floats.
    low, high = (int(np.float32(v).view(np.int32)) for v in (near, far))
    code = lax.bitcast_convert_type(depths, jnp.int32) - low
    code = jnp.where(touches, code, high - low + 1)
    return stable_order(code, high - low + 1)


def stable_order(keys: Array, most: int) -> Array:
    """Indices that sort int32 keys [n] between 0 and `most`; equal ones keep their order."""
    return _stable_sort(keys, int(most).bit_length())[0]


def _stable_sort(keys: Array, num_bits: int) -> tuple[Array, Array]:
    """Order and sorted values of non-negative int32 keys below 2^num_bits [n]."""
    pairs, packed = (functools.partial(f, num_bits=num_bits) for f in (_sort_pairs, _sort_packed))
    return lax.platform_dependent(keys, cuda=pairs, rocm=pairs, default=packed)


def _sort_pairs(keys: Array, *, num_bits: int) -> tuple[Array, Array]:
    """By a sort of (key, index). A radix sort takes half as many passes over keys of 16 bits."""
    keys = keys.astype(jnp.uint16 if num_bits <= 16 else jnp.uint32)
    index = jnp.arange(keys.shape[0], dtype=jnp.int32)
    keys, order = lax.sort((keys, index), num_keys=1, is_stable=True)
    return order, keys.astype(jnp.int32)


def _sort_packed(keys: Array, *, num_bits: int) -> tuple[Array, Array]:
    """Least significant digit first, as many bits at a time as fit beside the index in a uint32."""
    size = keys.shape[0]
    index_bits = max(1, (size - 1).bit_length())
    digit_bits = 32 - index_bits
    if num_bits <= digit_bits:
        packed = _sort_digit(keys.astype(jnp.uint32), index_bits)
        order = packed & np.uint32(2**index_bits - 1)
        return order.astype(jnp.int32), (packed >> np.uint32(index_bits)).astype(jnp.int32)
    order = jnp.arange(size, dtype=jnp.int32)
    for shift in range(0, num_bits, digit_bits):
        digit = (keys[order] >> shift).astype(jnp.uint32) & np.uint32(2**digit_bits - 1)
        packed = _sort_digit(digit, index_bits)
        order = order[(packed & np.uint32(2**index_bits - 1)).astype(jnp.int32)]
    return order, keys[order]


def _sort_digit(digits: Array, index_bits: int) -> Array:
    index = jnp.arange(digits.shape[0], dtype=jnp.uint32)
    return lax.sort((digits << np.uint32(index_bits)) | index)


def _saturating_cumsum(counts: Array, most: int) -> Array:
    """Running sums of int32 [N, ...] between 0 and `most` along N, which stop at 2^31 - 1."""
    if counts.shape[0] * most <= _MOST:
        return jnp.cumsum(counts, axis=0)
    return lax.associative_scan(lambda a, b: jnp.minimum(a, _MOST - b) + b, counts)
