"""Scenes made of 3D Gaussians.

Letters: N Gaussians, C colour channels.
"""

import dataclasses
import importlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax.core import indexing, rotations

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gaussians:
    """A batch of scenes, each a set of N Gaussians.

    Attributes:
      means: centres in the world [..., N, 3].
      quats: rotations world_from_local, wxyz, of any non-zero length [..., N, 4].
      scales: standard deviations along the local axes, > 0 [..., N, 3].
      opacities: peak opacities in [0, 1] [..., N].
      colors: any number of channels; RGB in [0, 1] [..., N, C].
    """

    means: Array
    quats: Array
    scales: Array
    opacities: Array
    colors: Array

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions, before N."""
        return tuple(self.opacities.shape[:-1])

    @property
    def num_gaussians(self) -> int:
        return self.opacities.shape[-1]

    @property
    def num_channels(self) -> int:
        return self.colors.shape[-1]

    def __getitem__(self, index: Any) -> "Gaussians":
        """Indexes the batch dimensions if there are any, else the Gaussians."""
        return indexing.take(self, index, self.opacities.shape)

    def __iter__(self) -> Iterator["Gaussians"]:
        return indexing.each(self, self.opacities.shape)

    def save(self, path: str | os.PathLike, **options: Any) -> pathlib.Path:
        """Writes one scene in the format that the suffix names, such as .ply or .spz.

        See `inference.export.formats.save`, which is found by name when it is needed: this module
        knows nothing of files.
        """
        formats = importlib.import_module("lgs_jax.inference.export.formats")
        return formats.save(path, self, **options)

    def check(self) -> "Gaussians":
        """Returns itself if the shapes fit.

        Raises:
          ValueError: if one of them is no array of floating-point numbers, or a shape is wrong;
            values are not looked at, so it works under `jit`.
        """
        for name, dtype in indexing.check_arrays(self).items():
            if not jnp.issubdtype(dtype, jnp.floating):
                raise ValueError(
                    f"Gaussians.{name} must be floating-point numbers, got {dtype}; convert them "
                    "(colours of 0 to 255: divide by 255)"
                )
        lead = jnp.shape(self.opacities)
        expected = {"means": (*lead, 3), "quats": (*lead, 4), "scales": (*lead, 3)}
        for name, shape in expected.items():
            if (got := jnp.shape(getattr(self, name))) != shape:
                raise ValueError(
                    f"Gaussians.{name} has shape {got}, but opacities {lead} ask for {shape}"
                )
        if (got := jnp.shape(self.colors))[:-1] != lead:
            raise ValueError(
                f"Gaussians.colors has shape {got}, but opacities {lead} ask for {(*lead, 'C')}"
            )
        return self


def concatenate(scenes: list[Gaussians]) -> Gaussians:
    """One scene with the Gaussians of all the given ones, in order."""
    return Gaussians(
        means=jnp.concatenate([s.means for s in scenes], axis=-2),
        quats=jnp.concatenate([s.quats for s in scenes], axis=-2),
        scales=jnp.concatenate([s.scales for s in scenes], axis=-2),
        opacities=jnp.concatenate([s.opacities for s in scenes], axis=-1),
        colors=jnp.concatenate([s.colors for s in scenes], axis=-2),
    )


@jax.jit
def transform(scene: Gaussians, b_from_a: Array) -> Gaussians:
    """Moves a scene given in frame `a` to frame `b` by a similarity [..., 4, 4].

    Colours are left alone: they do not depend on the direction of view.
    """
    linear = b_from_a[..., :3, :3]
    scale = jnp.cbrt(jnp.linalg.det(linear))[..., None, None]
    turn = rotations.quats_from_matrix(linear / scale)[..., None, :]
    return dataclasses.replace(
        scene,
        means=rotations.apply_affine(b_from_a, scene.means),
        quats=rotations.multiply_quats(turn, rotations.normalize_quats(scene.quats)),
        scales=scene.scales * scale,
    )


def covariances(scene: Gaussians) -> Array:
    """Covariance matrices in the world [..., N, 3, 3]."""
    axes = rotations.matrix_from_quats(scene.quats) * scene.scales[..., None, :]
    return jnp.einsum("...ij,...kj->...ik", axes, axes, precision=jax.lax.Precision.HIGHEST)
