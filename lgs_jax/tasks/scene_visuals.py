"""What a person wants to see of reconstructed scenes: pictures, a turntable and the splats.

A scene is `Gaussians`, or anything else that `render` understands.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lgs_jax.core import gaussians, trajectories
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import Rendering
from lgs_jax.tasks import panels, views
from lgs_jax.tasks.views import Views

MAX_SCENES = 4
TURNTABLE_FRAMES = 48


def make(
    render: Callable[[Any, Cameras], Rendering],
    scenes: Any,
    context: Views,
    target: Views,
    *,
    world_from_scene: jax.Array,
    weights: jax.Array,
) -> dict[str, Any]:
    """Visuals of the first scenes of a batch; `render` should be jitted.

    Returns:
      `scene_<i>` (a grid: input / reconstruction / held-out view / its rendering / depth, uint8),
      `turntable` (a video of the first scene) and, of Gaussians, `splats_<i>` (in the world of the
      data source).
    """
    both = views.concatenate(context, target)
    rendering = jax.device_get(render(scenes, both.cameras))
    visuals: dict[str, Any] = {}
    for i in range(min(MAX_SCENES, int(np.sum(np.asarray(weights) > 0)))):
        truth = (np.asarray(context.images[i]), np.asarray(target.images[i]))
        visuals[f"scene_{i}"] = _grid(rendering, truth, i)
        if isinstance(scenes, Gaussians):
            visuals[f"splats_{i}"] = gaussians.transform(scenes[i], world_from_scene[i])
    return visuals | {"turntable": turntable(render, scenes, context.cameras)}


def turntable(
    render: Callable[[Any, Cameras], Rendering], scenes: Any, cameras: Cameras
) -> np.ndarray:
    """A video of the first scene along its cameras [B, V] and back to the first, uint8."""
    path = trajectories.interpolate(cameras[0], TURNTABLE_FRAMES, loop=True)
    first = jax.tree.map(lambda x: x[:1], scenes)
    return panels.to_uint8(np.asarray(render(first, path[None]).rgb[0]))


def _grid(rendering: Rendering, truth: tuple[np.ndarray, np.ndarray], i: int) -> np.ndarray:
    """One scene: a column per view, the encoded ones first."""
    columns = np.concatenate(truth)
    depth, alpha = rendering.depth[i, ..., 0], rendering.alpha[i, ..., 0]
    colored, *_ = panels.colorize_depth(depth, alpha > 0.5)
    titles = [f"input {k + 1}" for k in range(len(truth[0]))]
    titles += [f"held out {k + 1}" for k in range(len(truth[1]))]
    rows = [list(map(panels.to_uint8, columns)), list(map(panels.to_uint8, rendering.rgb[i]))]
    return panels.grid([*rows, list(colored)], column_titles=titles)
