"""What a renderer returns, and what all of them ask of the scene, whatever represents it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rendering:
    """Images of a scene; the leading dimensions [...] are those of the cameras.

    Attributes:
      rgb: colour over the background, any number of channels [..., H, W, C].
      alpha: accumulated opacity, 1 - transmittance [..., H, W, 1].
      depth: distance along the optical axis [..., H, W, 1], or None where it was not asked for.
      aux: what the renderer reports about its work, by name; int32 counts [...].
    """

    rgb: Array
    alpha: Array
    depth: Array | None
    aux: dict[str, Array]


def check_prefix(own: tuple[int, ...], lead: tuple[int, ...]) -> None:
    """Raises ValueError unless a scene's leading dimensions begin those of the cameras."""
    if lead[: len(own)] != own:
        raise ValueError(
            f"the scene's leading dimensions {own} must be a prefix of the cameras' {lead}"
        )


def backdrop(background: Any, lead: tuple[int, ...], colors: Array) -> Array:
    """The background as [..., C] behind colours of C channels; `lead` is that of the cameras.

    Raises:
      ValueError: if it is neither a number nor [C] nor [..., C].
    """
    background, channels = jnp.asarray(background, colors.dtype), colors.shape[-1]
    allowed = ((), (channels,), (*lead, channels))
    if background.shape not in allowed:
        raise ValueError(
            f"background has shape {background.shape}, expected a number or one of {allowed[1:]}"
        )
    return jnp.broadcast_to(background, (*lead, channels))
