"""Scenes made of voxels: density and colour at the centres of the cells of a grid.

Letters: X, Y, Z cells along the axes of the region, C colour channels, N points.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax.core import indexing
from lgs_jax.rendering.volume import interpolate, region
from lgs_jax.rendering.volume.integrate import Samples

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VoxelGrid:
    """A batch of scenes on grids; between the centres values are trilinear, outside is nothing.

    Attributes:
      density: absorption per unit of length of the world, >= 0 [..., X, Y, Z].
      colors: any number of channels; RGB in [0, 1] [..., X, Y, Z, C].
      region: what the grid covers.
      samples: where rays are looked at.
    """

    density: Array
    colors: Array
    region: region.Region
    samples: Samples

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions, before X."""
        return tuple(self.density.shape[:-3])

    @property
    def num_channels(self) -> int:
        return self.colors.shape[-1]

    def __getitem__(self, index: Any) -> "VoxelGrid":
        """Indexes the batch dimensions."""
        return indexing.take(self, index, self.batch_shape)

    def __iter__(self) -> Iterator["VoxelGrid"]:
        return indexing.each(self, self.batch_shape)

    def check(self) -> "VoxelGrid":
        """Returns itself if the shapes fit.

        Raises:
          ValueError: if a shape is wrong; values are not looked at, so it works under `jit`.
        """
        shape = jnp.shape(self.density)
        if len(shape) < 3 or jnp.shape(self.colors)[:-1] != shape:
            raise ValueError(
                "VoxelGrid expects density [..., X, Y, Z] and colors [..., X, Y, Z, C], got "
                f"{shape} and {jnp.shape(self.colors)}"
            )
        if (got := jnp.shape(self.region.cube_from_world)) != (*shape[:-3], 4, 4):
            raise ValueError(
                f"VoxelGrid.region has cube_from_world {got}, expected {(*shape[:-3], 4, 4)}"
            )
        self.samples.check(shape[:-3])
        return self

    def field(self, points: Array) -> tuple[Array, Array]:
        """Density [N] and colours [N, C] of one scene at points [N, 3]."""
        coordinates = self.region.coordinates(points)
        sizes = jnp.array(self.density.shape, coordinates.dtype)
        table = jnp.concatenate([self.density[..., None], self.colors], axis=-1)
        values = interpolate.interpolate(table, (coordinates + 1.0) / 2.0 * sizes)
        inside = jnp.all(jnp.abs(coordinates) <= 1.0, axis=-1)
        return jnp.where(inside, values[:, 0], 0.0), values[:, 1:]


def transform(scene: VoxelGrid, b_from_a: Array) -> VoxelGrid:
    """Moves a scene given in frame `a` to frame `b` by a similarity [..., 4, 4]."""
    scale = region.scale_of(b_from_a)
    return dataclasses.replace(
        scene,
        density=scene.density / scale[..., None, None, None],
        region=scene.region.transform(b_from_a),
        samples=scene.samples.scaled(scale),
    )
