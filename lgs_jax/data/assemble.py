"""From a scene to one entry of a batch.

V context views, T target views, H W image size.
"""

from typing import Any

import numpy as np

from lgs_jax.data import crops, images, normalize, overlap, views
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Example, Source
from lgs_jax.data.mixture import Mixture
from lgs_jax.data.report import DataError
from lgs_jax.data.settings import DataSettings
from lgs_jax.data.view_index import IndexedSource


def scene_entry(
    source: Source,
    settings: DataSettings,
    index: int,
    *,
    rng: np.random.Generator | None,
    cache: FrameCache,
    frames: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Views of scene `index`, ready to be stacked.

    Args:
      source: the scenes.
      settings: sizes, view selection, frame of reference, augmentation; of a mixture, its parts'
        own are used.
      index: of the scene.
      rng: draws views and augmentation; None: the evaluation's fixed choice, or that of an index,
        not augmented.
      cache: of decoded frames; serves one source and one kind of crop.
      frames: context [V] and target [T] of them; None: see `choose_frames`.

    Returns:
      context {images uint8 [V, H, W, 3], world_from_cam f32 [V, 4, 4], intrinsics f32 [V, 4]},
      target (the same with T), class_label i32, scene_index i32, weight f32, world_from_scene f32
      [4, 4]. Cameras are in the scene frame; of a flipped scene, `world_from_scene` leads to the
      mirrored world (x -> -x).

    Raises:
      DataError: naming the scene, if anything goes wrong with it.
    """
    example = source[index]
    if isinstance(source, Mixture):
        settings = source.settings_of(index)
    try:
        chosen = frames or choose_frames(source, example, settings, index, rng)
        augment = _Augmentation(settings, rng)
        poses = example.world_from_cam
        if augment.flip:
            poses = normalize.mirror(poses)
        unit = normalize.scene_unit(poses[:, :3, 3], chosen[0], settings.scale)
        to_world = normalize.world_from_scene(poses[chosen[0]], settings.reference, unit)
        _prefetch(example, index, np.concatenate(chosen), cache)
        groups = []
        for group in chosen:
            pixels, intrinsics = zip(
                *(_view(example, index, f, settings, augment, cache) for f in group), strict=True
            )
            groups.append(
                {
                    "images": np.stack(pixels),
                    "world_from_cam": normalize.to_scene(poses[group], to_world).astype(np.float32),
                    "intrinsics": np.stack(intrinsics).astype(np.float32),
                }
            )
    except Exception as error:
        raise DataError(f"scene {example.key}: {error}") from error
    return {
        "context": groups[0],
        "target": groups[1],
        "class_label": np.int32(example.class_label),
        "scene_index": np.int32(index),
        "weight": np.float32(1.0),
        "world_from_scene": to_world.astype(np.float32),
    }


def choose_frames(
    source: Source,
    example: Example,
    settings: DataSettings,
    index: int,
    rng: np.random.Generator | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Context [V] and target [T] frames of scene `index`, `example`; see `scene_entry`."""
    if isinstance(source, IndexedSource) and rng is None:
        return source.views_of(index)
    seen = overlap.Overlap(example.world_from_cam, example.intrinsics, example.sizes)
    return views.choose_views(example.centers, settings.plan, rng, seen)


def _prefetch(example: Example, index: int, frames: np.ndarray, cache: FrameCache) -> None:
    """Lets a source that makes several frames cheaper at once make those that are not cached."""
    if hasattr(example.images, "prefetch"):
        example.images.prefetch([int(f) for f in frames if (index, int(f)) not in cache])


# Reduced decoding leaves so many pixels to each pixel of the result; the rest is Lanczos.
_OVERSAMPLING = 2


class _Augmentation:
    """What is drawn once per scene and shared by its views."""

    def __init__(self, settings: DataSettings, rng: np.random.Generator | None):
        self.flip = bool(settings.flip and rng is not None and rng.random() < 0.5)
        self.smallest = 1.0  # side of the smallest box that there may be, in those of this one
        self.random_box = settings.crop == "random" and rng is not None
        if self.random_box:
            self.position = tuple(rng.random(2))
            self.zoom = settings.max_zoom ** rng.random()
            self.smallest = self.zoom / settings.max_zoom
        self.colours = None
        if settings.colour_jitter and rng is not None:
            # The same for all views: a difference would look like a change of light.
            self.colours = tuple(np.exp(settings.colour_jitter * rng.uniform(-1, 1, 3)))

    def box(self, size: tuple[int, int], aspect: float) -> tuple[float, float, float, float]:
        if self.random_box:
            return crops.random_box(size, aspect, self.position, self.zoom)
        return crops.centre_box(size, aspect)

    def recolour(self, image: np.ndarray) -> np.ndarray:
        """The image in the scene's exposure, contrast and saturation."""
        return crops.recolour(image, *self.colours) if self.colours else image


def _view(example, index, frame, settings, augment, cache) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] and intrinsics [4] of one frame."""
    height, width = settings.height, settings.width
    size = tuple(example.sizes[frame].tolist())
    box = augment.box(size, width / height)

    def read() -> np.ndarray:
        """The frame, smaller where the file can be decoded so and twice the pixels are left."""
        frames = example.images
        if not hasattr(frames, "reduced"):
            return np.asarray(frames[frame])
        smallest = (box[3] - box[1]) * augment.smallest
        return frames.reduced(frame, smallest / (_OVERSAMPLING * height))

    def resized(image: np.ndarray) -> np.ndarray:
        n = images.reduction(size, image)
        return crops.crop_resize(image, tuple(edge / n for edge in box), height, width)

    key = (index, int(frame))
    if augment.random_box:
        # Boxes differ from visit to visit, so the whole frame is kept.
        image = resized(cache.get(key, read))
    else:
        image = cache.get(key, lambda: resized(read()))
    image = augment.recolour(image)
    intrinsics = crops.crop_resize_intrinsics(example.intrinsics[frame], box, height, width)
    if augment.flip:
        image = image[:, ::-1]
        intrinsics[2] = width - intrinsics[2]
    return image, intrinsics
