"""Rotations and affine maps against SciPy, NumPy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lgs_jax.core import rotations

# A few roundings of float32 (6e-8) on numbers of size 1.
ATOL = 1e-6


def random_quats(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def scipy_rotation(quats: np.ndarray) -> Rotation:
    return Rotation.from_quat(np.asarray(quats, np.float64)[:, [1, 2, 3, 0]])  # SciPy is xyzw


def random_affine(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    affine = np.tile(np.eye(4), (5, 1, 1))
    affine[:, :3] = rng.normal(size=(5, 3, 4))
    affine[:, :3, :3] += 3 * np.eye(3)  # keeps it far from singular
    return affine.astype(np.float32)


def test_matrix_matches_scipy_for_quaternions_of_any_length():
    quats = random_quats(0, 50) * np.logspace(-3, 3, 50, dtype=np.float32)[:, None]
    got = rotations.matrix_from_quats(jnp.asarray(quats))
    np.testing.assert_allclose(got, scipy_rotation(quats).as_matrix(), atol=ATOL)


def test_quarter_turn_about_z_takes_x_to_y():
    quat = jnp.array([np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)])
    np.testing.assert_allclose(
        rotations.matrix_from_quats(quat) @ jnp.array([1.0, 0, 0]), [0, 1, 0], atol=ATOL
    )


@pytest.mark.parametrize("w", [1.0, 1e-3, 0.0])  # ordinary turns, almost half turns, half turns
def test_quats_from_matrix_inverts_matrix_from_quats(w):
    quats = random_quats(1, 40)
    quats[:, 0] *= w
    quats /= np.linalg.norm(quats, axis=-1, keepdims=True)
    got = np.asarray(rotations.quats_from_matrix(rotations.matrix_from_quats(jnp.asarray(quats))))
    assert (got[:, 0] >= 0).all()
    # q and -q are the same rotation, and which of them is returned flips at w = 0.
    np.testing.assert_allclose(np.abs(np.sum(got * quats, -1)), 1.0, atol=ATOL)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1.0, atol=ATOL)


def test_quats_from_matrix_has_finite_gradients_at_identity_and_half_turns():
    half_turns = np.stack([np.diag(d) for d in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])])
    grad = jax.grad(lambda m: rotations.quats_from_matrix(m).sum())(jnp.asarray(half_turns, float))
    assert np.isfinite(grad).all()


def test_product_is_second_rotation_followed_by_first():
    a, b = random_quats(2, 30), random_quats(3, 30)
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    b /= np.linalg.norm(b, axis=-1, keepdims=True)
    got = rotations.matrix_from_quats(rotations.multiply_quats(jnp.asarray(a), jnp.asarray(b)))
    expected = (scipy_rotation(a) * scipy_rotation(b)).as_matrix()
    np.testing.assert_allclose(got, expected, atol=ATOL)


def test_zero_quaternion_is_the_identity_with_a_finite_gradient():
    value, grad = jax.value_and_grad(lambda q: rotations.normalize_quats(q).sum())(jnp.zeros(4))
    assert value == 1.0
    np.testing.assert_array_equal(grad, np.zeros(4))


def test_normalize_keeps_very_short_quaternions():
    quat = jnp.array([0.0, 3e-11, 0.0, 4e-11])
    np.testing.assert_allclose(rotations.normalize_quats(quat), [0, 0.6, 0, 0.8], atol=ATOL)


def test_affine_inverse_matches_numpy():
    affine = random_affine(4)
    got = rotations.affine_inverse(jnp.asarray(affine))
    np.testing.assert_allclose(got, np.linalg.inv(affine.astype(np.float64)), atol=5e-6)


def test_gradient_of_affine_inverse_is_that_of_a_general_inverse():
    affine = random_affine(5)[0]
    weights = np.random.default_rng(6).normal(size=(4, 4))
    weights[3] = 0.0  # the last row is fixed by the contract
    got = jax.grad(lambda a: jnp.sum(rotations.affine_inverse(a) * weights))(jnp.asarray(affine))
    inverse = np.linalg.inv(affine.astype(np.float64))
    expected = -(inverse.T @ weights @ inverse.T)  # d tr(W^T A^-1) / dA
    np.testing.assert_allclose(got[:3], expected[:3], atol=5e-6 * np.abs(expected).max())


def test_apply_affine_matches_homogeneous_coordinates():
    affine = random_affine(7)
    points = np.random.default_rng(8).normal(size=(5, 11, 3)).astype(np.float32)
    homogeneous = np.concatenate([points, np.ones((5, 11, 1))], axis=-1)
    expected = np.einsum("bij,bnj->bni", affine.astype(np.float64), homogeneous)[..., :3]
    got = rotations.apply_affine(jnp.asarray(affine), jnp.asarray(points))
    np.testing.assert_allclose(got, expected, atol=5e-6)


def test_affine_from_parts_places_linear_part_and_shift():
    got = np.asarray(rotations.affine_from_parts(jnp.arange(9.0).reshape(3, 3), jnp.ones(3) * 7))
    expected = [[0, 1, 2, 7], [3, 4, 5, 7], [6, 7, 8, 7], [0, 0, 0, 1]]
    np.testing.assert_array_equal(got, expected)
