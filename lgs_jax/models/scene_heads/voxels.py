"""The head of voxels: image-based planes, looked at once in every cell of a grid.

Letters: B scenes, V views, H, W image height and width, n cells along each axis.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models.scene_heads import image_planes, ranges
from lgs_jax.rendering.volume import region
from lgs_jax.rendering.volume.image_planes import ImagePlanes
from lgs_jax.rendering.volume.voxels import VoxelGrid

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class VoxelHead(image_planes.ImagePlanesHead):
    """Turns maps into a grid of density and colour that covers all of space.

    Every cell is projected into the views, and what it finds there is pooled and decoded as in
    image-based planes; the network is not needed any more to render. The grid is even within
    `initial_depth` of what the views look at and coarser beyond (`region.ahead_of`).

    Attributes:
      resolution: n; half of the cells along each axis are in the even part.
    """

    resolution: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.check_positive(resolution=self.resolution)

    def __call__(
        self, maps: Array, cameras: cameras_lib.Cameras, view_mask: Array | None = None
    ) -> VoxelGrid:
        """A grid [B] of n x n x n cells; arguments as for image-based planes."""
        planes = super().__call__(maps, cameras, view_mask)
        cube = region.ahead_of(cameras, self.unit)
        density, colors = at_cells(ImagePlanes.field, planes, cube, self.resolution)
        return VoxelGrid(density, colors, cube, planes.samples)


def at_cells(
    look: Callable[[ImagePlanes, Array], Any],
    planes: ImagePlanes,
    cube: region.Region,
    resolution: int,
) -> Any:
    """What `look(planes of one scene, points [N, 3])` gives in the cells, [B, n, n, n, ...]."""

    def of_scene(planes: ImagePlanes, cube: region.Region) -> Any:
        def of_layer(coordinates: Array) -> Any:
            found = look(planes, cube.points(coordinates.reshape(-1, 3)))
            shape = coordinates.shape[:-1]
            return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)

        # Layer by layer, also for the gradient: the views' features of all cells are many.
        of_layer = jax.checkpoint(of_layer, prevent_cse=False)
        return jax.lax.map(of_layer, region.cell_centers(resolution))

    return jax.vmap(of_scene)(planes, cube)
