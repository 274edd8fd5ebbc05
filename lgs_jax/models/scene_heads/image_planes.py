"""The head of image-based planes: the decoder's maps themselves, with their cameras.

Letters: B scenes, V views, H, W image height and width, F features per pixel.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models.scene_heads import radiance, ranges
from lgs_jax.rendering.volume import image_planes
from lgs_jax.rendering.volume.integrate import SPACINGS, Samples
from lgs_jax.rendering.volume.radiance import RadianceMlp

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class ImagePlanesHead:
    """Turns maps into image-based planes; a small network that all scenes share is learned.

    With all channels at zero, what any view sees is a grey fog, where training starts. Its calls
    must be made in a Linen scope, where the parameters are.

    Attributes:
      near: smallest z-depth, in units of the scene, > 0.
      far: largest z-depth.
      initial_depth: a typical depth, the unit of length; None takes the middle disparity.
      initial_density: of the fog, absorption per `initial_depth`.
      samples: looked at along each ray.
      spacing: the quantity in which they are evenly spaced from near to far, "disparity" (1 /
        depth) or "depth".
      features: channels per pixel beside the colours.
      hidden: channels of the network's hidden layer.
    """

    near: float = 0.5
    far: float = 100.0
    initial_depth: float | None = None
    initial_density: float = 0.5
    samples: int = 64
    spacing: str = "disparity"
    features: int = 16
    hidden: int = 32

    # Not a field: where the colours are among the channels.
    color_channels = slice(0, radiance.COLORS)

    def __post_init__(self) -> None:
        ranges.check_depths(self.near, self.far, self.initial_depth)
        ranges.check_positive(
            initial_density=self.initial_density,
            samples=self.samples,
            features=self.features,
            hidden=self.hidden,
        )
        if self.spacing not in SPACINGS:
            raise ValueError(f"spacing={self.spacing!r} must be one of {SPACINGS}")

    @property
    def channels(self) -> int:
        """F, what the decoder must deliver per pixel."""
        return radiance.COLORS + self.features

    @property
    def unit(self) -> float:
        """The unit of length."""
        if self.initial_depth is None:
            return 2.0 / (1.0 / self.near + 1.0 / self.far)
        return self.initial_depth

    def __call__(
        self, maps: Array, cameras: cameras_lib.Cameras, view_mask: Array | None = None
    ) -> image_planes.ImagePlanes:
        """Image-based planes [B].

        Args:
          maps: [B, V, H, W, F], of any float type; the computation is float32.
          cameras: of the views [B, V], for H x W images; the scene comes out in their world.
          view_mask: [B, V] bool; views left out count for nothing.
        """
        lead = maps.shape[:1]
        if view_mask is None:
            view_mask = jnp.ones(maps.shape[:2], bool)
        return image_planes.ImagePlanes(
            maps=maps.astype(jnp.float32),
            view_weights=view_mask.astype(jnp.float32),
            cameras=cameras,
            depth_kernel=_DepthKernel(self.features, name="scene_head_depth")(lead),
            mlp=self.network(lead),
            samples=self.ray_samples(lead),
        )

    def network(self, lead: tuple[int, ...]) -> RadianceMlp:
        """The network from F features to density and colour."""
        return radiance.Radiance(
            self.channels, self.hidden, self.initial_density, self.unit, name="scene_head"
        )(lead)

    def ray_samples(self, lead: tuple[int, ...]) -> Samples:
        """Where rays are looked at."""
        near, far = jnp.full(lead, self.near), jnp.full(lead, self.far)
        return Samples(near, far, count=self.samples, spacing=self.spacing)


class _DepthKernel(nn.Module):
    """How a point's depth in a view enters its features there."""

    features: int

    @nn.compact
    def __call__(self, lead: tuple[int, ...]) -> Array:
        shape = (image_planes.DEPTH_FEATURES, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        return radiance.repeated(kernel, lead)
