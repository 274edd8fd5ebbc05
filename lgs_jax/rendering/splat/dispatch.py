"""Which implementation composites the splats.

Every implementation is a function with the signature of `reference.composite`. It raises
NotImplementedError for what it cannot do; that is the only signal for "try the next".
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import logging

from lgs_jax.rendering.splat import pallas_gpu, pallas_tpu, reference, tiled, xla

IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "xla": xla.composite,
    "pallas_gpu": pallas_gpu.composite,
    "pallas_tpu": pallas_tpu.composite,
    "reference": reference.composite,
}

# How those that have tiles cut the work.
PLANS: dict[str, Callable[..., tiled.Plan]] = {
    "xla": xla.make_plan,
    "pallas_gpu": pallas_gpu.make_plan,
    "pallas_tpu": pallas_tpu.make_plan,
}

# Best first, by platform. The kernels have not run on a device yet, so they come in by name only.
PREFERRED: dict[str, Sequence[str]] = {
    "cpu": ("xla", "reference"),
    "gpu": ("xla", "reference"),
    "tpu": ("xla", "reference"),
}

# Names the implementation where the caller does not, for a whole program.
ENVIRONMENT = "LGS_JAX_RASTERIZER"

# What `choices` returns.
_choices: list[str] = []


def candidates(implementation: str | None) -> Sequence[str]:
    """Names of those that may draw, best first.

    The one that the argument names, else the environment variable LGS_JAX_RASTERIZER, alone; where
    neither does, the platform's.

    Raises:
      ValueError: if no implementation has this name.
    """
    name = implementation or os.environ.get(ENVIRONMENT)
    if not name:
        return PREFERRED.get(jax.default_backend(), PREFERRED["cpu"])
    if name not in IMPLEMENTATIONS:
        where = "implementation" if implementation else ENVIRONMENT
        raise ValueError(f"{where}={name!r} must be one of {list(IMPLEMENTATIONS)}, or left out")
    return (name,)


def composite(implementation: str | None, *args: Any, **options: Any) -> Any:
    """Calls the first of the `candidates` that supports the request; one that is named, exactly.

    Raises:
      ValueError: if no implementation has this name.
      NotImplementedError: if the named one, or every one, declines.
    """
    names = candidates(implementation)
    if implementation or os.environ.get(ENVIRONMENT):
        result = IMPLEMENTATIONS[names[0]](*args, **options)
        _note(names[0], "as the caller says" if implementation else f"as {ENVIRONMENT} says")
        return result
    reasons: list[str] = []
    for name in names:
        try:
            result = IMPLEMENTATIONS[name](*args, **options)
        except NotImplementedError as reason:
            reasons.append(f"{name}: {reason}")
        else:
            _note(name, "; ".join(reasons))
            return result
    raise NotImplementedError("no implementation supports this request. " + "; ".join(reasons))


def choices() -> tuple[str, ...]:
    """Which implementations have drawn splats in this program so far, a sentence for each choice.

    Compiled programs that are called again choose nothing.
    """
    return tuple(_choices)


def _note(name: str, why: str) -> None:
    """Keeps and logs a choice the first time that it is made."""
    because = f" ({why})" if why else ""
    text = f"splats are drawn by the implementation {name!r} on {jax.default_backend()}{because}"
    if text not in _choices:
        _choices.append(text)
        logging.info("%s", text)
