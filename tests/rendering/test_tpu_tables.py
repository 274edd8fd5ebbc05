"""Tables of records in a TPU's memory: what is stored, fetched and added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.rendering.splat import tpu_tables
from lgs_jax.rendering.splat.tpu_tables import Table

# Eight, five, one record in a row; the last wider than 128.
SHAPES = [(37, 16), (21, 24), (5, 200)]


@pytest.fixture(params=SHAPES, ids=str)
def stored(request):
    table = Table(*request.param)
    columns = np.random.default_rng(0).normal(size=request.param[::-1]).astype(np.float32)
    array = table.store(jnp.asarray(columns))
    assert array.shape == table.shape
    assert array.shape[1] % 128 == 0
    return table, columns, array


@pytest.fixture(params=[1, 4], ids=lambda pieces: f"{pieces}_pieces")
def number(request, monkeypatch):
    """Of columns to fetch: in one piece, or in several."""
    if request.param > 1:
        monkeypatch.setattr(tpu_tables, "_PIECE", 16)
    return tpu_tables.round_columns(55)


def test_loading_is_the_inverse_of_storing(stored):
    table, columns, array = stored
    np.testing.assert_array_equal(table.load(array), columns)


def test_fetch(stored, number):
    table, columns, array = stored
    indices = np.random.default_rng(1).integers(table.records, size=number)
    got = jax.jit(table.fetch)(array, jnp.asarray(indices, jnp.int32))
    np.testing.assert_array_equal(got, columns[:, indices])


def test_add_drops_what_lies_outside(stored, number):
    table, columns, array = stored
    rng = np.random.default_rng(2)
    indices = rng.integers(table.records + 3, size=number)
    added = rng.normal(size=(table.numbers, number)).astype(np.float32)
    added[:, indices >= table.records] = np.nan
    got = jax.jit(table.add)(array, jnp.asarray(indices, jnp.int32), jnp.asarray(added))
    expected = np.float64(columns)
    inside = indices < table.records
    np.add.at(expected.T, indices[inside], added.T[inside])
    np.testing.assert_allclose(table.load(got), expected, atol=1e-5)
