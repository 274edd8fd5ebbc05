"""How much of what one camera sees another may see too, from the cameras alone.

Nothing is known of the scene's depth, so every depth is tried: a ray of one camera counts if the
other camera has some point of it in its image, seen from a direction that differs by less than 60
degrees (beyond, it would mostly see the other side of things). Depths are even in inverse depth,
from half the distance of the two cameras to infinity, so the measure has no unit.
"""

import dataclasses

import numpy as np

from lgs_jax.data import poses

_RAYS_PER_SIDE = 5
_DEPTHS = 8
_MIN_COSINE = 0.5


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Overlaps among the F frames of a scene.

    Attributes:
      world_from_cam: [F, 4, 4].
      intrinsics: fx, fy, cx, cy in pixels [F, 4].
      sizes: height and width [F, 2].
    """

    world_from_cam: np.ndarray
    intrinsics: np.ndarray
    sizes: np.ndarray

    def __call__(self, frame: int, others: np.ndarray) -> np.ndarray:
        """Overlap of a frame with each of some others [N], in [0, 1]; symmetric."""
        others = np.asarray(others)
        repeated = np.full_like(others, frame)
        return np.minimum(self._seen(repeated, others), self._seen(others, repeated))

    def _seen(self, frames: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Share of the rays of each of `frames` [N] that the frame in `others` [N] may see."""
        origin, turn = self.world_from_cam[frames, :3, 3], self.world_from_cam[frames, :3, :3]
        apart = np.linalg.norm(self.world_from_cam[others, :3, 3] - origin, axis=-1)
        rays = np.einsum("nij,nrj->nri", turn, self._rays(frames))
        # Homogeneous points origin * w + ray, w the inverse depth; w = 0 is infinitely far.
        near = 2.0 / np.where(apart > 0, apart, 1.0)
        inverse = near[:, None] * np.linspace(0.0, 1.0, _DEPTHS)
        cam_from_world = poses.invert(self.world_from_cam[others])
        local = np.einsum("nij,nrj->nri", cam_from_world[:, :3, :3], rays)[:, :, None]
        start = np.einsum("nij,nj->ni", cam_from_world[:, :3, :3], origin)
        start = (start + cam_from_world[:, :3, 3])[:, None, None]
        points = local + start * inverse[:, None, :, None]
        depth = points[..., 2]
        front = np.where(depth > 0, depth, 1.0)[..., None]
        fx_fy, cx_cy = np.split(self.intrinsics[others][:, None, None], 2, axis=-1)
        pixels = points[..., :2] / front * fx_fy + cx_cy
        inside = (pixels >= 0) & (pixels <= self.sizes[others][:, None, None, ::-1])
        lengths = np.linalg.norm(points, axis=-1) * np.linalg.norm(local, axis=-1)
        same_side = np.sum(points * local, axis=-1) >= _MIN_COSINE * lengths
        return ((depth > 0) & inside.all(axis=-1) & same_side).any(axis=2).mean(axis=1)

    def _rays(self, frames: np.ndarray) -> np.ndarray:
        """Directions [N, R, 3] with z = 1 of a grid over each image."""
        grid = (np.arange(_RAYS_PER_SIDE) + 0.5) / _RAYS_PER_SIDE
        places = np.stack(np.meshgrid(grid, grid), -1).reshape(1, -1, 2)
        pixels = places * self.sizes[frames][:, None, ::-1]
        fx_fy, cx_cy = np.split(self.intrinsics[frames][:, None], 2, axis=-1)
        plane = (pixels - cx_cy) / fx_fy
        return np.concatenate([plane, np.ones_like(plane[..., :1])], axis=-1)
