"""The learned parts of heads whose scenes are fields.

Letters: F features, D hidden channels.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.rendering.volume.radiance import RadianceMlp

Array = jax.Array

COLORS = 3  # the first of the F features, logits


class Radiance(nn.Module):
    """Parameters of a network from features to density and RGB, as part of scenes.

    It starts as a fog of one density and the colours that the features say.

    Attributes:
      features: F.
      hidden: D.
      initial_density: in units of 1 / `unit`.
      unit: a length.
    """

    features: int
    hidden: int
    initial_density: float
    unit: float

    @nn.compact
    def __call__(self, lead: Sequence[int]) -> RadianceMlp:
        """The network, the same one for all scenes of leading dimensions `lead`."""
        offset = jnp.zeros(1 + COLORS).at[0].set(_inverse_softplus(self.initial_density))
        initial, zeros = nn.initializers.lecun_normal(), nn.initializers.zeros
        arrays = {
            "kernel_in": self.param("kernel_in", initial, (self.features, self.hidden)),
            "bias_in": self.param("bias_in", zeros, (self.hidden,)),
            "kernel_out": self.param("kernel_out", zeros, (self.hidden, 1 + COLORS)),
            # An offset, so that all parameters of the last layer start at zero.
            "bias_out": self.param("bias_out", zeros, (1 + COLORS,)) + offset,
            "unit": jnp.float32(self.unit),
        }
        return RadianceMlp(**{name: repeated(x, lead) for name, x in arrays.items()})


def repeated(array: Array, lead: Sequence[int]) -> Array:
    """An array [...] as [lead, ...]."""
    return jnp.broadcast_to(array, (*lead, *array.shape))


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
