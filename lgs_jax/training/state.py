"""What a run carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

Array = jax.Array
Params = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that is saved; with the seed it determines the rest of the run.

    Attributes:
      step: steps done, those that the NaN guard skipped included, int32 [].
      params: parameters.
      opt_state: state of the optimizer.
      ema: running average of the parameters; what evaluation and inference use.
      nonfinite_streak: steps skipped in a row up to now, int32 [].
      nonfinite_steps: steps skipped in total, int32 [].
      overflow_steps: steps whose task reported `overflow` > 0, int32 [].
    """

    step: Array
    params: Params
    opt_state: Any
    ema: Params
    nonfinite_streak: Array
    nonfinite_steps: Array
    overflow_steps: Array


def create(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        # A copy: the step donates its input, and one buffer cannot be given away twice.
        ema=jax.tree.map(jnp.copy, params),
        nonfinite_streak=jnp.zeros((), jnp.int32),
        nonfinite_steps=jnp.zeros((), jnp.int32),
        overflow_steps=jnp.zeros((), jnp.int32),
    )


def ema_decay_at(decay: float, step: Array) -> Array:
    """Decay of the average at a step counted from 0: min(decay, (1 + step) / (10 + step)).

    The warm-up lets the average forget the random start: without it, 0.9999 would still hold a
    third of the initial parameters after 10,000 steps.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))


def update_ema(ema: Params, params: Params, decay: Array) -> Params:
    """decay * ema + (1 - decay) * params."""
    return jax.tree.map(lambda a, p: (decay * a + (1 - decay) * p).astype(a.dtype), ema, params)
