"""Which scenes are scored, and in which of their views.

Letters: V views of the latents, T others, F frames of a scene.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lgs_jax.data import assemble, mixture, neighbours, pipeline
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Source
from lgs_jax.data.settings import DataSettings

# How the views of a scene are chosen: as the data's settings say, or neighbouring photographs.
CHOICES = ("settings", "neighbours")
# Keys of the data that neighbours must not be refused for.
ANY_GAP = {"gap_min": 1, "gap_max": None}


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Scenes in the views that are scored.

    Attributes:
      source: the scenes.
      data: sizes, frame of reference and choice of views. With `view_draws`, views are those of
        the first draw of training.
      degrees: lowest and highest angle between the first and the last view of the latents, which
        are then neighbours (`neighbours.choose`); None: see `data`.
    """

    source: Source
    data: DataSettings
    degrees: tuple[float, float] | None = None

    def frames(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The frames [V] and [T] of scene `index`, where they are no draw of training."""
        example = self.source[index]
        if self.degrees is None:
            return assemble.choose_frames(self.source, example, self.data, index, rng=None)
        context = neighbours.choose(example.world_from_cam, self.data.context_views, self.degrees)
        return context, between(context, len(example), self.data.target_views)

    def entry(self, index: int) -> dict[str, Any]:
        """Scene `index`, ready to be stacked; see `assemble.scene_entry`."""
        cache = FrameCache(0)
        if self.data.view_draws:
            return pipeline.draw_entry(self.source, self.data, index, 0, cache=cache)
        frames = None if self.degrees is None else self.frames(index)
        return assemble.scene_entry(
            self.source, self.data, index, rng=None, cache=cache, frames=frames
        )

    def batches(self, batch_size: int, num_scenes: int) -> Iterator[pipeline.Batch]:
        """Batches of the first `num_scenes`, as `pipeline.eval_batches` orders and fills them."""
        return pipeline.eval_batches(
            self.source,
            self.data,
            batch_size=batch_size,
            num_scenes=num_scenes,
            make_entry=self.entry,
        )

    def describe_mixture(self, indices: Sequence[int]) -> str:
        """How many of these scenes are of which part of a mixture; "" without one."""
        if not isinstance(self.source, mixture.Mixture):
            return ""
        counts = np.bincount(
            [self.source.part_of(index) for index in indices],
            minlength=len(self.source.part_names),
        )
        parts = (f"{count} of {name}" for count, name in zip(counts, self.source.part_names))
        return f"a mixture, {' and '.join(parts)}"

    def describe_angles(self, degrees_apart: np.ndarray | None) -> str:
        """How far apart the encoded views are, with a warning if the model knows others [K]."""
        angles = []
        for index in range(len(self.source)):
            ends = self.source[index].world_from_cam[self.frames(index)[0][[0, -1]]]
            angles.append(neighbours.angles_deg(ends)[0, 1])
        angle = float(np.median(angles))
        text = f"encoded views {angle:.0f} degrees apart, median of {len(angles)} scenes"
        far = "" if degrees_apart is None else neighbours.too_far(angle, degrees_apart)
        return f"{text}\nwarning: {far}" if far else text


def between(context: np.ndarray, frames: int, count: int) -> np.ndarray:
    """The `count` [T] of F `frames` nearest to half-way between encoded ones [V], ascending.

    Frames beyond the first and the last of these serve where there are not enough between them.
    """
    others = np.setdiff1d(np.arange(frames), context)
    half_way = (context[:-1] + context[1:]) / 2 if len(context) > 1 else context
    distance = np.abs(others[:, None] - half_way).min(axis=-1)
    beyond = (others < context[0]) | (others > context[-1])
    return np.sort(others[np.lexsort((distance, beyond))[:count]])
