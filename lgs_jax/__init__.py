"""lgs_jax: 3D Gaussian scenes, reconstructed and sampled by latent diffusion, in JAX."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lgs_jax.core.cameras import Cameras
    from lgs_jax.core.gaussians import Gaussians
    from lgs_jax.inference.scene_model import SceneModel
    from lgs_jax.rendering.api import Rendering, render

__all__ = ["Cameras", "Gaussians", "Rendering", "load", "render"]
__version__ = "0.1.0"

# Imported when they are first asked for: JAX takes a second, which help and completion do not need.
_PLACES = {
    "Cameras": "lgs_jax.core.cameras",
    "Gaussians": "lgs_jax.core.gaussians",
    "Rendering": "lgs_jax.rendering.api",
    "render": "lgs_jax.rendering.api",
}


def load(path: str | os.PathLike, **options: Any) -> "SceneModel":
    """A trained model as one object; see `inference.scene_model.load`."""
    # Late: with it come the readers of data, Orbax and the tasks.
    from lgs_jax.inference import scene_model

    return scene_model.load(path, **options)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
