"""Batches of scenes.

A training batch is a pure function of (seed, step): neither workers, threads nor hosts change it,
and a run resumes by starting at a later step. B scenes in a global batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from lgs_jax.data import mixture
from lgs_jax.data.assemble import scene_entry
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Source
from lgs_jax.data.latents import EncodedLatents
from lgs_jax.data.opening import make_source
from lgs_jax.data.settings import DataSettings

__all__ = ["DataSettings", "eval_batches", "make_source", "train_batches"]

Batch = dict[str, Any]

# More steps than any run has; Grain wants a finite length.
_MAX_STEPS = 2**40

# Numbers that keep the streams of one seed apart.
_ORDER, _VIEWS, _DRAWS = 0, 1, 2  # `mixture` has 3


def train_batches(
    source: Source,
    settings: DataSettings,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    host_index: int = 0,
    host_count: int = 1,
    latents: EncodedLatents | None = None,
) -> Iterator[Batch]:
    """Endless training batches from `start_step` on.

    Every scene is visited once per epoch, in an order that changes from epoch to epoch; the sources
    of a mixture have epochs of their own (`mixture.Order`). Grain wants absl's flags to be parsed:
    outside of `app.run`, call `absl.flags.FLAGS.mark_as_parsed()` first.

    Args:
      source: the scenes.
      settings: see `DataSettings`.
      seed: of order, views and augmentation.
      batch_size: scenes in the global batch.
      start_step: the number of batches to pass over.
      host_index, host_count: host h of n gets the h-th of n equal slices of every batch.
      latents: of these scenes and settings; no image is read then.

    Returns:
      An iterator of dicts as `assemble.scene_entry` makes them (and `draw` i32 with `view_draws`),
      or as `EncodedLatents.entry` does, stacked along a first axis of batch_size / host_count. It
      has `close()`, which ends its workers.

    Raises:
      DataError: while iterating, naming the scene and file that could not be read.
    """
    local_size = _local_size(batch_size, host_index, host_count)
    if seed < 0 or start_step < 0:
        raise ValueError(f"{seed=} and {start_step=} must not be negative")
    serve = _Scenes(source, settings) if latents is None else latents.entry
    slice_of_batch = (batch_size, local_size * host_index, local_size)
    entries = _TrainEntries(serve, mixture.Order(source, seed), settings, seed, *slice_of_batch)
    dataset = grain.MapDataset.range(_MAX_STEPS * local_size).map(entries)
    dataset = dataset.batch(local_size)[start_step:]
    iterable = dataset.to_iter_dataset(
        grain.ReadOptions(
            num_threads=settings.num_threads, prefetch_buffer_size=settings.num_threads
        )
    )
    return iter(
        iterable.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=settings.num_workers, per_worker_buffer_size=2)
        )
    )


def eval_batches(
    source: Source,
    settings: DataSettings,
    *,
    batch_size: int,
    num_scenes: int,
    host_index: int = 0,
    host_count: int = 1,
    make_entry: Callable[[int], dict[str, Any]] | None = None,
) -> Iterator[Batch]:
    """Fixed batches of the first `num_scenes` scenes in a fixed mixed order, each scene once.

    If there are fewer scenes, all of them serve. The last batch is filled up with entries of
    weight 0. `make_entry` makes the entry of a scene, by its index, in place of `scene_entry` with
    the evaluation's choice of views.
    """
    local_size = _local_size(batch_size, host_index, host_count)
    order = np.random.default_rng([_ORDER]).permutation(len(source))[:num_scenes]
    if make_entry is None:
        make_entry = functools.partial(scene_entry, source, settings, rng=None, cache=FrameCache(0))
    for start in range(0, len(order), batch_size):
        first = start + host_index * local_size
        entries = []
        for position in range(first, first + local_size):
            index = int(order[min(position, len(order) - 1)])
            entry = make_entry(index)
            if position >= len(order):
                entry["weight"] = np.float32(0.0)
            entries.append(entry)
        yield stack(entries)


class _TrainEntries:
    """Entry i of a host's stream of entries, i = step * local_size + place in its slice."""

    def __init__(
        self,
        serve: Callable[..., Batch],
        order: mixture.Order,
        settings: DataSettings,
        seed: int,
        batch_size: int,
        offset: int,
        local_size: int,
    ):
        self._serve = serve
        self._order = order
        self._draws = settings.view_draws
        self._seed = seed
        self._batch_size = batch_size
        self._offset = offset
        self._local_size = local_size

    def __call__(self, i: int) -> Batch:
        step, place = divmod(i, self._local_size)
        number = step * self._batch_size + self._offset + place
        index, epoch = self._order(number)
        if self._draws is not None:
            return self._serve(index, epoch % self._draws)
        return self._serve(index, rng=np.random.default_rng([_VIEWS, self._seed, number]))


class _Scenes:
    """Entries made of a source's images."""

    def __init__(self, source: Source, settings: DataSettings):
        self._source = source
        self._settings = settings
        self._cache = FrameCache(settings.cache_mb * 2**20 // max(1, settings.num_workers))

    def __call__(
        self, index: int, draw: int | None = None, *, rng: np.random.Generator | None = None
    ) -> Batch:
        """Scene `index` with views by `rng`, or of one of its draws."""
        if draw is None:
            return scene_entry(self._source, self._settings, index, rng=rng, cache=self._cache)
        return draw_entry(self._source, self._settings, index, draw, cache=self._cache)


def draw_entry(
    source: Source, settings: DataSettings, index: int, draw: int, *, cache: FrameCache
) -> Batch:
    """Draw number `draw` of scene `index`; a function of both alone. See `assemble.scene_entry`."""
    rng = np.random.default_rng([_DRAWS, index, draw])
    entry = scene_entry(source, settings, index, rng=rng, cache=cache)
    return entry | {"draw": np.int32(draw)}


def scenes_with_all_draws(
    source: Source, settings: DataSettings, scenes: Sequence[int]
) -> Iterator[list[Batch]]:
    """The K draws of each of some scenes, in order, prepared ahead of time.

    The iterator has `close()`, which ends its workers.
    """
    dataset = grain.MapDataset.source(list(scenes)).map(_AllDraws(source, settings))
    iterable = dataset.to_iter_dataset(
        grain.ReadOptions(
            num_threads=settings.num_threads, prefetch_buffer_size=settings.num_threads
        )
    )
    return iter(
        iterable.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=settings.num_workers, per_worker_buffer_size=2)
        )
    )


@dataclasses.dataclass(frozen=True)
class _AllDraws:
    source: Source
    settings: DataSettings

    def __call__(self, index: int) -> list[Batch]:
        cache = FrameCache(self.settings.cache_mb * 2**20)  # a frame serves several draws
        return [
            draw_entry(self.source, self.settings, index, draw, cache=cache)
            for draw in range(self.settings.view_draws)
        ]


def _local_size(batch_size: int, host_index: int, host_count: int) -> int:
    if batch_size < 1 or batch_size % host_count or not 0 <= host_index < host_count:
        raise ValueError(
            f"{batch_size=} must be a positive multiple of {host_count=}, and {host_index=} below "
            "it; change the batch size"
        )
    return batch_size // host_count


def stack(entries: list[Batch]) -> Batch:
    """One batch of entries, along a new first axis."""
    first = entries[0]
    return {
        name: stack([entry[name] for entry in entries])
        if isinstance(first[name], dict)
        else np.stack([entry[name] for entry in entries])
        for name in first
    }
