"""Maths that runs alike on float64 NumPy arrays and on JAX arrays, traced or not.

Grids and solver coefficients are made once, on the host, in float64; losses need the same formulas
inside a compiled function.
"""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def namespace(*values: Any) -> types.ModuleType:
    """`jax.numpy` if one of the values is a JAX array or a tracer, else `numpy`."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) [...] -> [...]; -softplus(-x) is the logarithm of the logistic function."""
    return namespace(x).logaddexp(0.0, x)


def sigmoid(x: Any) -> Any:
    """The logistic function [...] -> [...], with a small relative error at both ends."""
    return namespace(x).exp(-softplus(-x))


def expand(per_scene: Any, array: Any) -> Any:
    """Appends dimensions of size 1 to values [B...] until they broadcast over an array [B..., ...].

    Raises:
      ValueError: if the values' shape is not the beginning of the array's; NumPy's rules, which
        align shapes at the end, could otherwise pair noise levels with pixels in silence.
    """
    lead, shape = np.shape(per_scene), np.shape(array)
    if lead != shape[: len(lead)]:
        raise ValueError(
            f"values per scene {lead} must match the leading dimensions of the array {shape}; "
            "give one noise level per scene"
        )
    return namespace(per_scene).reshape(per_scene, lead + (1,) * (len(shape) - len(lead)))
