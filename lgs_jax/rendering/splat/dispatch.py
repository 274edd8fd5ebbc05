"""Which implementation composites the splats.

Every implementation is a function with the signature of `reference.composite`. It raises
NotImplementedError for what it cannot do; that is the only signal for "try the next".
"""

from collections.abc import Callable
from typing import Any

from lgs_jax.rendering.splat import pallas_gpu, pallas_tpu, reference, xla

# Best first. The kernels have not run on a GPU or TPU yet, so they are only taken by name.
IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "xla": xla.composite,
    "reference": reference.composite,
    "pallas_gpu": pallas_gpu.composite,
    "pallas_tpu": pallas_tpu.composite,
}


def composite(implementation: str | None, *args: Any, **options: Any) -> Any:
    """Calls the named implementation, or the first one that supports the request.

    Raises:
      ValueError: if no implementation has this name.
      NotImplementedError: if the named one, or every one, declines.
    """
    if implementation is not None:
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(f"{implementation=} must be None or one of {list(IMPLEMENTATIONS)}")
        return IMPLEMENTATIONS[implementation](*args, **options)
    reasons = []
    for name, function in IMPLEMENTATIONS.items():
        try:
            return function(*args, **options)
        except NotImplementedError as reason:
            reasons.append(f"{name}: {reason}")
    raise NotImplementedError("no implementation supports this request. " + "; ".join(reasons))
