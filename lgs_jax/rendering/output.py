"""What a renderer returns, whatever represents the scene."""

import dataclasses

import jax

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
