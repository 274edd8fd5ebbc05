"""Emission and absorption along rays: the integral of volume rendering as a sum over samples.

A ray is cut into bins; inside of a bin density and colour are those of one sample (Max 1995,
"Optical models for direct volume rendering"; the sum of NeRF, Mildenhall et al. 2020, eq. 3).

Letters: R rays, S samples per ray, C colour channels.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

SPACINGS = ("depth", "disparity")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Where along its rays a field is looked at.

    Attributes:
      near: z-depth where rays begin, > 0 [...].
      far: z-depth where they end [...].
      count: S.
      spacing: the quantity in which bins are equally wide, "depth" or "disparity" (1 / depth).
    """

    near: Array
    far: Array
    count: int = dataclasses.field(default=64, metadata={"static": True})
    spacing: str = dataclasses.field(default="disparity", metadata={"static": True})

    def check(self, lead: tuple[int, ...]) -> "Samples":
        """Returns itself if it fits a scene with leading dimensions `lead`.

        Raises:
          ValueError: if it does not; values are not looked at, so it works under `jit`.
        """
        for name in ("near", "far"):
            if (shape := jnp.shape(getattr(self, name))) != lead:
                raise ValueError(f"Samples.{name} has shape {shape}, but the scene's is {lead}")
        if not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"Samples.count={self.count!r} must be a positive Python int")
        if self.spacing not in SPACINGS:
            raise ValueError(f"Samples.spacing={self.spacing!r} must be one of {SPACINGS}")
        return self

    def scaled(self, scale: Array) -> "Samples":
        """The same samples in a world that is larger by `scale` [...]."""
        return dataclasses.replace(self, near=self.near * scale, far=self.far * scale)

    def clipped(self, near: float, far: float) -> "Samples":
        """The part of the rays between two depths, in as many samples."""
        near = jnp.maximum(self.near, near)
        far = jnp.maximum(jnp.minimum(self.far, far), near)
        return dataclasses.replace(self, near=near, far=far)


class Integrals(NamedTuple):
    """Sums along rays: colour [R, C], opacity [R], and depth weighted by opacity [R]."""

    colors: Array
    alpha: Array
    depth: Array


def bins(samples: Samples, jitter: Array | None = None) -> tuple[Array, Array]:
    """Depths of the samples and widths of their bins, both [..., S].

    Args:
      samples: of one field, whose near and far are scalars.
      jitter: places in the bins [..., S] in [0, 1], in units of the spacing; None: the middles.
    """
    place = jnp.arange(samples.count) + (0.5 if jitter is None else jitter)
    share, edge = place / samples.count, jnp.arange(samples.count + 1) / samples.count
    near, far = samples.near, samples.far
    if samples.spacing == "disparity":
        depths, edges = (1.0 / ((1.0 - x) / near + x / far) for x in (share, edge))
    else:
        depths, edges = ((1.0 - x) * near + x * far for x in (share, edge))
    # Rounding would leave something of an empty range.
    widths = jnp.where(far > near, jnp.diff(edges), 0.0)
    return depths, jnp.broadcast_to(widths, depths.shape)


def integrate(
    field: Callable[[Array], tuple[Array, Array]],
    origins: Array,
    directions: Array,
    depths: Array,
    widths: Array,
) -> Integrals:
    """Looks at a field along rays and sums up what comes through; nothing is behind it.

    Args:
      field: points [N, 3] -> (density per unit of length [N], colours [N, C]).
      origins: [R, 3].
      directions: [R, 3], of length |d| per unit of depth.
      depths: of the samples, [S] or [R, S].
      widths: of the bins, in units of depth, likewise.
    """
    points = origins[:, None] + depths[..., None] * directions[:, None]
    density, colors = field(points.reshape(-1, 3))
    shape = points.shape[:2]
    length = jnp.linalg.norm(directions, axis=-1, keepdims=True)
    thickness = density.reshape(shape) * widths * length
    # Not the sum minus its last term: a wide last bin is as good as infinite.
    before = jnp.cumsum(jnp.pad(thickness[:, :-1], ((0, 0), (1, 0))), axis=-1)
    weights = -jnp.expm1(-thickness) * jnp.exp(-before)
    return Integrals(
        colors=jnp.einsum("rs,rsc->rc", weights, colors.reshape(*shape, -1)),
        alpha=-jnp.expm1(-jnp.sum(thickness, axis=-1)),
        depth=jnp.sum(weights * depths, axis=-1),
    )
