"""Any scene representation, rendered and moved: functions dispatched on the type of the scene."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lgs_jax.core import gaussians
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering import output
from lgs_jax.rendering.output import Rendering
from lgs_jax.rendering.splat import render as splat_render
from lgs_jax.rendering.volume import image_planes, triplane, voxels
from lgs_jax.rendering.volume import render as volume_render
from lgs_jax.rendering.volume.image_planes import ImagePlanes
from lgs_jax.rendering.volume.triplane import TriPlane
from lgs_jax.rendering.volume.voxels import VoxelGrid

__all__ = ["Rendering", "register_renderer", "render", "transform"]

Array = jax.Array

# How far a placement may be off from a similarity: more than rounded poses, which by
# `data.poses.MAX_ROTATION_ERROR` may be off by 1e-3, and less than is seen.
_SIMILAR = 5e-3


def render(
    scene: Any,
    cameras: Cameras,
    *,
    height: int,
    width: int,
    background: Any = 0.0,
    depth_mode: str | None = "expected",
    near: float = 0.01,
    far: float = 1e10,
    implementation: str | None = None,
    **options: Any,
) -> Rendering:
    """Renders a scene from every camera; differentiable in scene, cameras and background.

    The scene's leading dimensions must be a prefix of the cameras': a scene [B] and cameras [B, V]
    give images [B, V, H, W, C]. Works inside `jit`, `grad`, `vmap` and a jit over sharded arrays.
    Shapes are static. All is computed in the widest type of scene and cameras, at least float32.

    Arrays may be split over mesh axes of type Auto, not Explicit. Derivatives by Gaussians and
    cameras are of reverse mode (no `jvp`, no `jacfwd`). Numbers are taken to be finite: a splat
    with others is left out or spoils the image; gradients by it and the pose may be NaN.

    Args:
      scene: `Gaussians`, a field of `rendering.volume` (`VoxelGrid`, `TriPlane`, `ImagePlanes`), or
        any type given to `register_renderer`.
      cameras: cameras [...] whose intrinsics are in pixels of the H x W image.
      height: rows of the image.
      width: columns of the image.
      background: colour behind the scene: a number, [C], or [..., C] with the cameras' dimensions.
      depth_mode: "expected" divides the accumulated depth by alpha (0 where alpha is 0),
        "accumulated" does not, None leaves depth out, which saves time.
      near: what lies at or nearer than this depth is not drawn; a Python number.
      far: what lies at or beyond this depth is not drawn; a Python number.
      implementation: name of an implementation of the renderer; None takes the best supported one.
      **options: further options of the renderer; for Gaussians see `splat.render.render_gaussians`
        (antialiased, camera_model, eps2d, capacity, tile_size, slots_per_splat, image_axes), for
        fields `volume.render.render_field` (key, image_axes).

    Raises:
      TypeError: if nothing renders this type of scene, an option is unknown to its renderer, or
        `cameras` is something else.
      ValueError: if a field is no array, splats are not of floating-point numbers, shapes do not
        fit, or an option has a value that is not listed.
      NotImplementedError: if the named implementation cannot do what was asked for.
    """
    if not 0 < near < far:
        raise ValueError(f"{near=} and {far=} must satisfy 0 < near < far")
    if depth_mode not in ("expected", "accumulated", None):
        raise ValueError(f"{depth_mode=} must be 'expected', 'accumulated' or None")
    if not isinstance(cameras, Cameras):
        raise TypeError(f"cameras must be lgs_jax.Cameras, got {type(cameras).__name__}")
    cameras.check()
    return _render(
        scene,
        cameras,
        height=output.positive_int("height", height),
        width=output.positive_int("width", width),
        background=background,
        depth_mode=depth_mode,
        near=float(near),
        far=float(far),
        implementation=implementation,
        **options,
    )


def transform(scene: Any, b_from_a: Array) -> Any:
    """Moves a scene given in frame `a` to frame `b`; what is rendered of it stays the same.

    Args:
      scene: `Gaussians`, or a field of `rendering.volume`.
      b_from_a: similarity (rotation, translation, one positive scale) [..., 4, 4], with the scene's
        leading dimensions or none.

    Raises:
      TypeError: if nothing moves this type of scene.
      ValueError: if `b_from_a` is no similarity: it mirrors, stretches, shears, projects, or is not
        finite. What is traced (inside `jit`, `grad`, `vmap`), or lies on devices of other processes
        too, is not looked at; there the result of such a map is undefined.
    """
    traced = isinstance(b_from_a, jax.core.Tracer)
    if not traced and getattr(b_from_a, "is_fully_addressable", True):
        _check_similarity(np.asarray(jax.device_get(b_from_a), np.float64))
    return _transform(scene, b_from_a)


def _check_similarity(b_from_a: np.ndarray) -> None:
    """Raises ValueError unless all maps [..., 4, 4] are similarities."""
    if b_from_a.shape[-2:] != (4, 4):
        raise ValueError(f"b_from_a has shape {b_from_a.shape}, expected [..., 4, 4]")
    for fault in map(_fault, b_from_a.reshape(-1, 4, 4)):
        if fault:
            raise ValueError(
                f"b_from_a {fault}; expected a rotation, one positive scale and a translation"
            )


def _fault(b_from_a: np.ndarray) -> str:
    """Why a map [4, 4] is no similarity; empty if it is one."""
    if not np.isfinite(b_from_a).all():
        return "holds NaN or infinity"
    linear, last_row = b_from_a[:3, :3], b_from_a[3]
    if np.abs(last_row - (0, 0, 0, 1)).max() > _SIMILAR:
        return f"has the last row {last_row.tolist()} instead of 0, 0, 0, 1 (is it transposed?)"
    if (volume := np.linalg.det(linear)) <= 0:
        return f"mirrors or flattens (determinant {volume:.3g}; negate one more axis)"
    off = np.abs(linear.T @ linear / np.cbrt(volume) ** 2 - np.eye(3)).max()
    if off > _SIMILAR:
        return f"stretches or shears (max |L^T L / scale^2 - I| = {off:.2g}; scale all axes alike)"
    return ""


@functools.singledispatch
def _render(scene: Any, cameras: Cameras, **options: Any) -> Rendering:
    raise TypeError(
        f"nothing renders a scene of type {type(scene).__name__}; known: {_known(_render)}. "
        "Give its renderer to lgs_jax.rendering.api.register_renderer"
    )


@functools.singledispatch
def _transform(scene: Any, b_from_a: Array) -> Any:
    raise TypeError(
        f"nothing moves a scene of type {type(scene).__name__}; known: {_known(_transform)}. "
        "Give lgs_jax.rendering.api.register_renderer a function `mover` for it"
    )


def _known(function: Any) -> str:
    return ", ".join(sorted(t.__name__ for t in function.registry if t is not object))


def register_renderer(
    scene_type: type,
    renderer: Callable[..., Rendering],
    mover: Callable[[Any, Array], Any] | None = None,
) -> None:
    """Makes `render` and `transform` know scenes of `scene_type`.

    Args:
      scene_type: the class of the scenes.
      renderer: called as `renderer(scene, cameras, **options)` with the checked keyword arguments
        of `render`, all of them.
      mover: called as `mover(scene, b_from_a)`; None: such scenes cannot be moved.
    """
    _render.register(scene_type)(renderer)
    if mover is not None:
        _transform.register(scene_type)(mover)


register_renderer(Gaussians, splat_render.render_gaussians, gaussians.transform)
for _module, _field in ((voxels, VoxelGrid), (triplane, TriPlane), (image_planes, ImagePlanes)):
    register_renderer(_field, volume_render.render_field, jax.jit(_module.transform))
