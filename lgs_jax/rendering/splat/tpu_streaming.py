"""Lists of tiles as a stream of records in a TPU's memory, fetched block by block.

Letters: N splats, F features (G: padded to a multiple of 8), T tiles, S entries of a segment, K
splats of a block, L rows of the stream.
"""

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from lgs_jax.rendering.splat import tiled

Array = jax.Array

# K.
BLOCK = 64
# Rows of a float32 array are stored in groups of so many.
SUBLANES = 8


@dataclasses.dataclass(frozen=True)
class Stream:
    """The lists of a segment one after another, each beginning at a multiple of 8 rows.

    Attributes:
      starts, counts: of the tiles' lists [T].
      ranks: of the splat in every row; N where there is none [L].
      tiles: of every row [L].
    """

    starts: Array
    counts: Array
    ranks: Array
    tiles: Array

    @classmethod
    def make(cls, ranks: Array, offsets: Array, nothing: int, plan: tiled.Plan) -> "Stream":
        counts = offsets[1:] - offsets[:-1]
        room = -(-counts // SUBLANES) * SUBLANES
        starts = jnp.cumsum(room) - room
        entry = jnp.arange(plan.segment, dtype=jnp.int32)
        tile = jnp.searchsorted(offsets, entry, side="right").astype(jnp.int32) - 1
        tile = jnp.minimum(tile, plan.num_tiles - 1)
        # A block may read past the end of its list, also of the last.
        size = plan.segment + SUBLANES * plan.num_tiles + BLOCK
        row = jnp.where(entry < offsets[-1], starts[tile] + entry - offsets[tile], size)
        empty = jnp.zeros(size, jnp.int32)
        return cls(
            starts.astype(jnp.int32),
            counts,
            jnp.full_like(empty, nothing).at[row].set(ranks, mode="drop"),
            empty.at[row].set(tile, mode="drop"),
        )


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The list of a tile, fetched block by block while the last one is blended.

    Attributes:
      tile: its index.
      start: its first row in the stream.
      count: rows of the list.
      stream: records [L, 8 + G] in HBM.
      buffers: two of [K, 8 + G].
      arrived: their semaphores.
    """

    tile: Array
    start: Array
    count: Array
    stream: Any
    buffers: Any
    arrived: Any

    @classmethod
    def of_tile(cls, tile, starts, counts, stream, buffers, arrived) -> "Blocks":
        start = pl.multiple_of(starts[tile], SUBLANES)
        return cls(tile, start, counts[tile], stream, buffers, arrived)

    @property
    def number(self) -> Array:
        return lax.div(self.count + (BLOCK - 1), BLOCK)

    def take(self, index: Array) -> tuple[Array, Array]:
        """Records [K, 8 + G] of a block and which of them are listed [K, 1]; asks for the next."""

        @pl.when(index + 1 < self.number)
        def _():
            self._fetch(index + 1).start()

        self._fetch(index).wait()
        place = index * BLOCK + lax.broadcasted_iota(jnp.int32, (BLOCK, 1), 0)
        return self.buffers[index & 1], place < self.count

    def store(self, index: Array, rows, sums, written) -> None:
        """Copies the rows of a block to their place in HBM."""
        copy = _tpu().make_async_copy(rows, sums.at[self._rows(index)], written.at[0])
        copy.start()
        copy.wait()

    def run(self, body, start):
        """state = body(state) while blocks are left and a transmittance, its second part, > 0."""

        @pl.when(self.number > 0)
        def _():
            self._fetch(jnp.int32(0)).start()

        end = lax.while_loop(
            lambda state: (state[0] < self.number) & (jnp.max(state[1]) > 0), body, start
        )

        # A block that was asked for and is not needed.
        @pl.when(end[0] < self.number)
        def _():
            self._fetch(end[0]).wait()

        return end

    def _rows(self, index: Array):
        return pl.ds(self.start + index * BLOCK, BLOCK)

    def _fetch(self, index: Array):
        slot = index & 1
        source = self.stream.at[self._rows(index)]
        return _tpu().make_async_copy(source, self.buffers.at[slot], self.arrived.at[slot])


def wide_records(table: Array) -> Array:
    """Records [N + 1, 6 + F] as [N + 1, 8 + G]."""
    geometry, features = table[:, : tiled.GEOMETRY], table[:, tiled.GEOMETRY :]
    wide = -(-features.shape[1] // SUBLANES) * SUBLANES
    return jnp.concatenate([pad(geometry, SUBLANES, 1), pad(features, wide, 1)], axis=1)


def pad(array: Array, size: int, axis: int) -> Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, widths)


def _tpu() -> types.ModuleType:
    """Pallas' compiler for TPUs; its import costs time, so it is not that of lgs_jax."""
    try:
        from jax.experimental.pallas import tpu
    except ImportError as error:
        raise NotImplementedError(
            f"JAX {jax.__version__} has no jax.experimental.pallas.tpu ({error}), for which these "
            "kernels are written; take implementation='xla'"
        ) from error
    return tpu


def launch(kernel, stream: Stream, records, *, tile_inputs, tile_outputs, plan, stream_outputs=0):
    """Runs a kernel for every tile.

    Args:
      kernel: (starts, counts, records, [monomials,] a block of each tile input, [zeros,] a block of
        each tile output, [sums,] scratch).
      stream: the lists.
      records: of the stream [L, 8 + G].
      tile_inputs, tile_outputs: arrays [T, ...] of which a program sees its tile's part.
      plan: how the work is cut.
      stream_outputs: 1 for a kernel that writes a row of sums for every row of the stream.

    Raises:
      NotImplementedError: if JAX has no Mosaic.
    """
    tpu = _tpu()

    def by_tile(array):
        return pl.BlockSpec((1, *array.shape[1:]), lambda t, *_: (t, 0, 0))

    def whole(array):
        return pl.BlockSpec(array.shape, lambda *_: (0,) * array.ndim)

    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    inputs, in_specs = [records], [anywhere]
    outputs, out_specs = list(tile_outputs), [by_tile(a) for a in tile_outputs]
    scratch = [
        tpu.VMEM((2, BLOCK, records.shape[1]), jnp.float32),
        tpu.SemaphoreType.DMA((2,)),
    ]
    aliases = {}
    if stream_outputs:
        monomials = pad(tiled.monomials(plan), SUBLANES, 1)
        inputs, in_specs = [*inputs, monomials], [*in_specs, whole(monomials)]
    inputs, in_specs = [*inputs, *tile_inputs], [*in_specs, *map(by_tile, tile_inputs)]
    if stream_outputs:
        zeros = jnp.zeros_like(records)
        aliases = {2 + len(inputs): len(outputs)}  # the scalars count as inputs
        inputs, in_specs = [*inputs, zeros], [*in_specs, anywhere]
        outputs, out_specs = [*outputs, zeros], [*out_specs, anywhere]
        scratch += [tpu.VMEM((BLOCK, records.shape[1]), jnp.float32), tpu.SemaphoreType.DMA((1,))]
    call = functools.partial(
        pl.pallas_call,
        functools.partial(kernel, plan=plan),
        grid_spec=tpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(plan.num_tiles,),
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=scratch,
        ),
        out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in outputs],
        input_output_aliases=aliases,
        # In this order: a block's zeros past the end of a list come before the next list's rows.
        compiler_params=tpu.CompilerParams(dimension_semantics=("arbitrary",)),
    )
    arguments = (stream.starts, stream.counts, *inputs)
    return tuple(lax.platform_dependent(*arguments, tpu=call(), default=call(interpret=True)))
