"""The definition of the image: every splat is offered to every pixel, nearest first.

Dense, of any float dtype and differentiated by autodiff: the oracle for all other implementations.
Time and memory grow with N x H x W.

Letters: I images, N splats, F features.
"""

import jax
import jax.numpy as jnp
from jax import lax

from lgs_jax.rendering.splat import constants
from lgs_jax.rendering.splat.projection import Splats

Array = jax.Array


def composite(
    splats: Splats,
    opacities: Array,
    features: Array,
    *,
    height: int,
    width: int,
    near: float,
    far: float,
    capacity: int | None = None,
    tile_size: int | None = None,
    slots_per_splat: int | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """Blends splats [I, N] with features [I, N, F] into [I, H, W, F].

    Returns the features, the final transmittance [I, H, W] and the counts of `aux`.

    Raises:
      NotImplementedError: if a size of tiles or of their lists is asked for: there are none.
    """
    del near, far
    sizes = {"capacity": capacity, "tile_size": tile_size, "slots_per_splat": slots_per_splat}
    if asked := ", ".join(f"{k}={v}" for k, v in sizes.items() if v is not None):
        raise NotImplementedError(f"the reference has no tiles: {asked}")

    def one_image(args):
        return _composite_image(*args, height=height, width=width)

    out, transmittance = lax.map(one_image, (splats, opacities, features))
    none = jnp.zeros(out.shape[0], jnp.int32)
    return out, transmittance, {"required": none, "overflow": none}


def _composite_image(
    splats: Splats, opacities: Array, features: Array, *, height: int, width: int
) -> tuple[Array, Array]:
    dtype = features.dtype
    rows, columns = jnp.arange(height, dtype=dtype), jnp.arange(width, dtype=dtype)
    py, px = jnp.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")

    def blend(state, splat):
        s, opacity, feature = splat
        out, transmittance, running = state
        dx, dy = s.x - px, s.y - py
        across = dx + s.shear * dy
        sigma = 0.5 * (s.sharp_x * across * across + s.sharp_y * dy * dy)
        alpha = opacity * jnp.exp(-sigma)
        # Not jnp.minimum: at the bound the gradient is 1, above it 0.
        alpha = jnp.where(alpha > constants.MAX_ALPHA, constants.MAX_ALPHA, alpha)
        seen = s.visible & (alpha >= constants.MIN_ALPHA) & running
        behind = transmittance * (1 - alpha)
        enough = behind > constants.MIN_TRANSMITTANCE
        drawn = seen & enough
        weight = jnp.where(drawn, alpha * transmittance, 0.0)
        out = out + weight[..., None] * feature
        return (out, jnp.where(drawn, behind, transmittance), running & (enough | ~seen)), None

    nearest_first = jnp.argsort(jnp.where(splats.visible, splats.depths, jnp.inf), stable=True)
    sequence = jax.tree.map(lambda a: a[nearest_first], (splats, opacities, features))
    # From an input, so that they vary over a mesh as it does (`jax.shard_map`).
    image = jnp.zeros_like(features, shape=(height, width, features.shape[-1]))
    start = (image, jnp.ones_like(image[..., 0]), jnp.ones_like(image[..., 0], bool))
    (out, transmittance, _), _ = lax.scan(blend, start, sequence)
    return out, transmittance
