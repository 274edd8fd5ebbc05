"""Scenes made of three feature planes (Chan et al. 2022, EG3D) and a small network.

Letters: X, Y, Z axes of the region, n entries along each, F features, C colour channels, N points.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import indexing
from lgs_jax.rendering.volume import interpolate, radiance, region
from lgs_jax.rendering.volume.integrate import Samples

Array = jax.Array

COMBINATIONS = ("sum", "product")
# The two axes of the region that each plane spans; the plane of index k is flat along axis k.
PLANE_AXES = ((1, 2), (0, 2), (0, 1))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TriPlane:
    """A batch of scenes: features of a point are those of its shadows on three planes.

    Attributes:
      planes: features on the planes YZ, XZ and XY of the region [..., 3, n, n, F].
      mlp: from features to density and colour.
      region: what the planes cover; outside of it is nothing.
      samples: where rays are looked at.
      combination: how the features of the three planes become one, "sum" or "product".
    """

    planes: Array
    mlp: radiance.RadianceMlp
    region: region.Region
    samples: Samples
    combination: str = dataclasses.field(default="sum", metadata={"static": True})

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions, before those of the planes."""
        return tuple(self.planes.shape[:-4])

    @property
    def num_channels(self) -> int:
        return self.mlp.num_channels

    def __getitem__(self, index: Any) -> "TriPlane":
        """Indexes the batch dimensions."""
        return indexing.take(self, index, self.batch_shape)

    def __iter__(self) -> Iterator["TriPlane"]:
        return indexing.each(self, self.batch_shape)

    def check(self) -> "TriPlane":
        """Returns itself if the shapes fit.

        Raises:
          ValueError: if a shape is wrong; values are not looked at, so it works under `jit`.
        """
        shape = jnp.shape(self.planes)
        if len(shape) < 4 or shape[-4] != 3 or shape[-3] != shape[-2]:
            raise ValueError(f"TriPlane expects planes [..., 3, n, n, F], got {shape}")
        lead = shape[:-4]
        if (got := jnp.shape(self.region.cube_from_world)) != (*lead, 4, 4):
            raise ValueError(f"TriPlane.region has cube_from_world {got}, expected {(*lead, 4, 4)}")
        if self.combination not in COMBINATIONS:
            raise ValueError(f"combination={self.combination!r} must be one of {COMBINATIONS}")
        self.mlp.check(lead, shape[-1])
        self.samples.check(lead)
        return self

    def field(self, points: Array) -> tuple[Array, Array]:
        """Density [N] and colours [N, C] of one scene at points [N, 3]."""
        coordinates = self.region.coordinates(points)
        positions = (coordinates + 1.0) / 2.0 * self.planes.shape[1]
        shadows = jnp.moveaxis(positions[:, np.array(PLANE_AXES)], 1, 0)  # [3, N, 2]
        found = jax.vmap(interpolate.interpolate)(self.planes, shadows)
        combine = jnp.sum if self.combination == "sum" else jnp.prod
        density, colors = self.mlp(combine(found, axis=0))
        inside = jnp.all(jnp.abs(coordinates) <= 1.0, axis=-1)
        return jnp.where(inside, density, 0.0), colors


def transform(scene: TriPlane, b_from_a: Array) -> TriPlane:
    """Moves a scene given in frame `a` to frame `b` by a similarity [..., 4, 4]."""
    scale = region.scale_of(b_from_a)
    return dataclasses.replace(
        scene,
        mlp=scene.mlp.scaled(scale),
        region=scene.region.transform(b_from_a),
        samples=scene.samples.scaled(scale),
    )
