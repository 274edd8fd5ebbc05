"""lgs_jax: 3D Gaussian scenes, reconstructed and sampled by latent diffusion, in JAX."""

from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import Rendering, render

__all__ = ["Cameras", "Gaussians", "Rendering", "render"]
__version__ = "0.1.0"
