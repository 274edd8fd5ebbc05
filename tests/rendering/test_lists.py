"""Lists of (splat, tile) pairs: what they hold, where the pairs stand, how much room they get."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from render_scenes import make_cameras, make_scene

from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import binning, dispatch, lists, projection

GRID = binning.Grid(height=30, width=44, tile=8, images=2)


@functools.cache
def bins():
    """Bins of 50 splats in each of two images; some touch no tile."""
    lens = {"height": GRID.height, "width": GRID.width, "near": 0.1, "far": 10.0}
    cameras = make_cameras(GRID.height, GRID.width, (GRID.images,))
    splats = projection.project(
        make_scene(40, num=50, z=(-1.0, 5.0), scale=0.3)[None], cameras, **lens
    )
    opacities = jnp.full(splats.x.shape, 0.6)
    return binning.bin_splats(splats, opacities, GRID, near=0.1, far=10.0, capacity=None)


def entries_by_hand():
    """(rank, tile) of all entries: splat after splat in order of depth, row by row."""
    b = bins()
    counts = np.diff(b.ends, prepend=0)
    for rank, (left, top, columns, count) in enumerate(zip(b.left, b.top, b.columns, counts)):
        for i in range(count):
            yield rank, int((top + i // columns) * GRID.columns + left + i % columns)


@pytest.mark.parametrize("sort", ["_sort_packed", "_sort_pairs"])
@pytest.mark.parametrize("size", [64, 100])
def test_segments_list_all_entries_by_tile(size, sort, monkeypatch):
    monkeypatch.setattr(
        binning, "_stable_sort", lambda keys, bits: getattr(binning, sort)(keys, num_bits=bits)
    )
    expected = list(entries_by_hand())
    assert 300 < len(expected) == int(bins().drawn)
    for index in range(-(-len(expected) // size)):
        ranks, offsets = binning.segment(bins(), jnp.int32(index), size, GRID)
        here = expected[index * size : (index + 1) * size]
        assert offsets[-1] == len(here)
        for tile in range(GRID.num_tiles):
            listed = ranks[offsets[tile] : offsets[tile + 1]].tolist()
            assert listed == [r for r, t in here if t == tile]


def test_places_of_entries_in_the_sequence():
    places, columns = binning.places(bins()), bins().columns
    for entry, (rank, tile) in enumerate(entries_by_hand()):
        row, column = divmod(tile, GRID.columns)
        assert places[rank] + row * columns[rank] + column == entry


@pytest.mark.parametrize("most", [3, 2**16 - 1, 2**16, 2**31 - 1])
def test_sorts_agree(most):
    """As GPUs sort and as others do; equal keys keep their order."""
    keys = jnp.asarray(np.random.default_rng(0).integers(0, most, 300, endpoint=True), jnp.int32)
    keys = jnp.concatenate([keys, keys[:100]])
    order = np.argsort(keys, stable=True)
    for sort in (binning._sort_pairs, binning._sort_packed):
        got, values = sort(keys, num_bits=most.bit_length())
        np.testing.assert_array_equal(got, order)
        np.testing.assert_array_equal(values, keys[order])


def counted(scene, cameras, **options):
    return lists.count_entries(scene, cameras, height=24, width=32, **options)


@pytest.mark.parametrize("implementation", dispatch.PLANS)
def test_count_is_what_rendering_requires(implementation):
    scene, cameras = make_scene(41, lead=(2,)), make_cameras(24, 32, (2, 3))
    options = {"implementation": implementation, "antialiased": True}
    out = render(scene, cameras, height=24, width=32, **options)
    got = counted(scene, cameras, **options)
    np.testing.assert_array_equal(got, out.aux["required"])
    assert got.min() > 60


def test_count_neither_sorts_nor_draws():
    scene, cameras = make_scene(41), make_cameras(24, 32)
    text = jax.jit(counted).lower(scene, cameras).compile().as_text()
    assert not re.findall(r"\b(?:sort|while)\(", text)


def test_slots_have_room_in_few_steps():
    needs = np.linspace(0, 40, 401)
    slots = np.array([lists.slots_for(need * 7, 7) for need in needs])
    assert (slots >= 1.25 * needs - 1e-9).all()
    assert (slots <= np.maximum(1, 2 * 1.25 * needs)).all()
    assert sorted(set(slots)) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    with pytest.raises(ValueError, match="num_splats=0 must be at least 1"):
        lists.slots_for(10, 0)


@pytest.mark.parametrize("implementation", dispatch.PLANS)
def test_slots_are_what_was_asked_for(implementation):
    plan = dispatch.PLANS[implementation](64, 64, num_images=2, num_splats=4096, slots_per_splat=3)
    assert plan.segment == 3 * plan.images * 4096
    with pytest.raises(NotImplementedError, match="more than int32 counts; ask for fewer slots"):
        dispatch.PLANS[implementation](
            1024, 1024, num_images=1, num_splats=2**26, slots_per_splat=32
        )
