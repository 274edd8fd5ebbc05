"""Image-based planes: features on the images of posed views, and a small network.

A point is projected into every view; the features there are taken together with its depth in that
view, pooled over the views that see it, and decoded to density and colour (the representation of
GIBR, Anciukevičius et al. 2024, arXiv 2402.03445; the details here are our own).

Letters: V views, H, W size of their images, F features, E numbers that stand for a depth, C colour
channels, N points.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import indexing, rotations
from lgs_jax.rendering.volume import interpolate, radiance, region
from lgs_jax.rendering.volume.integrate import Samples

Array = jax.Array

# Sines and cosines of half-turns over the range of depths; with the depth itself E = 9.
_FREQUENCIES = np.arange(1, 5)
DEPTH_FEATURES = 1 + 2 * len(_FREQUENCIES)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImagePlanes:
    """A batch of scenes, each given by V views; what no view sees is empty.

    Attributes:
      maps: features on the views' images [..., V, H, W, F]. The first C are logits of colour; to
        each of the others a function of the point's depth is added before a SiLU.
      view_weights: how much each view counts, >= 0 [..., V].
      cameras: of the views [..., V], for H x W images.
      depth_kernel: that function's weights [..., E, F - C].
      mlp: from pooled features to density and colour.
      samples: where rays are looked at; depths in the views are counted between its near and far.
    """

    maps: Array
    view_weights: Array
    cameras: cameras_lib.Cameras
    depth_kernel: Array
    mlp: radiance.RadianceMlp
    samples: Samples

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions, before V."""
        return tuple(self.maps.shape[:-4])

    @property
    def num_channels(self) -> int:
        return self.mlp.num_channels

    def __getitem__(self, index: Any) -> "ImagePlanes":
        """Indexes the batch dimensions."""
        return indexing.take(self, index, self.batch_shape)

    def __iter__(self) -> Iterator["ImagePlanes"]:
        return indexing.each(self, self.batch_shape)

    def check(self) -> "ImagePlanes":
        """Returns itself if the shapes fit.

        Raises:
          ValueError: if a shape is wrong; values are not looked at, so it works under `jit`.
        """
        shape = jnp.shape(self.maps)
        if len(shape) < 4:
            raise ValueError(f"ImagePlanes expects maps [..., V, H, W, F], got {shape}")
        lead, features = shape[:-4], shape[-1]
        self.mlp.check(lead, features)
        expected = {
            "view_weights": shape[:-3],
            "depth_kernel": (*lead, DEPTH_FEATURES, features - self.num_channels),
        }
        for name, wanted in expected.items():
            if (got := jnp.shape(getattr(self, name))) != wanted:
                raise ValueError(f"ImagePlanes.{name} has shape {got}, expected {wanted}")
        if (got := self.cameras.check().batch_shape) != shape[:-3]:
            raise ValueError(f"ImagePlanes.cameras are {got}, but the maps ask for {shape[:-3]}")
        self.samples.check(lead)
        return self

    def field(self, points: Array) -> tuple[Array, Array]:
        """Density [N] and colours [N, C] of one scene at points [N, 3]."""
        features, seen = self.pooled(points)
        density, colors = self.mlp(features)
        return density * jnp.minimum(seen, 1.0), colors

    def pooled(self, points: Array) -> tuple[Array, Array]:
        """Features [N, F] of one scene's points [N, 3], and how many views see each [N]."""

        def of_view(table: Array, weight: Array, camera: cameras_lib.Cameras) -> Any:
            positions, depth = project(camera, points)
            found = interpolate.interpolate(table, positions[:, ::-1])
            colors, hidden = jnp.split(found, [self.num_channels], axis=-1)
            hidden = jax.nn.silu(hidden + self._encoded(depth) @ self.depth_kernel)
            weight = weight * visibility(positions, depth, table.shape[:2], self.samples.near)
            return weight[:, None] * jnp.concatenate([colors, hidden], axis=-1), weight

        totals, weights = jax.vmap(of_view)(self.maps, self.view_weights, self.cameras)
        seen = jnp.sum(weights, axis=0)
        return jnp.sum(totals, axis=0) / jnp.maximum(seen, 1e-6)[:, None], seen

    def _encoded(self, depth: Array) -> Array:
        """What stands for depths [N]: disparity and its harmonics [N, E], each within [-1, 1]."""
        near, far = self.samples.near, self.samples.far
        depth = jnp.clip(depth, near, far)
        share = (1.0 / depth - 1.0 / far) / (1.0 / near - 1.0 / far)  # 0 at far, 1 at near
        angles = jnp.pi * share[:, None] * _FREQUENCIES.astype(share.dtype)
        return jnp.concatenate(
            [2.0 * share[:, None] - 1.0, jnp.sin(angles), jnp.cos(angles)], axis=-1
        )


def project(camera: cameras_lib.Cameras, points: Array) -> tuple[Array, Array]:
    """Where one camera sees points [N, 3]: pixels (u, v) [N, 2], and z-depths [N].

    Points behind the camera get pixels too, of no meaning.
    """
    local = rotations.apply_affine(camera.cam_from_world, points)
    depth = local[:, 2]
    # A depth that is tiny or negative would throw its pixel to infinity, and the gradient with it.
    away = jnp.where(jnp.abs(depth) > 1e-6, depth, 1e-6)
    focal, center = camera.intrinsics[:2], camera.intrinsics[2:]
    return focal * local[:, :2] / away[:, None] + center, depth


def visibility(positions: Array, depth: Array, size: tuple[int, int], near: Array) -> Array:
    """How well a view of H, W = `size` sees points [N], from 0 to 1; continuous.

    Falls to 0 over the outer half pixel of the image, and from `near` to the camera.
    """
    height, width = size
    far_edge = jnp.array([width, height], positions.dtype)
    margin = jnp.min(jnp.minimum(positions, far_edge - positions), axis=-1)
    return jnp.clip(2.0 * margin, 0.0, 1.0) * jnp.clip(depth / near, 0.0, 1.0)


def transform(scene: ImagePlanes, b_from_a: Array) -> ImagePlanes:
    """Moves a scene given in frame `a` to frame `b` by a similarity [..., 4, 4]."""
    scale = region.scale_of(b_from_a)
    return dataclasses.replace(
        scene,
        cameras=cameras_lib.transform(scene.cameras, b_from_a[..., None, :, :]),
        mlp=scene.mlp.scaled(scale),
        samples=scene.samples.scaled(scale),
    )
