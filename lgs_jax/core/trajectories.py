"""Camera paths for videos: through given cameras, around what they look at, around one camera.

A closed path leaves out its last frame, which would repeat the first, so a video of it loops
without a jump. Letters: F given cameras, K frames of the path.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import rotations
from lgs_jax.core.cameras import Cameras

Array = jax.Array

# View axes that spread less than about 2 degrees do not fix a point: its depth would be noise.
_MIN_AXIS_SPREAD = 1e-3
# Half of the least angle that an orbit sways, so that a single camera gives a video that moves.
_MIN_HALF_ANGLE = 0.1


@functools.partial(jax.jit, static_argnames=("num_frames", "loop"))
def interpolate(cameras: Cameras, num_frames: int, loop: bool = False) -> Cameras:
    """A smooth path [num_frames] through cameras [F], with equal time between the given cameras.

    Centres, intrinsics and quaternions follow Catmull-Rom splines, the quaternions in R^4 with
    neighbours brought to the same sign, then normalised; the path is therefore C1 and moves with
    the cameras under a similarity. An open path starts at the first camera, ends at the last one
    and, for `num_frames` = k (F - 1) + 1, visits every camera at a frame. With `loop` it returns to
    the first camera, and visits every camera for `num_frames` = k F.

    Raises:
      ValueError: if `cameras` has not exactly one leading dimension or `num_frames` < 1.
    """
    count = _check(cameras, num_frames)
    segments = count if loop else count - 1
    times = np.linspace(0.0, segments, num_frames, endpoint=not loop)
    index = np.clip(np.floor(times).astype(int), 0, max(segments - 1, 0))
    fraction = jnp.asarray(times - index, cameras.intrinsics.dtype)[:, None]

    quats = rotations.quats_from_matrix(cameras.world_from_cam[:, :3, :3])
    before, start, end, after = _neighbours(quats, index, loop)
    end = _same_sign(end, start)
    if loop or count > 2:
        before, after = _same_sign(before, start), _same_sign(after, end)
    if not loop:  # mirrored neighbours were built from quaternions of unknown sign
        first, last = jnp.asarray(index == 0)[:, None], jnp.asarray(index == count - 2)[:, None]
        before = jnp.where(first, 2 * start - end, before)
        after = jnp.where(last, 2 * end - start, after)
    turns = rotations.matrix_from_quats(_catmull_rom(before, start, end, after, fraction))
    centers = _catmull_rom(*_neighbours(cameras.centers, index, loop), fraction)
    intrinsics = _catmull_rom(*_neighbours(cameras.intrinsics, index, loop), fraction)
    return Cameras(rotations.affine_from_parts(turns, centers), intrinsics)


@functools.partial(jax.jit, static_argnames="num_frames")
def orbit(cameras: Cameras, num_frames: int, focus: Array | None = None) -> Cameras:
    """A closed turntable path [num_frames] around the point that the cameras [F] look at.

    The path looks at `focus` [3], by default `focus_point(cameras)`, from the cameras' mean
    distance to the vertical axis through it, mean height and mean intrinsics. "Vertical" is across
    the images' rows, as far as the cameras' turns tell, else the images' mean up. Cameras that
    leave no gap of half a turn around the axis give a full circle. Otherwise the path sways over
    the arc that they cover (at least 11 degrees) on a flat ellipse, and so stays where the scene
    was seen.

    Raises:
      ValueError: if `cameras` has not exactly one leading dimension or `num_frames` < 1.
    """
    _check(cameras, num_frames)
    focus = focus_point(cameras) if focus is None else jnp.asarray(focus)
    up, ahead, side = axes = _turn_axes(cameras, focus)
    flat, heights = _split(cameras.centers - focus, up)
    radius = jnp.mean(jnp.linalg.norm(flat, axis=-1))
    middle, half = _covered_arc(flat, axes)
    phase = jnp.asarray(np.arange(num_frames) * (2 * math.pi / num_frames), radius.dtype)
    full = half > math.pi / 2
    half = jnp.maximum(half, _MIN_HALF_ANGLE)
    angles = jnp.where(full, middle + phase, middle + half * jnp.sin(phase))
    rise = jnp.where(full, 0.0, 0.25 * half * radius * jnp.cos(phase))
    around = jnp.cos(angles)[:, None] * ahead + jnp.sin(angles)[:, None] * side
    centers = focus + radius * around + (jnp.mean(heights) + rise)[:, None] * up
    poses = cameras_lib.look_at(centers, focus, up)
    return Cameras(poses, jnp.broadcast_to(jnp.mean(cameras.intrinsics, 0), (num_frames, 4)))


def orbit_degrees(cameras: Cameras, focus: Array | None = None) -> float:
    """How far `orbit` goes around: 360 for a full circle, else the angle over which it sways."""
    focus = focus_point(cameras) if focus is None else jnp.asarray(focus)
    axes = _turn_axes(cameras, focus)
    half = float(_covered_arc(_split(cameras.centers - focus, axes[0])[0], axes)[1])
    return 360.0 if half > math.pi / 2 else math.degrees(2 * max(half, _MIN_HALF_ANGLE))


@functools.partial(jax.jit, static_argnames="num_frames")
def wobble(
    camera: Cameras, num_frames: int, radius: float, focus_distance: float | None = None
) -> Cameras:
    """A small closed ellipse [num_frames] around one camera [], in its image plane.

    Args:
      camera: a single camera, at the middle of the ellipse.
      num_frames: number of frames.
      radius: half axis to the sides, in world units; upwards it is half of that.
      focus_distance: z-depth of the point that stays at its place in the image; 10 radii if None.

    Raises:
      ValueError: if `camera` has leading dimensions or `num_frames` < 1.
    """
    if camera.batch_shape != ():
        raise ValueError(f"wobble expects one camera, got {camera.batch_shape}; index it first")
    _check(camera[None], num_frames)
    depth = 10.0 * radius if focus_distance is None else focus_distance
    right, down, forward = (camera.world_from_cam[:3, i] for i in range(3))
    phase = jnp.asarray(np.arange(num_frames) * (2 * math.pi / num_frames), right.dtype)[:, None]
    centers = camera.centers + radius * (jnp.sin(phase) * right - 0.5 * jnp.cos(phase) * down)
    poses = cameras_lib.look_at(centers, camera.centers + depth * forward, -down)
    return Cameras(poses, jnp.broadcast_to(camera.intrinsics, (num_frames, 4)))


@jax.jit
def focus_point(cameras: Cameras) -> Array:
    """The point [3] with the least summed squared distance to the view axes of cameras [F].

    Where that point is undefined (axes within about 2 degrees of parallel) or does not lie in front
    of every camera (walk-throughs, panoramas), the point ahead of the mean centre along the mean
    view at three times the cameras' mean distance from their mean; at 1 for a single camera.
    """
    centers, views = cameras.centers, cameras.world_from_cam[:, :3, 2]
    away = jnp.eye(3) - views[:, :, None] * views[:, None, :]  # projections off the view axes
    normal = jnp.mean(away, axis=0)
    right_side = jnp.mean(jnp.einsum("fij,fj->fi", away, centers), axis=0)
    spread = jnp.linalg.eigvalsh(normal)[0]
    is_fixed = spread > _MIN_AXIS_SPREAD
    meeting = jnp.linalg.solve(jnp.where(is_fixed, normal, jnp.eye(3)), right_side)
    depths = jnp.sum((meeting - centers) * views, axis=-1)

    middle = jnp.mean(centers, axis=0)
    extent = jnp.mean(jnp.linalg.norm(centers - middle, axis=-1))
    ahead = middle + jnp.where(extent > 0, 3 * extent, 1.0) * _mean_direction(views)
    return jnp.where(is_fixed & jnp.all(depths > 0), meeting, ahead)


def _check(cameras: Cameras, num_frames: int) -> int:
    """Returns F, or raises if the arguments do not describe a path."""
    if len(cameras.check().batch_shape) != 1 or len(cameras) == 0:
        raise ValueError(
            f"expected cameras with one non-empty leading dimension, got {cameras.batch_shape}"
        )
    if num_frames < 1:
        raise ValueError(f"{num_frames=} must be at least 1")
    return len(cameras)


def _neighbours(points: Array, index: np.ndarray, loop: bool) -> list[Array]:
    """The four control points [K, D] of each frame's segment; open ends are mirrored."""
    count = points.shape[0]
    if loop:
        return [points[(index + k) % count] for k in (-1, 0, 1, 2)]
    if count == 1:
        return [points[index]] * 4
    first, last = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    padded = jnp.concatenate([first, points, last])
    return [padded[index + k] for k in range(4)]


def _same_sign(quats: Array, reference: Array) -> Array:
    """The one of +q and -q that is closer to the reference [K, 4]."""
    return jnp.where(jnp.sum(quats * reference, axis=-1, keepdims=True) < 0, -quats, quats)


def _catmull_rom(before: Array, start: Array, end: Array, after: Array, t: Array) -> Array:
    """The Catmull-Rom cubic from `start` (t = 0) to `end` (t = 1)."""
    slope_start, slope_end = (end - before) / 2, (after - start) / 2
    rest = end - start
    bend = 3 * rest - 2 * slope_start - slope_end
    return start + t * (slope_start + t * (bend + t * (slope_start + slope_end - 2 * rest)))


def _mean_direction(vectors: Array) -> Array:
    """The mean of vectors [F, 3] at unit length; the first one's direction if they cancel."""
    mean = jnp.mean(vectors, axis=0)
    size = jnp.mean(jnp.linalg.norm(vectors, axis=-1))
    mean = jnp.where(jnp.linalg.norm(mean) > 1e-3 * size, mean, vectors[0])
    return mean / jnp.linalg.norm(mean)


def _vertical(cameras: Cameras) -> Array:
    """The unit vector [3] that is up for cameras [F] held without roll, whatever their pitch.

    The mean of the images' up directions leans over when all cameras look down at something from
    one side. Dividing by (mean of right right^T) damps what it has along the images' rows.
    """
    right, up = cameras.world_from_cam[:, :3, 0], -cameras.world_from_cam[:, :3, 1]
    rows = jnp.mean(right[:, :, None] * right[:, None, :], axis=0)
    leaning = _mean_direction(up)
    upright = jnp.linalg.solve(rows + _MIN_AXIS_SPREAD * jnp.eye(3), leaning)
    return upright / jnp.linalg.norm(upright)


def _split(offsets: Array, up: Array) -> tuple[Array, Array]:
    """The parts of offsets [F, 3] that are level [F, 3], and their heights [F]."""
    heights = offsets @ up
    return offsets - heights[:, None] * up, heights


def _turn_axes(cameras: Cameras, focus: Array) -> tuple[Array, Array, Array]:
    """Up, towards the cameras and to the side: the axes [3] of turning around a point [3]."""
    up = _vertical(cameras)
    ahead = _mean_direction(_split(cameras.centers - focus, up)[0])
    ahead = ahead - (ahead @ up) * up
    ahead = ahead / jnp.linalg.norm(ahead)
    return up, ahead, jnp.cross(up, ahead)


def _covered_arc(flat: Array, axes: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Middle and half width (radians) of the shortest arc that holds all level offsets [F, 3]."""
    _, ahead, side = axes
    angles = jnp.arctan2(flat @ side, flat @ ahead)
    ordered = jnp.sort(angles)
    gaps = jnp.roll(ordered, -1) - ordered
    gaps = gaps.at[-1].add(2 * math.pi)
    widest = jnp.argmax(gaps)
    half = (2 * math.pi - gaps[widest]) / 2
    return ordered[(widest + 1) % angles.shape[0]] + half, half
