"""What readers and writers of splat files share: axes, placement, checks of what is read.

Scenes keep the axes of the cameras' world, in which y is down and z is ahead (right-down-front).
Formats that name their axes name others; each is half a turn away, so that going there and back
flips signs and loses nothing.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import gaussians
from lgs_jax.core.gaussians import Gaussians

# Right-down-front to right-up-back, and to left-up-front.
ABOUT_X = np.array([1.0, -1.0, -1.0])
ABOUT_Z = np.array([-1.0, -1.0, 1.0])

# Formats that allow flat splats, with a scale of zero along one axis, get at least this.
THINNEST = 1e-12

# By how much a placement may differ from a turn with one scale, relative to that scale.
_SIMILAR = 1e-4

_transform = jax.jit(gaussians.transform)


def half_turn(
    means: np.ndarray, quats: np.ndarray, signs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centres [N, 3] and quaternions wxyz [N, 4] after half a turn, its own inverse.

    The quaternions turn from both sides, so the local axes flip as well. Gaussians do not notice.

    Args:
      means: centres.
      quats: rotations world_from_local.
      signs: of the coordinates [3]: `ABOUT_X` or `ABOUT_Z`.
    """
    return means * signs, quats * np.concatenate([[1.0], signs])


def from_file(
    path: pathlib.Path,
    *,
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
) -> Gaussians:
    """The scene with the fields that a file holds; quaternions are brought to unit length.

    Raises:
      ValueError: naming the file, if it holds no Gaussians or values that none can have.
    """
    if not len(means):
        raise ValueError(f"{path} holds no Gaussians")
    with np.errstate(all="ignore"):  # what float32 cannot hold becomes infinite, or a scale zero
        means, scales, opacities, colors = (
            np.asarray(value, np.float32) for value in (means, scales, opacities, colors)
        )
    faults = {
        "positions or scales that are NaN or infinite": ~(
            np.isfinite(means).all(-1) & np.isfinite(scales).all(-1)
        ),
        "scales that are not positive": (scales <= 0).any(-1),
        "quaternions that are zero": ~quats.any(-1),
        "quaternions that are NaN or infinite": ~np.isfinite(quats).all(-1),
        "opacities that are not in [0, 1]": ~((opacities >= 0) & (opacities <= 1)),
        "colours that are NaN or infinite": ~np.isfinite(colors).all(-1),
    }
    for what, bad in faults.items():
        if bad.any():
            raise ValueError(
                f"{path}: {int(bad.sum())} of {len(means)} Gaussians have {what}, the first is "
                f"number {int(np.argmax(bad))}; the file is damaged or of another format"
            )
    quats = quats.astype(np.float64)
    quats /= np.abs(quats).max(axis=-1, keepdims=True)  # lest squares overflow or vanish
    return Gaussians(
        means=jnp.asarray(means),
        quats=jnp.asarray(quats / np.linalg.norm(quats, axis=-1, keepdims=True), jnp.float32),
        scales=jnp.asarray(scales),
        opacities=jnp.asarray(opacities),
        colors=jnp.asarray(colors),
    )


def placed(path: pathlib.Path, scene: Gaussians, scene_from_file: np.ndarray) -> Gaussians:
    """The scene in the axes of the cameras' world, and where the file places it.

    Args:
      path: of the file.
      scene: in the file's own coordinates.
      scene_from_file: similarity [4, 4]. Half turns and the identity lose nothing.

    Raises:
      ValueError: if it is no rotation with one positive scale and a translation.
    """
    linear = scene_from_file[:3, :3]
    signs = np.diag(linear)
    is_half_turn = (np.abs(signs) == 1).all() and signs.prod() == 1
    if is_half_turn and np.array_equal(scene_from_file, np.diag([*signs, 1.0])):
        means, quats = half_turn(np.asarray(scene.means), np.asarray(scene.quats), signs)
        return dataclasses.replace(
            scene, means=jnp.asarray(means, jnp.float32), quats=jnp.asarray(quats, jnp.float32)
        )
    with np.errstate(all="ignore"):  # of a damaged file; what comes of it is refused
        scale = np.cbrt(np.linalg.det(linear))
        off = np.abs(linear.T @ linear / scale**2 - np.eye(3)).max()
        if scale > 0 and off < _SIMILAR:
            moved = _transform(scene, jnp.asarray(scene_from_file, jnp.float32))
            if jnp.isfinite(moved.means).all() and jnp.isfinite(moved.scales).all():
                return moved
    raise ValueError(
        f"{path}: its splats are placed by {scene_from_file.round(6).tolist()}, expected a rotation"
        ", one positive scale and a translation; apply the placement before saving"
    )
