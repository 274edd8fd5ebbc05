"""One scene as the sources serve it, and the interface of a source.

F frames of a scene. Axes are OpenCV's, pixel centres at +0.5, images uint8.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lgs_jax.data.report import Report


@dataclasses.dataclass(frozen=True)
class Example:
    """Everything that a source knows of one scene.

    Attributes:
      key: unique inside its source.
      images: F frames; `images[i]` is uint8 [H_i, W_i, 3]. Sources decode on access; an array
        [F, H, W, 3] qualifies. Where several frames are cheaper at once, `images.prefetch(frames)`
        may exist and makes them.
      world_from_cam: camera-to-world maps [F, 4, 4], float64.
      intrinsics: fx, fy, cx, cy in pixels of the frames [F, 4], float64.
      sizes: height and width of each frame [F, 2].
      timestamps: seconds [F], or the frame's number where there is no clock.
      frame_names: F names.
      class_label: number of the class, -1 if there is none.
      class_name: its name, empty if there is none.
    """

    key: str
    images: Sequence[np.ndarray]
    world_from_cam: np.ndarray
    intrinsics: np.ndarray
    sizes: np.ndarray
    timestamps: np.ndarray
    frame_names: tuple[str, ...]
    class_label: int = -1
    class_name: str = ""

    def __len__(self) -> int:
        return len(self.frame_names)

    @property
    def centers(self) -> np.ndarray:
        """Camera centres in the world [F, 3]."""
        return self.world_from_cam[:, :3, 3]

    def check(self) -> "Example":
        """Returns itself if the shapes fit.

        Raises:
          ValueError: naming the first attribute whose shape is wrong.
        """
        frames = len(self)
        expected = {
            "world_from_cam": (frames, 4, 4),
            "intrinsics": (frames, 4),
            "sizes": (frames, 2),
            "timestamps": (frames,),
        }
        for name, shape in expected.items():
            found = np.shape(getattr(self, name))
            if found != shape:
                raise ValueError(
                    f"scene {self.key}: {name} has shape {found}, expected {shape} for the "
                    f"{frames} frames that frame_names lists"
                )
        if len(self.images) != frames:
            raise ValueError(f"scene {self.key}: {len(self.images)} images for {frames} frames")
        return self


class Source(Protocol):
    """A random-access collection of scenes; it must survive pickling (worker processes)."""

    report: Report
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...
