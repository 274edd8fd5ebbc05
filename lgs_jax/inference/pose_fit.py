"""Which reading of the poses do photographs support, where they have too few points in common?

Small splat models of one scene are fitted to some of its views under each of the likeliest
readings, all at once, and compared at views that were held out: under the right one they render
best.

Letters: H readings, V context views, T held-out views.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core.cameras import Cameras
from lgs_jax.data import crops, normalize, poses
from lgs_jax.data.checks import conventions
from lgs_jax.data.checks.scene import Fault
from lgs_jax.data.example import Example
from lgs_jax.rendering.api import render
from lgs_jax.tasks import splat_fit

_SIZE = 48
_CONTEXT, _TARGET = 4, 3
_STEPS = 60
_LIKELY = ("inverted", "opengl_axes", "opencv_axes", "negated_translation", "mirrored")
_MIN_GAIN_DB = 1.0


def faults(example: Example, convention: conventions.FileConvention) -> list[Fault]:
    """What the comparison tells of the poses of a scene.

    Raises:
      DataError: if an image cannot be read.
    """
    count = _CONTEXT + _TARGET
    if len(example) < count:
        says = f"{len(example)} frames are too few to test the poses ({count} are needed)"
        return [Fault("not_tested", says, "give more frames", "warning")]
    readings = _likely(conventions.readings(example.world_from_cam, convention))
    scores, nearest = held_out_psnr(example, readings)
    winner = int(np.argmax(scores))
    if winner and scores[winner] > max(scores[0] + _MIN_GAIN_DB, nearest):
        says = (
            f"the poses look like {readings[winner].says}: splats fitted so render held-out views "
            f"at {scores[winner]:.1f} dB, as given at {scores[0]:.1f} dB"
        )
        fix = "convert the poses, or choose the reader of the format that they are in"
        return [Fault(readings[winner].kind, says, fix)]
    if scores[0] < nearest:
        says = (
            f"splats fitted to the poses render held-out views at {scores[0]:.1f} dB, worse than "
            f"the nearest photograph ({nearest:.1f} dB), and no usual mistake explains it"
        )
        fix = "look at the picture; the views may be too far apart, or the poses wrong"
        return [Fault("poses_not_confirmed", says, fix, "warning")]
    return []


def _likely(readings: list[conventions.Hypothesis]) -> list[conventions.Hypothesis]:
    """The reading as given and those that have at most one of the likeliest mistakes."""
    chosen = [readings[0]]
    for reading in readings[1:]:
        diagonal = np.allclose(
            np.abs(np.swapaxes(readings[0].rotations, 1, 2) @ reading.rotations), np.eye(3)
        )
        if reading.kind in _LIKELY and (reading.kind != "mirrored" or diagonal):
            chosen.append(reading)
        if reading.kind in ("inverted+opengl_axes", "inverted+opencv_axes"):
            chosen.append(reading)
    return chosen


def held_out_psnr(
    example: Example, readings: list[conventions.Hypothesis]
) -> tuple[list[float], float]:
    """PSNR at held-out views for each reading, and of the nearest context photograph.

    The views are neighbours in the middle of the scene; context and held-out ones alternate.
    """
    count = _CONTEXT + _TARGET
    first = (len(example) - count) // 2
    frames = np.arange(first, first + count)
    pictures, intrinsics = _views(example, frames)
    context, target = np.arange(0, count, 2), np.arange(1, count, 2)
    cameras = [_cameras(reading, frames, intrinsics, context) for reading in readings]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *cameras)
    shown = jnp.asarray(pictures, jnp.float32) / 255
    scores = _fit_and_compare(
        jnp.broadcast_to(shown[context], (len(readings), *shown[context].shape)),
        stacked[:, context],
        shown[target],
        stacked[:, target],
    )
    nearest = _psnr(shown[context[:-1]], shown[target])
    return np.asarray(scores).tolist(), float(nearest)


@jax.jit
def _fit_and_compare(context, context_cameras, target, target_cameras):
    scenes = splat_fit.fit(context, context_cameras, num_steps=_STEPS, key=jax.random.key(0))
    draw = functools.partial(render, height=_SIZE, width=_SIZE, depth_mode=None)
    return jax.vmap(_psnr, in_axes=(0, None))(draw(scenes, target_cameras).rgb, target)


def _psnr(ours: jax.Array, theirs: jax.Array) -> jax.Array:
    """Mean over the views [T, H, W, 3]."""
    error = jnp.mean(jnp.square(jnp.clip(ours, 0, 1) - theirs), axis=(-3, -2, -1))
    return jnp.mean(-10 * jnp.log10(error + 1e-10))


def _views(example: Example, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Square pictures [V + T, H, H, 3] and their intrinsics."""
    pictures, intrinsics = [], []
    for frame in frames:
        image = np.asarray(example.images[int(frame)])
        box = crops.centre_box(image.shape[:2], 1.0)
        pictures.append(crops.crop_resize(image, box, _SIZE, _SIZE))
        k = example.intrinsics[frame]
        intrinsics.append(crops.crop_resize_intrinsics(k, box, _SIZE, _SIZE))
    return np.stack(pictures), np.stack(intrinsics)


def _cameras(
    reading: conventions.Hypothesis, frames: np.ndarray, intrinsics: np.ndarray, context: np.ndarray
) -> Cameras:
    """Cameras of a reading in the scene frame; the world of a mirroring one is mirrored back."""
    turns, centers = reading.rotations[frames], reading.centers[frames]
    flip = np.diag([np.sign(np.linalg.det(turns[0])), 1.0, 1.0])
    world_from_cam = np.stack(
        [
            poses.from_parts(flip @ turn, flip @ center)
            for turn, center in zip(turns, centers, strict=True)
        ]
    )
    unit = normalize.scene_unit(world_from_cam[:, :3, 3], context, "cameras")
    to_world = normalize.world_from_scene(world_from_cam[context], "first", unit)
    scene = normalize.to_scene(world_from_cam, to_world)
    return Cameras(jnp.asarray(scene, jnp.float32), jnp.asarray(intrinsics, jnp.float32))
