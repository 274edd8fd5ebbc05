import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.nn import cross_view

SHAPE = (2, 4, 3, 2, 8)
MIXING = ("resnet", "attention", "full")


def _block(mode, x, mask=None):
    """A block whose last layer is no longer zero."""
    block = cross_view.CrossView(mode, num_heads=2)
    variables = block.init(jax.random.key(1), x, mask)
    variables = jax.tree.map(
        lambda a: a + 0.3 * jax.random.normal(jax.random.key(a.size), a.shape), variables
    )
    return lambda x, mask=None: block.apply(variables, x, mask)


@pytest.mark.parametrize("mode", cross_view.MODES)
def test_starts_as_the_identity(mode):
    x = jax.random.normal(jax.random.key(0), SHAPE)
    got, _ = cross_view.CrossView(mode, num_heads=2).init_with_output(jax.random.key(1), x)
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("mode", MIXING)
def test_views_see_each_other_and_permute(mode):
    x = jax.random.normal(jax.random.key(0), SHAPE)
    apply = _block(mode, x)
    got = apply(x)
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_allclose(apply(x[:, order]), got[:, order], rtol=1e-4, atol=1e-5)
    changed = apply(x.at[:, 3, 0, 0].mul(-1.0))
    assert float(jnp.abs(changed - got)[:, :3, 0, 0].max()) > 1e-3
    other_pixels = float(jnp.abs(changed - got)[:, :3, 1:].max())
    assert (other_pixels > 1e-4) == (mode == "full")


@pytest.mark.parametrize("mode", MIXING)
def test_views_left_out_do_not_exist_for_the_others(mode):
    x = jax.random.normal(jax.random.key(0), SHAPE)
    mask = jnp.array([[True, False, True, False], [True, False, True, False]])
    apply = _block(mode, x, mask)
    got = apply(x, mask)[:, ::2]
    np.testing.assert_array_equal(got, apply(x.at[:, 1::2].mul(100.0), mask)[:, ::2])
    # Another order of summation than without the views: equal but for rounding.
    np.testing.assert_allclose(got, apply(x[:, ::2]), rtol=1e-5, atol=1e-5)


def test_mean_over_views_differs_per_scene_and_survives_an_empty_mask():
    x = jnp.arange(6.0).reshape(2, 3, 1)
    mask = jnp.array([[True, False, True], [False, False, False]])
    np.testing.assert_array_equal(cross_view.mean_over_views(x, mask)[..., 0], [[1.0], [0.0]])
    np.testing.assert_array_equal(cross_view.mean_over_views(x, None)[..., 0], [[1.0], [4.0]])


def test_full_refuses_large_maps_and_unknown_modes_are_named():
    with pytest.raises(ValueError, match=r"13 x 13 .*one mode per level"):
        cross_view.CrossView("full").init(jax.random.key(0), jnp.zeros((1, 2, 13, 13, 8)))
    with pytest.raises(ValueError, match="cross_view='mean'"):
        cross_view.CrossView("mean").init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 8)))
