"""Projection of 3D Gaussians to 2D splats (EWA; Zwicker et al. 2001), by plain autodiff.

Every quantity is kept as separate arrays [I, N] per component: arrays with a minor dimension of 2
or 3 defeat vectorisation, on CPUs as on accelerators.

Letters: I images, N Gaussians.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.splat import constants

Array = jax.Array

CAMERA_MODELS = ("pinhole", "orthographic")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Splats:
    """Projected Gaussians; every array is [..., N], lengths in pixels.

    The exponent at an offset dx, dy is half of sharp_x * (dx + shear * dy)^2 + sharp_y * dy^2: the
    inverse covariance factorised (LDL^T). Written out, its terms cancel along a long thin splat.

    Attributes:
      x: horizontal centre.
      y: vertical centre.
      sharp_x: inverse of the variance within a row of pixels, 1 / var(x given y).
      shear: pixels by which the middle of a row lies further left than that of the row above.
      sharp_y: inverse of the vertical variance, 1 / var_y.
      depths: distance along the optical axis.
      var_x: horizontal variance, blur included.
      var_y: vertical variance, blur included.
      compensation: factor on the opacity that undoes the gain of energy by the blur.
      visible: whether the depth is between near and far.
    """

    x: Array
    y: Array
    sharp_x: Array
    shear: Array
    sharp_y: Array
    depths: Array
    var_x: Array
    var_y: Array
    compensation: Array
    visible: Array


def project(
    scene: Gaussians,
    cameras: Cameras,
    *,
    height: int,
    width: int,
    near: float,
    far: float,
    eps2d: float = constants.EPS2D,
    camera_model: str = "pinhole",
) -> Splats:
    """Projects scenes [..., N] into cameras [...] with matching (or broadcastable) dimensions.

    The orthographic model reads fx, fy as pixels per unit of length. Where a Gaussian is not
    visible, all values are finite and, unless its own numbers are not, carry no gradient.
    """
    rows, shift = _rows(cameras.cam_from_world)
    fx, fy, cx, cy = _components(cameras.intrinsics[..., None, :])
    px, py, pz = _components(scene.means)
    cam_x, cam_y, cam_z = (r[0] * px + r[1] * py + r[2] * pz + t for r, t in zip(rows, shift))
    visible = (cam_z > near) & (cam_z < far)
    if camera_model == "pinhole":
        inverse_z = 1.0 / jnp.where(visible, cam_z, 1.0)
        slope_x, slope_y = cam_x * inverse_z, cam_y * inverse_z
        x, y = fx * slope_x + cx, fy * slope_y + cy
        slope_x = _clip_to_frustum(slope_x, fx, cx, width)
        slope_y = _clip_to_frustum(slope_y, fy, cy, height)
        # Rows of (d pixel / d camera) times camera-from-world: world vectors.
        gain_x, gain_y = fx * inverse_z, fy * inverse_z
        toward_x = [gain_x * (a - slope_x * c) for a, c in zip(rows[0], rows[2])]
        toward_y = [gain_y * (b - slope_y * c) for b, c in zip(rows[1], rows[2])]
    else:
        x, y = fx * cam_x + cx, fy * cam_y + cy
        toward_x, toward_y = [fx * a for a in rows[0]], [fy * b for b in rows[1]]
    along_x, along_y = _standard_deviations(scene, toward_x, toward_y)
    cov_xx = sum(a * a for a in along_x)
    cov_xy = sum(a * b for a, b in zip(along_x, along_y))
    cov_yy = sum(b * b for b in along_y)
    var_x, var_y = cov_xx + eps2d, cov_yy + eps2d
    # cov_xx * cov_yy - cov_xy^2 by Lagrange's identity: of a long thin splat, that difference of
    # large products has no digit left in float32, and this sum of squares has all of them.
    pairs = ((0, 1), (0, 2), (1, 2))
    sharp_det = sum((along_x[i] * along_y[j] - along_x[j] * along_y[i]) ** 2 for i, j in pairs)
    det = sharp_det + eps2d * (cov_xx + cov_yy) + eps2d * eps2d
    sharpness = sharp_det / det
    # The square root has no gradient at 0; a splat seen exactly edge-on gets none.
    compensation = jnp.where(sharpness > 0, jnp.sqrt(jnp.where(sharpness > 0, sharpness, 1.0)), 0.0)
    fields = (x, y, var_y / det, -cov_xy / var_y, 1.0 / var_y, cam_z, var_x, var_y, compensation)
    shape = jnp.broadcast_shapes(*(f.shape for f in fields))
    return Splats(*(jnp.broadcast_to(jnp.where(visible, f, 1.0), shape) for f in fields), visible)


def _rows(cam_from_world: Array) -> tuple[list[list[Array]], list[Array]]:
    """The entries of the rotation and the shift, each [..., 1]."""
    m = cam_from_world[..., None]
    return [[m[..., i, j, :] for j in range(3)] for i in range(3)], [
        m[..., i, 3, :] for i in range(3)
    ]


@jax.custom_vjp
def _components(array: Array) -> list[Array]:
    """The entries of the last dimension.

    Its gradient is written column by column. Autodiff would concatenate them, and XLA:CPU fuses all
    arithmetic that leads there into that concatenation, one scalar at a time: 5x slower in all.
    """
    return [part[..., 0] for part in jnp.split(array, array.shape[-1], axis=-1)]


def _components_forward(array: Array) -> tuple[list[Array], None]:
    return _components(array), None


def _components_backward(_: None, cotangents: list[Array]) -> tuple[Array]:
    gradient = jnp.zeros((*cotangents[0].shape, len(cotangents)), cotangents[0].dtype)
    for i, column in enumerate(cotangents):
        gradient = gradient.at[..., i].set(column)
    return (gradient,)


_components.defvjp(_components_forward, _components_backward)


def _unit(quat: list[Array]) -> list[Array]:
    """Unit quaternion; the identity instead of zero, as in `core.rotations.normalize_quats`."""
    square = sum(q * q for q in quat)
    is_zero = square <= 1e-24
    inverse = lax.rsqrt(jnp.where(is_zero, 1.0, square))
    w, *xyz = (q * inverse for q in quat)
    return [jnp.where(is_zero, 1.0, w), *(jnp.where(is_zero, 0.0, q) for q in xyz)]


def _clip_to_frustum(slope: Array, focal: Array, center: Array, size: int) -> Array:
    """Slopes (x / z) kept within the image and a margin; gsplat's rule, gradient included."""
    margin = constants.FRUSTUM_MARGIN * 0.5 * size / focal
    return jnp.clip(slope, -(center / focal + margin), (size - center) / focal + margin)


def _standard_deviations(
    scene: Gaussians, toward_x: list[Array], toward_y: list[Array]
) -> tuple[list[Array], list[Array]]:
    """The three axes of every Gaussian, as 1-sigma vectors, along the two image directions."""
    w, qx, qy, qz = _unit(_components(scene.quats))
    axes = (  # columns of the rotation
        (1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy + w * qz), 2 * (qx * qz - w * qy)),
        (2 * (qx * qy - w * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz + w * qx)),
        (2 * (qx * qz + w * qy), 2 * (qy * qz - w * qx), 1 - 2 * (qx * qx + qy * qy)),
    )
    scales = _components(scene.scales)
    along_x = [s * sum(d * a for d, a in zip(toward_x, axis)) for s, axis in zip(scales, axes)]
    along_y = [s * sum(d * a for d, a in zip(toward_y, axis)) for s, axis in zip(scales, axes)]
    return along_x, along_y
