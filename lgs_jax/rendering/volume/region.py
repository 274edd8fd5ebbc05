"""Which part of space a table of values covers: a cube, or all of space drawn into one."""

import dataclasses

import jax
import jax.numpy as jnp

from lgs_jax.core import rotations
from lgs_jax.core.cameras import Cameras

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Region:
    """A cube in a frame of its own; coordinates in a table run from -1 to 1 along its axes.

    With `contracted`, the cube [-1, 1]^3 of the frame takes the inner half of the table along each
    axis, evenly, and all that lies outside of it the outer half, the farther the denser: a point p
    at distance n = max |p_i| > 1 comes to p (2 - 1/n) / (2n). The form is that of Mip-NeRF 360
    (Barron et al. 2022, eq. 10) with the largest coordinate for the length, so that the table is
    filled to its corners.

    Attributes:
      cube_from_world: similarities [..., 4, 4].
      contracted: whether all of space is covered, or the cube alone.
    """

    cube_from_world: Array
    contracted: bool = dataclasses.field(default=False, metadata={"static": True})

    def coordinates(self, points: Array) -> Array:
        """Coordinates [N, 3] of points [N, 3] of the world; those in the region lie in [-1, 1]."""
        inner = rotations.apply_affine(self.cube_from_world, points)
        if not self.contracted:
            return inner
        norm = jnp.maximum(jnp.max(jnp.abs(inner), axis=-1, keepdims=True), 1.0)
        return inner * (1.0 - 0.5 / norm) / norm

    def points(self, coordinates: Array) -> Array:
        """Points [N, 3] of the world with these coordinates, the inverse of `coordinates`.

        Contracted, they must lie inside of the table: its border is infinitely far away.
        """
        inner = coordinates
        if self.contracted:
            inner = 2.0 * coordinates
            norm = jnp.maximum(jnp.max(jnp.abs(inner), axis=-1, keepdims=True), 1.0)
            inner = inner / (norm * (2.0 - norm))
        return rotations.apply_affine(rotations.affine_inverse(self.cube_from_world), inner)

    def transform(self, b_from_a: Array) -> "Region":
        """The same region of a world moved by a similarity [..., 4, 4]."""
        moved = jnp.matmul(
            self.cube_from_world,
            rotations.affine_inverse(b_from_a),
            precision=jax.lax.Precision.HIGHEST,
        )
        return dataclasses.replace(self, cube_from_world=moved)


def cell_centers(resolution: int) -> Array:
    """Coordinates [n, n, n, 3] of the centres of the cells of a table of n = `resolution`."""
    along = (2.0 * jnp.arange(resolution) + 1.0) / resolution - 1.0
    return jnp.stack(jnp.meshgrid(along, along, along, indexing="ij"), axis=-1)


def ahead_of(cameras: Cameras, depth: float) -> Region:
    """All of space, evenly around what the views look at.

    The even part is a cube with the axes of the first view. Its centre is the mean of the points
    that lie at z-depth `depth` on the views' optical axes, and its half side is `depth` too: for
    views around an object it holds the object, for views from inside of a room what they look at
    and, at its border, themselves.

    Args:
      cameras: views [..., V].
      depth: a typical depth, in units of the world.
    """
    poses = cameras.world_from_cam
    center = jnp.mean(cameras.centers + depth * poses[..., :3, 2], axis=-2)
    world_from_cube = rotations.affine_from_parts(depth * poses[..., 0, :3, :3], center)
    return Region(rotations.affine_inverse(world_from_cube), contracted=True)


def scale_of(b_from_a: Array) -> Array:
    """How many times longer lengths become [...] under similarities [..., 4, 4]."""
    return jnp.cbrt(jnp.linalg.det(b_from_a[..., :3, :3]))
