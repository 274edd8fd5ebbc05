"""The procedural source: thousands of scenes from a seed, pictures traced when asked for.

Letters: F frames, H, W image size.
"""

import collections
import random
from collections.abc import Sequence

import numpy as np

from lgs_jax.data import example, report
from lgs_jax.data.sources.procedural import layout, pictures
from lgs_jax.data.sources.procedural.scene import Scene

KINDS = ("mixed", "rooms", "objects")


class Frames(Sequence):
    """The F pictures of a scene, traced on access and kept in the cache of their source.

    `frames[i]` is uint8 [H, W, 3]; `frames[[i, j, ...]]` traces all missing ones in one pass,
    which is faster, and returns [K, H, W, 3].
    """

    def __init__(self, source: "ProceduralSource", index: int, scene: Scene):
        self._source, self._index, self._scene = source, index, scene

    def __len__(self) -> int:
        return self._source.num_frames

    def __getitem__(self, frames):
        numbers = np.arange(len(self))[frames]
        pictures_ = self._source.pictures(self._index, np.atleast_1d(numbers), self._scene)
        return pictures_[0] if np.ndim(numbers) == 0 else pictures_


class ProceduralSource:
    """Rooms and objects ray traced from a seed.

    Scene i depends on (seed_offset, i, kind, num_frames) alone, its pictures also on their size,
    so two sources with different offsets share no scene (training and held-out data).

    Attributes:
      report: nothing is ever left out.
      class_names: "room" and the kinds of objects.
    """

    def __init__(
        self,
        num_scenes: int,
        num_frames: int,
        height: int,
        width: int,
        seed_offset: int = 0,
        kind: str = "mixed",
        *,
        supersample: int = 2,
        cache_bytes: int = 256 * 2**20,
    ):
        """Makes the source; nothing is drawn yet.

        Args:
          num_scenes: how many scenes it has.
          num_frames: frames of each, along one path: more frames lie closer together.
          height, width: size of the pictures in pixels.
          seed_offset: names the collection; any integer.
          kind: "rooms", "objects", or "mixed" for about half of each.
          supersample: supersample^2 samples in pixels at edges; 1 leaves them jagged.
          cache_bytes: pictures kept in memory, the least recently used go first; 0 keeps none.
        """
        for name, value in (
            ("num_scenes", num_scenes),
            ("num_frames", num_frames),
            ("height", height),
            ("width", width),
            ("supersample", supersample),
        ):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if kind not in KINDS:
            raise ValueError(f"unknown {kind=}; expected one of {', '.join(KINDS)}")
        self.num_scenes, self.num_frames = num_scenes, num_frames
        self.height, self.width = height, width
        self.seed_offset, self.kind = seed_offset, kind
        self.supersample, self.cache_bytes = supersample, cache_bytes
        self.class_names = layout.CLASS_NAMES
        total = num_scenes * num_frames
        self.report = report.Report(
            f"procedural {kind}", num_scenes, total, scenes_kept=num_scenes, frames_kept=total
        )
        self._cache: collections.OrderedDict = collections.OrderedDict()

    def __len__(self) -> int:
        return self.num_scenes

    def __getstate__(self) -> dict:
        # A worker process starts with an empty cache instead of a copy of this one.
        return {**self.__dict__, "_cache": collections.OrderedDict()}

    def scene(self, index: int) -> Scene:
        """The description of scene `index`."""
        if not 0 <= index < self.num_scenes:
            raise IndexError(f"scene {index} of a source with {self.num_scenes} scenes")
        # Seeding by text hashes it, so neighbouring scenes are unrelated.
        rng = random.Random(f"lgs_jax procedural {self.seed_offset} {index}")
        rooms = rng.random() < 0.5 if self.kind == "mixed" else self.kind == "rooms"
        return (layout.room if rooms else layout.stage)(rng, self.num_frames)

    def __getitem__(self, index: int) -> example.Example:
        index = int(index)
        scene = self.scene(index)
        frames = self.num_frames
        return example.Example(
            key=f"{self.kind}-{self.seed_offset}-{index:06d}",
            images=Frames(self, index, scene),
            world_from_cam=scene.world_from_cam,
            intrinsics=np.tile(scene.intrinsics(self.height, self.width), (frames, 1)),
            sizes=np.tile([self.height, self.width], (frames, 1)),
            timestamps=np.arange(frames, dtype=np.float64),
            frame_names=tuple(f"{frame:03d}" for frame in range(frames)),
            class_label=self.class_names.index(scene.class_name),
            class_name=scene.class_name,
        )

    def pictures(self, index: int, frames: np.ndarray, scene: Scene) -> np.ndarray:
        """Pictures [K, H, W, 3] of the frames [K] of scene `index`, from the cache if there."""
        found = {}
        for frame in map(int, frames):
            picture = self._cache.get((index, frame))
            if picture is not None:
                found[frame] = picture
                self._cache.move_to_end((index, frame))
        missing = sorted({int(frame) for frame in frames} - found.keys())
        if missing:
            traced = pictures.render(scene, missing, self.height, self.width, self.supersample)
            for frame, picture in zip(missing, traced):
                found[frame] = picture
                self._cache[index, frame] = picture.copy()
            room = self.cache_bytes // (self.height * self.width * 3)
            while len(self._cache) > room:
                self._cache.popitem(last=False)
        return np.stack([found[int(frame)] for frame in frames])
