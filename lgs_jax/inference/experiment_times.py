"""How long a sample takes in each case of an experiment."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core.cameras import Cameras
from lgs_jax.inference.scene_model import SceneModel
from lgs_jax.tasks import views

_REPEATS = 5


def take(models: Mapping[str, SceneModel], say: Callable[[str], None]) -> dict[str, float]:
    """Median seconds of one scene from nothing; the first call of each compiles and does not count.

    The models take turns, so that none has a calm hour for itself.
    """
    seconds: dict[str, list[float]] = {case: [] for case in models}
    paths = {case: _side_by_side(model) for case, model in models.items()}
    for turn in range(_REPEATS + 1):
        for case, model in models.items():
            began = time.perf_counter()
            jax.block_until_ready(model.sample(jax.random.key(turn), paths[case]).means)
            if turn:
                seconds[case].append(time.perf_counter() - began)
        say(f"timing: {turn} of {_REPEATS} rounds")
    return {case: float(np.median(values)) for case, values in seconds.items()}


def _side_by_side(model: SceneModel) -> Cameras:
    """Cameras [V] in a row, looking the same way."""
    cameras = views.example_cameras(model.num_views, model.image_size)[0]
    poses = cameras.world_from_cam.at[:, 0, 3].set(jnp.arange(model.num_views, dtype=jnp.float32))
    return dataclasses.replace(cameras, world_from_cam=poses)
