"""What the trainer asks of a task.

A task binds a model, a loss and an evaluation. It is a collection of functions of parameters and a
batch; it holds settings and networks' definitions, never parameters or random state.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from lgs_jax.metrics.mean import Mean

Array = jax.Array
Batch = Mapping[str, Any]


class Task(Protocol):
    """The functions that a run is made of.

    `loss`, `evaluate` and `visualize` of a task that builds on something trained before take it as
    further arguments: trees of arrays that are neither trained nor saved, such as a frozen network.
    The run is given them (`training.loop.train(constants=...)`) and passes them on, so that they
    are arguments of compiled programs and not constants inside them.
    """

    def init(self, key: Array) -> Any:
        """New parameters; pure, run under `jax.jit` and `jax.eval_shape`."""
        ...

    def loss(
        self, params: Any, batch: Batch, key: Array, *constants: Any
    ) -> tuple[Array, dict[str, Array]]:
        """The loss of a batch and scalars to log; pure, jitted and differentiated by the trainer.

        With accumulated gradients, floating scalars are averaged over the microbatches and integer
        ones (counts) are added. A scalar called `overflow` says how much a capacity bound has cut:
        the trainer reports steps where it is positive.
        """
        ...

    def evaluate(self, params: Any, batch: Batch, key: Array, *constants: Any) -> dict[str, Mean]:
        """Metrics of a batch, weighted by batch["weight"] [B]; pure, jitted by the trainer."""
        ...

    def visualize(self, params: Any, batch: Batch, key: Array, *constants: Any) -> dict[str, Any]:
        """What to look at, by file name without its ending; runs on the host.

        uint8 [H, W, 3] is written as PNG, uint8 [T, H, W, 3] as video, `Gaussians` as .ply.
        """
        ...

    def describe(self, params: Any) -> str:
        """Text printed at the start; `params` may be `ShapeDtypeStruct`s."""
        ...
