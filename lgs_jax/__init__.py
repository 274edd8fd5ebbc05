"""lgs_jax: 3D Gaussian scenes, reconstructed and sampled by latent diffusion, in JAX."""

import os
from typing import Any

from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import Rendering, render

__all__ = ["Cameras", "Gaussians", "Rendering", "load", "render"]
__version__ = "0.1.0"


def load(path: str | os.PathLike, **options: Any) -> Any:
    """A trained model as one object; see `inference.scene_model.load`."""
    # Late: with it come the readers of data, Orbax and the tasks.
    from lgs_jax.inference import scene_model

    return scene_model.load(path, **options)
