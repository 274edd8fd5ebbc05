"""The procedural source: thousands of scenes from a seed, pictures traced when asked for.

Letters: F frames, H, W image size.
"""

import random
from collections.abc import Iterable, Sequence

import numpy as np

from lgs_jax.data import example, report
from lgs_jax.data.sources.procedural import layout, pictures
from lgs_jax.data.sources.procedural.scene import Scene

KINDS = ("mixed", "rooms", "objects")


class Frames(Sequence):
    """The F pictures of a scene, traced on access and kept as long as this object lives.

    `frames[i]` is uint8 [H, W, 3]; `frames[[i, j, ...]]` traces all missing ones in one pass,
    which is faster, and returns [K, H, W, 3]; so does `frames.prefetch([i, j, ...])` ahead of
    single accesses.
    """

    def __init__(self, scene: Scene, height: int, width: int, supersample: int):
        self._scene, self._size, self._supersample = scene, (height, width), supersample
        self._traced: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._scene.world_from_cam)

    def prefetch(self, frames: Iterable[int]) -> None:
        """Traces those of the frames that have not been traced yet."""
        missing = sorted({int(frame) for frame in frames} - self._traced.keys())
        if missing:
            traced = pictures.render(self._scene, missing, *self._size, self._supersample)
            self._traced.update(zip(missing, traced))

    def __getitem__(self, frames):
        numbers = np.arange(len(self))[frames]
        wanted = np.atleast_1d(numbers).tolist()
        self.prefetch(wanted)
        if np.ndim(numbers) == 0:
            return self._traced[wanted[0]]
        return np.stack([self._traced[frame] for frame in wanted])


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
        max_cached_scenes: int = 4096,
    ):
        """Makes the source; nothing is drawn yet.

        Args:
          num_scenes: how many scenes it has.
          num_frames: frames of each, along one path: more frames lie closer together.
          height, width: size of the pictures in pixels.
          seed_offset: names the collection; any integer.
          kind: "rooms", "objects", or "mixed" for about half of each.
          supersample: supersample^2 samples in pixels at edges; 1 leaves them jagged.
          max_cached_scenes: scene descriptions (about 15 kB each, without pictures) that are kept.
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
        self.supersample, self.max_cached_scenes = supersample, max_cached_scenes
        self.class_names = layout.CLASS_NAMES
        total = num_scenes * num_frames
        self.report = report.Report(
            f"procedural {kind}", num_scenes, total, scenes_kept=num_scenes, frames_kept=total
        )
        self._scenes: dict[int, Scene] = {}

    def __len__(self) -> int:
        return self.num_scenes

    def __getstate__(self) -> dict:
        # A worker process draws its scenes anew instead of receiving a copy of this one.
        return {**self.__dict__, "_scenes": {}}

    def scene(self, index: int) -> Scene:
        """The description of scene `index`."""
        if not 0 <= index < self.num_scenes:
            raise IndexError(f"scene {index} of a source with {self.num_scenes} scenes")
        if index in self._scenes:
            return self._scenes[index]
        # Seeding by text hashes it, so neighbouring scenes are unrelated.
        rng = random.Random(f"lgs_jax procedural {self.seed_offset} {index}")
        rooms = rng.random() < 0.5 if self.kind == "mixed" else self.kind == "rooms"
        scene = (layout.room if rooms else layout.stage)(rng, self.num_frames)
        if len(self._scenes) < self.max_cached_scenes:
            self._scenes[index] = scene
        return scene

    def __getitem__(self, index: int) -> example.Example:
        index = int(index)
        scene = self.scene(index)
        frames = self.num_frames
        return example.Example(
            key=f"{self.kind}-{self.seed_offset}-{index:06d}",
            images=Frames(scene, self.height, self.width, self.supersample),
            world_from_cam=scene.world_from_cam,
            intrinsics=np.tile(scene.intrinsics(self.height, self.width), (frames, 1)),
            sizes=np.tile([self.height, self.width], (frames, 1)),
            timestamps=np.arange(frames, dtype=np.float64),
            frame_names=tuple(f"{frame:03d}" for frame in range(frames)),
            class_label=self.class_names.index(scene.class_name),
            class_name=scene.class_name,
        )
