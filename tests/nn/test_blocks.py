import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.nn import blocks


def test_space_to_depth_keeps_each_block_together():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    got = np.asarray(blocks.space_to_depth(jnp.asarray(x), 2))
    assert got.shape == (2, 2, 3, 12)
    for row in range(2):
        for column in range(3):
            block = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_array_equal(got[:, row, column], block.reshape(2, -1))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_depth_to_space_is_the_inverse(factor):
    x = jnp.arange(8 * 12 * 3).reshape(1, 1, 8, 12, 3)
    np.testing.assert_array_equal(
        blocks.depth_to_space(blocks.space_to_depth(x, factor), factor), x
    )


def test_residual_block_starts_as_its_shortcut():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    embedding = jax.random.normal(jax.random.key(1), (2, 5))
    block = blocks.ResidualBlock(8)
    got, _ = block.init_with_output(jax.random.key(2), x, embedding)
    np.testing.assert_array_equal(got, x)


def test_residual_block_film_scales_and_shifts_after_the_second_norm():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    block = blocks.ResidualBlock(8)
    embedding = jnp.full((2, 3), 1e3)  # SiLU(1e3) = 1e3, so the film is 1e3 * column sums
    params = block.init(jax.random.key(2), x, embedding)["params"]
    film = params["film"]["kernel"]
    scale = jnp.zeros((3, 8)).at[0].set(-1e-3)  # 1 + scale = 0: only the shift remains
    shift = jnp.zeros((3, 8)).at[1].set(2e-3)  # of 2
    params["film"]["kernel"] = jnp.concatenate([scale, shift], axis=1).astype(film.dtype)
    centre = jnp.zeros((3, 3, 8, 8)).at[1, 1].set(jnp.eye(8))
    params["conv_out"]["kernel"] = centre
    got = block.apply({"params": params}, x, embedding)
    np.testing.assert_allclose(got - x, jax.nn.silu(2.0), rtol=1e-4)


def test_group_norm_does_not_mix_maps():
    norm = blocks.group_norm(8, dtype=jnp.float32, name=None)
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 8))
    params = norm.init(jax.random.key(1), x)
    changed = x.at[0, 1].mul(5.0)
    got, other = norm.apply(params, x), norm.apply(params, changed)
    np.testing.assert_array_equal(got[0, 0], other[0, 0])
    groups = np.asarray(got).reshape(2, 3, 16, 2, 4)
    np.testing.assert_allclose(groups.mean(axis=(2, 4)), 0.0, atol=1e-5)
    np.testing.assert_allclose(groups.var(axis=(2, 4)), 1.0, atol=1e-4)


def test_resampling_shapes_and_values():
    x = jax.random.normal(jax.random.key(0), (1, 2, 4, 6, 8))
    identity = jnp.zeros((3, 3, 8, 8)).at[1, 1].set(jnp.eye(8))
    params = {"params": {"conv": {"kernel": identity, "bias": jnp.zeros(8)}}}
    down = blocks.Downsample(8).apply(params, x)
    expected = (x[:, :, ::2] + x[:, :, 1::2]) / 2
    expected = (expected[:, :, :, ::2] + expected[:, :, :, 1::2]) / 2
    np.testing.assert_allclose(down, expected, atol=1e-6)
    up = blocks.Upsample(8).apply(params, x)
    assert up.shape == (1, 2, 8, 12, 8)
    np.testing.assert_allclose(up[:, :, 1::2, ::2], x, atol=1e-6)
