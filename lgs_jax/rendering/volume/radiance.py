"""A small network from features to density and colour, whose parameters are part of a scene.

Letters: F features, D hidden channels, C colour channels.
"""

import dataclasses

import jax
import jax.numpy as jnp

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RadianceMlp:
    """One hidden layer; the first C features are logits of the colour, to which it adds.

    Attributes:
      kernel_in: [..., F, D].
      bias_in: [..., D].
      kernel_out: [..., D, 1 + C].
      bias_out: [..., 1 + C].
      unit: length in which densities are counted [...].
    """

    kernel_in: Array
    bias_in: Array
    kernel_out: Array
    bias_out: Array
    unit: Array

    @property
    def num_channels(self) -> int:
        """C."""
        return self.bias_out.shape[-1] - 1

    def check(self, lead: tuple[int, ...], features: int) -> "RadianceMlp":
        """Returns itself if it fits a scene with leading dimensions `lead` and F `features`.

        Raises:
          ValueError: if a shape is wrong.
        """
        hidden, outputs = jnp.shape(self.bias_in)[-1:], jnp.shape(self.bias_out)[-1:]
        expected = {
            "kernel_in": (*lead, features, *hidden),
            "bias_in": (*lead, *hidden),
            "kernel_out": (*lead, *hidden, *outputs),
            "bias_out": (*lead, *outputs),
            "unit": lead,
        }
        for name, shape in expected.items():
            if (got := jnp.shape(getattr(self, name))) != shape:
                raise ValueError(f"RadianceMlp.{name} has shape {got}, expected {shape}")
        if self.num_channels > features:
            raise ValueError(
                f"RadianceMlp gives {self.num_channels} colour channels, but has {features} "
                "features, of which the first are logits of the colour"
            )
        return self

    def __call__(self, features: Array) -> tuple[Array, Array]:
        """Density per unit of length [N] and colours [N, C] in (0, 1) of features [N, F]."""
        hidden = jax.nn.silu(features @ self.kernel_in + self.bias_in)
        output = hidden @ self.kernel_out + self.bias_out
        density = jax.nn.softplus(output[..., 0]) / self.unit
        return density, jax.nn.sigmoid(output[..., 1:] + features[..., : self.num_channels])

    def scaled(self, scale: Array) -> "RadianceMlp":
        """The same network in a world that is larger by `scale` [...]."""
        return dataclasses.replace(self, unit=self.unit * scale)
