"""How much room to give the lists of (splat, tile) pairs, the entries.

An implementation lists `slots_per_splat` entries a splat at a time and sorts all slots, also those
that stay empty; what finds no room is drawn by another pass. So the number changes time and memory,
never the image. It is static: every other value is another compilation, hence steps of a third to a
half.
"""

import math
from typing import Any

import jax

from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.splat import dispatch
from lgs_jax.rendering.splat.render import render_gaussians

Array = jax.Array

# Room beyond what was counted, so that the next scenes of the kind fit too.
_HEADROOM = 1.25
# Those of which one launch is the rule. Longer segments of `xla` were not faster on CPUs, however
# much there is to list (docs/rasterizer.md).
_OF_ONE_LAUNCH = ("pallas_gpu", "pallas_tpu")


def count_entries(
    scene: Gaussians,
    cameras: Cameras,
    *,
    height: int,
    width: int,
    near: float = 0.01,
    far: float = 1e10,
    **options: Any,
) -> Array:
    """Entries of each image [...]: `aux["required"]` of `render`, without drawing.

    Costs the projection and the bounds of the splats: the compiler leaves out what no count needs.

    Args:
      scene, cameras, height, width, near, far: as for `render`.
      **options: of `render_gaussians`; entries depend on `implementation` and `tile_size`.

    Raises:
      What `render` raises for these arguments.
    """

    def count(scene, cameras):
        lens = {"height": height, "width": width, "near": near, "far": far}
        rest = {"background": 0.0, "depth_mode": None, "implementation": None} | options
        return render_gaussians(scene, cameras, **lens, **rest).aux["required"]

    return jax.jit(count)(scene, cameras)


def slots_for(entries: float, num_splats: int) -> int:
    """`slots_per_splat` with a quarter more room than so many entries of so many splats need.

    Args:
      entries: of all images, such as the sum of `aux["required"]`.
      num_splats: of all images, each of which counts the splats of its scene.

    Returns:
      One of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...

    Raises:
      ValueError: if there are no splats.
    """
    if num_splats < 1:
        raise ValueError(f"{num_splats=} must be at least 1; give those of all images together")
    need = max(1.0, _HEADROOM * entries / num_splats)
    power = 2 ** math.ceil(math.log2(need))
    return 3 * power // 4 if power >= 4 and need <= 3 * power / 4 else power


def room_of_one_launch(
    height: int,
    width: int,
    *,
    implementation: str | None = None,
    tile_size: int | None = None,
    slots_per_splat: int | None = None,
) -> float | None:
    """Entries a splat that one launch for an image has room for; None where it takes many by rule.

    Args:
      height, width, implementation, tile_size, slots_per_splat: as for `render`.

    Raises:
      What `render` raises for these arguments.
    """
    name = dispatch.candidates(implementation)[0]
    if name not in _OF_ONE_LAUNCH:
        return None
    many = 2**12  # of which the size of a segment is a multiple
    plan = dispatch.PLANS[name](
        height,
        width,
        num_images=1,
        num_splats=many,
        tile_size=tile_size,
        slots_per_splat=slots_per_splat,
    )
    return plan.segment / many
