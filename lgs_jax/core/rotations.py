"""Rotations and affine frames.

Quaternions are wxyz and need not be normalised: every function normalises first. Matrices act on
column vectors, so `a_from_c = a_from_b @ b_from_c`.
"""

import jax
import jax.numpy as jnp

Array = jax.Array

_HIGHEST = jax.lax.Precision.HIGHEST


def normalize_quats(quats: Array, eps: float = 1e-12) -> Array:
    """Scales quaternions to unit length; a zero quaternion becomes the identity. [..., 4]."""
    square = jnp.sum(quats * quats, axis=-1, keepdims=True)
    identity = jnp.zeros_like(quats).at[..., 0].set(1.0)
    is_zero = square <= eps * eps
    return jnp.where(is_zero, identity, quats / jnp.sqrt(jnp.where(is_zero, 1.0, square)))


def matrix_from_quats(quats: Array) -> Array:
    """Rotation matrices [..., 3, 3] of wxyz quaternions [..., 4] of any non-zero length."""
    w, x, y, z = jnp.moveaxis(normalize_quats(quats), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def quats_from_matrix(matrices: Array) -> Array:
    """Unit wxyz quaternions [..., 4] with w >= 0 of rotation matrices [..., 3, 3].

    Builds the four candidates that each divide by one component and takes the best conditioned one
    (Shepperd 1978), so that it is exact for half turns too.
    """
    m = matrices
    m00, m01, m02 = m[..., 0, 0], m[..., 0, 1], m[..., 0, 2]
    m10, m11, m12 = m[..., 1, 0], m[..., 1, 1], m[..., 1, 2]
    m20, m21, m22 = m[..., 2, 0], m[..., 2, 1], m[..., 2, 2]
    squares = jnp.stack(  # 4 times the square of each component
        [1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], -1
    )
    products = jnp.stack(  # products[..., i, j] = 4 q_i q_j
        [
            jnp.stack([squares[..., 0], m21 - m12, m02 - m20, m10 - m01], -1),
            jnp.stack([m21 - m12, squares[..., 1], m10 + m01, m02 + m20], -1),
            jnp.stack([m02 - m20, m10 + m01, squares[..., 2], m21 + m12], -1),
            jnp.stack([m10 - m01, m02 + m20, m21 + m12, squares[..., 3]], -1),
        ],
        -2,
    )
    best = jnp.argmax(squares, axis=-1)[..., None, None]
    quats = normalize_quats(jnp.take_along_axis(products, best, axis=-2)[..., 0, :])
    return jnp.where(quats[..., :1] < 0, -quats, quats)


def multiply_quats(a: Array, b: Array) -> Array:
    """Hamilton product: the rotation `b` followed by `a`. [..., 4] x [..., 4] -> [..., 4]."""
    aw, ax, ay, az = jnp.moveaxis(a, -1, 0)
    bw, bx, by, bz = jnp.moveaxis(b, -1, 0)
    return jnp.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def affine_inverse(b_from_a: Array) -> Array:
    """Inverse of affine maps [..., 4, 4] whose last row is (0, 0, 0, 1).

    The linear part is inverted by cofactors, not transposed: the gradient is that of the inverse of
    a general matrix, so it is right for every one of the twelve free entries.
    """
    linear, shift = b_from_a[..., :3, :3], b_from_a[..., :3, 3]
    c0, c1, c2 = linear[..., :, 0], linear[..., :, 1], linear[..., :, 2]
    rows = jnp.stack([jnp.cross(c1, c2), jnp.cross(c2, c0), jnp.cross(c0, c1)], axis=-2)
    inverse = rows / jnp.sum(c0 * rows[..., 0, :], axis=-1)[..., None, None]
    back = -jnp.einsum("...ij,...j->...i", inverse, shift, precision=_HIGHEST)
    return affine_from_parts(inverse, back)


def affine_from_parts(linear: Array, shift: Array) -> Array:
    """Assembles [..., 4, 4] affine maps from a linear part [..., 3, 3] and a shift [..., 3]."""
    top = jnp.concatenate([linear, shift[..., None]], axis=-1)
    bottom = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], top.dtype), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)


def apply_affine(b_from_a: Array, points_a: Array) -> Array:
    """Maps points [..., N, 3] with affine maps [..., 4, 4]; leading dimensions must match."""
    rotated = jnp.einsum("...ij,...nj->...ni", b_from_a[..., :3, :3], points_a, precision=_HIGHEST)
    return rotated + b_from_a[..., None, :3, 3]
