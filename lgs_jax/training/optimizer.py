"""AdamW with warm-up, cosine decay and clipping by the global norm.

The learning rate is a function of the training step and is applied outside of the transformation,
so a step that the NaN guard skips does not shift the schedule.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from lgs_jax.settings import require

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (Loshchilov and Hutter 2019) and its learning rate.

    Attributes:
      learning_rate: the largest learning rate, reached at the end of the warm-up.
      warmup_steps: steps over which the rate rises linearly, from learning_rate / warmup_steps.
      schedule: after the warm-up, `cosine` decay until the last step, or `constant`.
      final_fraction: the rate at the end of the cosine as a fraction of `learning_rate`.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: decoupled decay per unit of learning rate, on parameters named `kernel` only.
      clip_norm: the largest global norm of the gradient; 0: no clipping.
    """

    learning_rate: float = 1e-4
    warmup_steps: int = 100
    schedule: Literal["cosine", "constant"] = "cosine"
    final_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self):
        not_negative = ("warmup_steps", "weight_decay", "clip_norm")
        require(self, ("learning_rate", "eps"), lambda x: x > 0, "must be positive")
        require(self, not_negative, lambda x: x >= 0, "must not be negative")
        require(self, ("b1", "b2"), lambda x: 0 <= x < 1, "must be at least 0 and below 1")
        require(self, ("final_fraction",), lambda x: 0 <= x <= 1, "must be between 0 and 1")


def make(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Gradient -> direction; the update is minus the learning rate times the direction."""
    clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
    return optax.chain(
        clip,
        optax.scale_by_adam(settings.b1, settings.b2, settings.eps),
        optax.add_decayed_weights(settings.weight_decay, mask=decay_mask),
    )


def decay_mask(params: Any) -> Any:
    """True for parameters that weight decay applies to: those named `kernel`.

    Biases, norm scales and embeddings are left alone: shrinking them does not regularise.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool(path) and getattr(path[-1], "key", None) == "kernel", params
    )


def learning_rate(settings: OptimizerSettings, num_steps: int, step: Array) -> Array:
    """The learning rate of a step, counted from 0, float32 []."""
    step = jnp.asarray(step, jnp.float32)
    warmup = jnp.minimum(1.0, (step + 1) / max(settings.warmup_steps, 1))
    decay = 1.0
    if settings.schedule == "cosine":
        span = max(num_steps - settings.warmup_steps, 1)
        progress = jnp.clip((step - settings.warmup_steps) / span, 0.0, 1.0)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
        decay = settings.final_fraction + (1 - settings.final_fraction) * cosine
    return jnp.asarray(settings.learning_rate * warmup * decay, jnp.float32)
