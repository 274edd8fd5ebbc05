"""The head of three feature planes: pooled features of the views, averaged along each axis.

Letters: B scenes, V views, n entries along each axis, F features.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models.scene_heads import image_planes, ranges, voxels
from lgs_jax.rendering.volume import region, triplane
from lgs_jax.rendering.volume.image_planes import ImagePlanes

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class TriPlaneHead(image_planes.ImagePlanesHead):
    """Turns maps into three feature planes that cover all of space, and a small network.

    The cells of a grid as of the voxel head are projected into the views, whose features are
    pooled; each plane holds their mean along its normal, with learned weights, after a linear map
    of its own.

    Attributes:
      resolution: n; half of the entries along each axis are in the even part.
      combination: "sum" or "product" of the three planes' features.
    """

    resolution: int = 32
    combination: str = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.check_positive(resolution=self.resolution)
        if self.combination not in triplane.COMBINATIONS:
            raise ValueError(
                f"combination={self.combination!r} must be one of {triplane.COMBINATIONS}"
            )

    def __call__(
        self, maps: Array, cameras: cameras_lib.Cameras, view_mask: Array | None = None
    ) -> triplane.TriPlane:
        """Planes [B] of n x n entries; arguments as for image-based planes."""
        views = super().__call__(maps, cameras, view_mask)
        cube = region.ahead_of(cameras, self.unit)
        features, seen = voxels.at_cells(ImagePlanes.pooled, views, cube, self.resolution)
        return triplane.TriPlane(
            planes=_Planes(self.combination, name="scene_head_planes")(features, seen),
            mlp=views.mlp,
            region=cube,
            samples=views.samples,
            combination=self.combination,
        )


class _Planes(nn.Module):
    """Means of features along the three axes; equal weights and no change at the start."""

    combination: str

    @nn.compact
    def __call__(self, features: Array, seen: Array) -> Array:
        """Planes [B, 3, n, n, F] of features [B, n, n, n, F] of cells that `seen` views see."""
        size = features.shape[-1]
        logits = nn.Dense(3, kernel_init=nn.initializers.zeros, name="weights")(features)
        kernels = self.param("kernels", lambda *_: jnp.tile(jnp.eye(size), (3, 1, 1)))
        # The colour of a sum of three planes should be their mean.
        share = 1.0 / 3.0 if self.combination == "sum" else 1.0
        planes = []
        for axis in range(3):
            weights = jnp.exp(jnp.clip(logits[..., axis, None], -10.0, 10.0))
            weights = weights * jnp.minimum(seen, 1.0)[..., None]
            total = jnp.sum(weights * features, axis=1 + axis)
            mean = total / (jnp.sum(weights, axis=1 + axis) + 1e-6)
            planes.append(share * mean @ kernels[axis])
        return jnp.stack(planes, axis=1)
