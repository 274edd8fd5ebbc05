"""Lists of tiles as a stream of records in a TPU's memory, fetched block by block.

A record is a column: a float32 array is stored in pieces of 8 rows and 128 columns, so that rows of
16 numbers would take up eight times their size.

Letters: N splats, F features (G: padded to a multiple of 8), T tiles, S entries of a segment, K
splats of a block, L columns of the stream.
"""

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from lgs_jax.rendering.splat import tiled, tpu_tables

Array = jax.Array

# A float32 array is stored in pieces of so many rows and columns.
SUBLANES, LANES = 8, 128
# K; a copy begins at a multiple of LANES.
BLOCK = LANES


@dataclasses.dataclass(frozen=True)
class Stream:
    """The lists of a segment one after another, each in blocks of its own.

    Attributes:
      starts: first block of each tile's list, then the number of blocks [T + 1].
      ranks: of the splat in every column; N where there is none [L].
    """

    starts: Array
    ranks: Array

    @classmethod
    def make(cls, ranks: Array, offsets: Array, nothing: int, plan: tiled.Plan) -> "Stream":
        counts = offsets[1:] - offsets[:-1]
        ends = jnp.cumsum(-(-counts // BLOCK), dtype=jnp.int32)
        starts = jnp.concatenate([jnp.zeros(1, jnp.int32), ends])
        # As many as there can be; those at the end may belong to no list.
        blocks = (plan.segment + (BLOCK - 1) * plan.num_tiles) // BLOCK
        blocks = tpu_tables.round_columns(BLOCK * blocks) // BLOCK
        block = jnp.arange(blocks, dtype=jnp.int32)
        tile = jnp.searchsorted(ends, block, side="right")
        tile = jnp.minimum(tile, plan.num_tiles - 1)
        place = BLOCK * (block - starts[tile])[:, None] + jnp.arange(BLOCK, dtype=jnp.int32)
        listed = place < counts[tile][:, None]
        entry = jnp.where(listed, offsets[tile][:, None] + place, 0)
        return cls(starts, jnp.where(listed, ranks[entry], nothing).reshape(-1))


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The list of a tile, fetched block by block while the last one is blended.

    Blocks are numbered through all lists, and the first one of the next tile is fetched during the
    last one of this, so that nobody waits for it.

    Attributes:
      tile: its index.
      first, end: its blocks.
      total: number of blocks of all tiles.
      stream: records [8 + G, L] in HBM.
      buffers: two of [8 + G, K].
      arrived: their semaphores.
    """

    tile: Array
    first: Array
    end: Array
    total: Array
    stream: Any
    buffers: Any
    arrived: Any

    @classmethod
    def of_tile(cls, starts, stream, buffers, arrived) -> "Blocks":
        tile = pl.program_id(0)
        total = starts[pl.num_programs(0)]
        return cls(tile, starts[tile], starts[tile + 1], total, stream, buffers, arrived)

    def take(self, block: Array) -> Array:
        """Records [8 + G, K] of a block that was asked for; asks for the next."""
        self._ask(block + 1)
        self._fetch(block).wait()
        return self.buffers[block & 1]

    def run(self, body, *start):
        """state = body(state) while blocks are left and a transmittance > 0.

        A state is the number of a block, a transmittance, and what else there is.
        """

        @pl.when(self.tile == 0)
        def _():
            self._ask(jnp.int32(0))

        end = lax.while_loop(
            lambda state: (state[0] < self.end) & (jnp.max(state[1]) > 0),
            body,
            (self.first, *start),
        )

        # A block was asked for and is not needed; the next tile's is.
        @pl.when(end[0] < self.end)
        def _():
            self._fetch(end[0]).wait()
            self._ask(self.end)

        return end

    def _ask(self, block: Array) -> None:
        pl.when(block < self.total)(lambda: self._fetch(block).start())

    def _fetch(self, block: Array):
        slot = block & 1
        return _tpu().make_async_copy(
            self.stream.at[:, _columns(block)], self.buffers.at[slot], self.arrived.at[slot]
        )


@dataclasses.dataclass(frozen=True)
class Sums:
    """What is written for every block of the stream, in their order, while the next is computed.

    Attributes:
      blocks: of the tile.
      out: [8 + G, L] in HBM.
      buffers: two of [8 + G, K].
      written: their semaphores.
    """

    blocks: Blocks
    out: Any
    buffers: Any
    written: Any

    def put(self, block: Array, values: Array) -> None:
        """Writes values [8 + G, K]."""
        pl.when(block >= 2)(lambda: self._copy(block - 2).wait())
        self.buffers[block & 1] = values
        self._copy(block).start()

    def finish(self, block: Array) -> None:
        """Writes zeros from this block to the end of the tile's list."""
        zeros = jnp.zeros(self.buffers.shape[1:])
        lax.fori_loop(block, self.blocks.end, lambda block, _: self.put(block, zeros), None)
        last = self.blocks.tile == pl.num_programs(0) - 1
        for block in (self.blocks.total - 2, self.blocks.total - 1):
            pl.when(last & (block >= 0))(lambda block=block: self._copy(block).wait())

    def _copy(self, block: Array):
        slot = block & 1
        return _tpu().make_async_copy(
            self.buffers.at[slot], self.out.at[:, _columns(block)], self.written.at[slot]
        )


def _columns(block: Array):
    return pl.ds(pl.multiple_of(block * BLOCK, BLOCK), BLOCK)


def wide_records(table: Array) -> Array:
    """Records [N + 1, 6 + F] as columns [8 + G, N + 1]."""
    geometry, features = table[:, : tiled.GEOMETRY].T, table[:, tiled.GEOMETRY :].T
    wide = -(-len(features) // SUBLANES) * SUBLANES
    return jnp.concatenate([pad(geometry, SUBLANES, 0), pad(features, wide, 0)])


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


def launch(kernel, stream: Stream, records, *, tile_inputs, tile_outputs, plan, sums=False):
    """Runs a kernel for every tile.

    Args:
      kernel: (starts, records, [monomials,] a block of each tile input and of each tile output,
        [sums,] scratch).
      stream: the lists.
      records: of the stream [8 + G, L].
      tile_inputs, tile_outputs: arrays [T, ...] of which a program sees its tile's part.
      plan: how the work is cut.
      sums: of a kernel that gets the monomials [8, P] and writes a column for every record.

    Raises:
      NotImplementedError: if JAX has no Mosaic.
    """
    tpu = _tpu()

    def by_tile(array):
        return pl.BlockSpec((1, *array.shape[1:]), lambda t, *_: (t, 0, 0))

    def whole(array):
        return pl.BlockSpec(array.shape, lambda *_: (0,) * array.ndim)

    def two_buffers():
        buffers = tpu.VMEM((2, len(records), BLOCK), jnp.float32)
        return [buffers, tpu.SemaphoreType.DMA((2,))]

    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    inputs, in_specs = [records], [anywhere]
    outputs, out_specs = list(tile_outputs), [by_tile(a) for a in tile_outputs]
    scratch = two_buffers()
    if sums:
        monomials = pad(tiled.monomials(plan).T, SUBLANES, 0)
        inputs, in_specs = [*inputs, monomials], [*in_specs, whole(monomials)]
        outputs, out_specs = [*outputs, records], [*out_specs, anywhere]
        scratch += two_buffers()
    inputs, in_specs = [*inputs, *tile_inputs], [*in_specs, *map(by_tile, tile_inputs)]
    call = functools.partial(
        pl.pallas_call,
        functools.partial(kernel, plan=plan),
        grid_spec=tpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(plan.num_tiles,),
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=scratch,
        ),
        out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in outputs],
        # In this order: a tile asks for the first block of the next.
        compiler_params=tpu.CompilerParams(dimension_semantics=("arbitrary",)),
    )
    arguments = (stream.starts, *inputs)
    return tuple(lax.platform_dependent(*arguments, tpu=call(), default=call(interpret=True)))
