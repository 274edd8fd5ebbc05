"""A weaker denoiser of the same latents, to guide another away from (`diffusion.guidance`).

It is a pytree, so it goes through `jax.jit` as an argument, as `FrozenAutoencoder` does.
"""

import dataclasses
from typing import Any

import jax

from lgs_jax.models.denoiser import Denoiser


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guide:
    """Parameters (leaves) and the network that they belong to (static).

    Attributes:
      params: of `module`.
      module: the network; trained as the denoiser that it guides, for the same kind of output.
    """

    params: Any
    module: Denoiser = dataclasses.field(metadata={"static": True})
