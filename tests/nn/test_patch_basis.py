import numpy as np
import pytest

from lgs_jax.nn import patch_basis


@pytest.mark.parametrize(("factor", "components"), [(4, 6), (8, 6), (2, 12), (4, 48)])
def test_columns_are_orthogonal_and_the_first_is_the_mean(factor, components):
    basis = patch_basis.patch_basis(factor, components).astype(np.float64)
    gram = basis.T @ basis
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-6)
    assert np.diag(gram).min() > 0
    np.testing.assert_allclose(basis[:, 0], basis[0, 0], rtol=1e-6)


def test_all_components_together_lose_nothing():
    patch = np.random.default_rng(0).uniform(-1, 1, (5, 48))
    basis = patch_basis.patch_basis(4, 48).astype(np.float64)
    np.testing.assert_allclose(patch @ basis @ np.linalg.pinv(basis), patch, atol=1e-6)


def test_the_first_components_keep_colour_and_slope():
    """A patch of one colour with a brightness ramp each way lies in the first five components."""
    cosine = np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    patch = np.array([0.3, -0.2, 0.5]) + 0.2 * cosine[:, None, None] - 0.1 * cosine[None, :, None]
    basis = patch_basis.patch_basis(4, 5).astype(np.float64)
    patch = patch.reshape(-1)
    np.testing.assert_allclose(patch @ basis @ np.linalg.pinv(basis), patch, atol=1e-6)


def test_components_beyond_the_patch_are_zero():
    basis = patch_basis.patch_basis(1, 6)
    assert basis.shape == (3, 6)
    assert np.all(basis[:, 3:] == 0)
    assert np.linalg.matrix_rank(basis) == 3
