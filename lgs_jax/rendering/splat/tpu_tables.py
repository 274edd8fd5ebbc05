"""Records of splats in a TPU's memory, in an order that is read and added to at random.

XLA fetches one row of a table by one copy of that row, but one column by a copy of 128 of them,
and adds to rows many times faster than to columns. Rows are as wide as memory is laid out, 128
numbers, so a row holds several records side by side: record n lies in row n mod R.

What is fetched, and what is added, are columns; they are handled piece by piece, so that their
rows, eight times as large, need little memory.

Letters: N records, C numbers of a record, R rows, L columns fetched.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

_LANES = 128
# Columns at a time; with fewer, XLA adds them to 5 million records in a slower way.
_PIECE = 2**18


def round_columns(number: int) -> int:
    """The least number of columns, from this on, that `Table` takes."""
    return number if number <= _PIECE else -(-number // _PIECE) * _PIECE


@dataclasses.dataclass(frozen=True)
class Table:
    """How N records of C numbers are stored.

    Attributes:
      records: N.
      numbers: C.
    """

    records: int
    numbers: int

    @property
    def groups(self) -> int:
        """Records side by side in a row."""
        return max(1, _LANES // self.numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the array: R, and the width of a row."""
        width = -(-self.groups * self.numbers // _LANES) * _LANES
        return -(-self.records // self.groups), width

    def store(self, columns: Array) -> Array:
        """Records [C, N] as an array of this shape."""
        rows, width = self.shape
        columns = jnp.pad(columns, ((0, 0), (0, self.groups * rows - self.records)))
        stacked = jnp.concatenate(jnp.split(columns, self.groups, axis=1))
        return jnp.pad(stacked, ((0, width - len(stacked)), (0, 0))).T

    def load(self, array: Array) -> Array:
        """The records [C, N] of an array."""
        stacked = array.T[: self.groups * self.numbers]
        return jnp.concatenate(jnp.split(stacked, self.groups), axis=1)[:, : self.records]

    def fetch(self, array: Array, indices: Array) -> Array:
        """The records of these indices, [L] to [C, L]; L is one of `round_columns`."""

        def fetch_piece(indices):
            stacked = array[lax.rem(indices, self.shape[0])].T[: self.groups * self.numbers]
            records = stacked.reshape(self.groups, self.numbers, -1)
            return jnp.sum(jnp.where(self._mine(indices), records, 0.0), axis=0)

        def step(piece, out):
            found = fetch_piece(_piece(indices, piece))
            return lax.dynamic_update_slice(out, found, (0, piece * found.shape[1]))

        out = jnp.zeros((self.numbers, len(indices)))
        return lax.fori_loop(0, _pieces(indices), step, out)

    def add(self, array: Array, indices: Array, columns: Array) -> Array:
        """Adds columns [C, L] to the records of these indices [L]; what lies outside is dropped."""
        rows, width = self.shape

        def step(piece, array):
            where = _piece(indices, piece)
            wide = jnp.where(self._mine(where), _piece(columns, piece), 0.0)
            wide = wide.reshape(self.groups * self.numbers, -1)
            wide = jnp.pad(wide, ((0, width - len(wide)), (0, 0)))
            row = jnp.where(where < self.records, lax.rem(where, rows), rows)
            return array.at[row].add(wide.T, mode="drop")

        return lax.fori_loop(0, _pieces(indices), step, array)

    def _mine(self, indices: Array) -> Array:
        """Where in its row a record lies [groups, 1, L]."""
        groups = jnp.arange(self.groups, dtype=jnp.int32)[:, None, None]
        return lax.div(indices, self.shape[0]) == groups


def _pieces(indices: Array) -> int:
    return -(-len(indices) // _PIECE)


def _piece(array: Array, piece: Array) -> Array:
    size = min(array.shape[-1], _PIECE)
    return lax.dynamic_slice_in_dim(array, piece * size, size, axis=-1)
