"""How splats are drawn where a configuration says so: the group `config.rendering`."""

import dataclasses
from typing import Any

from lgs_jax.rendering.splat import dispatch


@dataclasses.dataclass(frozen=True)
class RenderingSettings:
    """How splats are drawn. Time and memory depend on it, images only in their rounding.

    Attributes:
      implementation: `xla`, `pallas_gpu`, `pallas_tpu` or `reference`; empty: what the environment
        variable LGS_JAX_RASTERIZER names, else the best of the platform.
      tile_size: side of a tile in pixels; 0: by the size of the image.
      slots_per_splat: (splat, tile) pairs, per splat, that are listed at a time; 0: the
        implementation's default. The metric `entries_per_splat` says how many are needed.
    """

    implementation: str = ""
    tile_size: int = 0
    slots_per_splat: int = 0

    def __post_init__(self):
        sizes = {"tile_size": self.tile_size, "slots_per_splat": self.slots_per_splat}
        for name, value in sizes.items():
            if value < 0:
                raise ValueError(f"{name}={value} must be positive, or 0 for the default")
        name = self.implementation
        if not name:
            return
        if name not in dispatch.IMPLEMENTATIONS:
            known = ", ".join(dispatch.IMPLEMENTATIONS)
            raise ValueError(f"implementation={name!r} must be one of {known}, or empty")
        if name in dispatch.PLANS:
            _check_tile_size(name, self.tile_size)
        elif asked := ", ".join(f"{k}={v}" for k, v in sizes.items() if v):
            raise ValueError(f"implementation={name!r} has no tiles: leave {asked} at 0")

    @property
    def options(self) -> dict[str, Any]:
        """What is not left to the defaults, as keyword arguments of `rendering.api.render`."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}


def _check_tile_size(name: str, tile_size: int) -> None:
    """Raises ValueError if the implementation of that name takes no tiles of this size."""
    try:
        dispatch.PLANS[name](256, 256, num_images=1, num_splats=1, tile_size=tile_size or None)
    except NotImplementedError as reason:
        raise ValueError(f"{tile_size=}: implementation={name!r} {reason}") from reason
