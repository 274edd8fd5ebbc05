"""The training step and the evaluation step, as pure functions for `jax.jit`.

Letters: A microbatches, B scenes.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lgs_jax.core import sharding, streams
from lgs_jax.training import optimizer as optimizers
from lgs_jax.training import state as states

Array = jax.Array
Batch = Mapping[str, Any]
Metrics = dict[str, Array]
LossFn = Callable[..., tuple[Array, Metrics]]  # (params, batch, key, *constants)


def train_step(
    state: states.TrainState,
    batch: Batch,
    constants: tuple[Any, ...] = (),
    *,
    loss_fn: LossFn,
    optimizer_settings: optimizers.OptimizerSettings,
    num_steps: int,
    ema_decay: float,
    accumulate_steps: int,
    seed: int,
) -> tuple[states.TrainState, Metrics]:
    """One step: gradient, guard, update, average.

    If the loss or the gradient is not finite, parameters, optimizer and average stay as they are
    and only the counters move. `constants` are further arguments of the loss, which are neither
    trained nor part of the state.

    Returns:
      the next state and scalars to log: `loss`, what the task reports, and `learning_rate`,
      `grad_norm` (before clipping), `update_norm`, `param_norm`, `nonfinite_streak`,
      `nonfinite_steps`, `overflow_steps`.

    Raises:
      ValueError: if the task reports something under one of these names.
    """
    key = streams.stream_key(streams.root_key(seed), "train", state.step)
    loss, metrics, grads = accumulated_gradient(
        lambda *arguments: loss_fn(*arguments, *constants),
        state.params,
        batch,
        key,
        accumulate_steps,
    )
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

    rate = optimizers.learning_rate(optimizer_settings, num_steps, state.step)
    optimizer = optimizers.make(optimizer_settings)
    directions, opt_state = optimizer.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(lambda d: -rate * d, directions)
    params = optax.apply_updates(state.params, updates)
    ema = states.update_ema(state.ema, params, states.ema_decay_at(ema_decay, state.step))
    params, opt_state, ema = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, opt_state, ema),
        (state.params, state.opt_state, state.ema),
    )
    next_state = states.TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        ema=ema,
        nonfinite_streak=jnp.where(finite, 0, state.nonfinite_streak + 1),
        nonfinite_steps=state.nonfinite_steps + ~finite,
        overflow_steps=state.overflow_steps + (metrics.get("overflow", jnp.int32(0)) > 0),
    )
    ours = {
        "loss": loss,
        "learning_rate": rate,
        "grad_norm": grad_norm,
        "update_norm": jnp.where(finite, optax.tree.norm(updates), 0.0),
        "param_norm": optax.tree.norm(params),
        "nonfinite_streak": next_state.nonfinite_streak,
        "nonfinite_steps": next_state.nonfinite_steps,
        "overflow_steps": next_state.overflow_steps,
    }
    if taken := sorted((ours.keys() | {"step", "kind"}) & metrics.keys()):
        raise ValueError(f"the task's metrics {taken} are names that the trainer logs; rename them")
    return next_state, metrics | ours


def accumulated_gradient(
    loss_fn: LossFn, params: Any, batch: Batch, key: Array, accumulate_steps: int
) -> tuple[Array, Metrics, Any]:
    """Loss, metrics and gradient of a batch, computed in A equal microbatches one after another.

    The loss, the gradient and floating metrics are means over the microbatches; integer metrics are
    counts and are added up. Microbatch i gets the key `fold_in(key, i)`.
    """
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate_steps == 1:
        (loss, metrics), grads = value_and_grad(params, batch, jax.random.fold_in(key, 0))
        return loss, metrics, grads

    def microbatch(total: Any, inputs: tuple[Array, Batch]) -> tuple[Any, None]:
        index, part = inputs
        (loss, metrics), grads = value_and_grad(params, part, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, (loss, metrics, grads)), None

    parts = jax.tree.map(functools.partial(_split, parts=accumulate_steps), batch)
    first = jax.tree.map(lambda x: x[0], parts)
    (loss, metrics), grads = jax.eval_shape(value_and_grad, params, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, metrics, grads))
    total, _ = jax.lax.scan(microbatch, zeros, (jnp.arange(accumulate_steps), parts))

    def mean(x: Array) -> Array:
        return x if jnp.issubdtype(x.dtype, jnp.integer) else x / accumulate_steps

    return jax.tree.map(mean, total)


def _split(x: Array, parts: int) -> Array:
    """[B, ...] -> [A, B / A, ...], every A-th scene to one part.

    Striding keeps the scenes of a device on it: its B / D rows are contiguous, so every part holds
    an equal share of them.
    """
    split = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    free = [jax.sharding.PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    spec = jax.sharding.PartitionSpec(None, sharding.BATCH_AXES, *free)
    return jax.lax.with_sharding_constraint(split, spec)
