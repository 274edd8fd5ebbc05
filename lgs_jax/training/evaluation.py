"""Evaluation of the averaged parameters, and pictures of the first batch."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from lgs_jax.core import streams
from lgs_jax.training import mesh as meshes

Batch = Mapping[str, Any]


class Evaluator:
    """Runs `task.evaluate` over all batches and merges its means exactly.

    Args:
      task: a `tasks.task.Task`.
      mesh: the devices.
      seed: of the run; every evaluation draws the same noise, so that two can be compared.
      batches: the batches of one evaluation, this process's share of each; every process has
        equally many.
      write: writes what `task.visualize` returns into a folder.
      constants: further arguments of the task's functions, on the devices.
    """

    def __init__(
        self,
        task: Any,
        mesh: Mesh,
        *,
        seed: int,
        batches: Callable[[], Iterator[Batch]],
        write: Callable[[pathlib.Path, Mapping[str, Any]], list[pathlib.Path]],
        constants: tuple[Any, ...] = (),
    ):
        self._task = task
        self._mesh = mesh
        self._seed = seed
        self._batches = batches
        self._write = write
        self._constants = constants
        self._evaluate = jax.jit(task.evaluate, out_shardings=meshes.replicated(mesh))
        self._merge = jax.jit(
            lambda a, b: {name: a[name].merge(b[name]) for name in a},
            out_shardings=meshes.replicated(mesh),
        )

    def __call__(
        self, params: Any, visuals: pathlib.Path | None, interrupted: Callable[[], bool]
    ) -> dict[str, float] | None:
        """The metrics, or None if `interrupted` said so between two batches.

        Args:
          params: what to evaluate.
          visuals: folder for pictures of the first batch; None: no pictures.
          interrupted: asked before every batch, by all processes alike.

        Raises:
          ValueError: if there are no batches.
        """
        root = streams.root_key(self._seed)
        merged, first = None, None
        for index, batch in enumerate(self._batches()):
            if interrupted():
                return None
            first = batch if first is None else first
            key = streams.stream_key(root, "eval", index)
            placed = meshes.put_local_batch(self._mesh, batch)
            means = self._evaluate(params, placed, key, *self._constants)
            merged = means if merged is None else self._merge(merged, means)
        if merged is None:
            raise ValueError("the evaluation set is empty; config.data names no scene for it")
        if visuals is not None:
            self._show(params, first, visuals)
        return {name: float(mean.compute()) for name, mean in merged.items()}

    def _show(self, params: Any, batch: Batch, visuals: pathlib.Path) -> None:
        """Writes pictures of a batch, which the first process draws without the others."""
        batch, constants, mesh = _whole(batch), self._constants, self._mesh
        if jax.process_count() > 1:
            gather = jax.jit(lambda arrays: arrays, out_shardings=meshes.replicated(mesh))
            params, constants = jax.device_get(gather((params, constants)))
            mesh = meshes.of_one_device(mesh)
        if jax.process_index() == 0:
            with jax.set_mesh(mesh):
                key = streams.stream_key(streams.root_key(self._seed), "visualize")
                self._write(visuals, self._task.visualize(params, batch, key, *constants))


def _whole(batch: Batch) -> Batch:
    """A batch of which every process has its share, in full on all of them."""
    if jax.process_count() == 1:
        return batch
    return multihost_utils.process_allgather(batch, tiled=True)
