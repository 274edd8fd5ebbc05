"""What the models of an experiment's cases cost to use, in seconds and megabytes.

The cases take turns where time is measured, so that none has a calm hour for itself.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax import files
from lgs_jax.core.cameras import Cameras
from lgs_jax.data import pipeline
from lgs_jax.inference import scene_model
from lgs_jax.inference.scene_model import SceneModel
from lgs_jax.rendering.api import render
from lgs_jax.tasks import views

_REPEATS = 15

Models = Mapping[str, SceneModel]
Say = Callable[[str], None]


def sampling_seconds(models: Models, say: Say) -> dict[str, float]:
    """Median seconds of one scene from nothing."""
    paths = {case: _side_by_side(model) for case, model in models.items()}
    calls = {
        case: lambda turn, case=case: models[case].sample(jax.random.key(turn), paths[case])
        for case in models
    }
    return _in_turns(calls, say)


def rendering_seconds(models: Models, say: Say, *, gradient: bool = False) -> dict[str, float]:
    """Median seconds of rendering the encoded views of one held-out scene, as it is decoded."""
    programs = {case: _rendering(model, gradient) for case, model in models.items()}
    calls = {
        case: lambda _, compiled=compiled, arguments=arguments: compiled(*arguments)
        for case, (compiled, arguments) in programs.items()
    }
    return _in_turns(calls, say)


def rendering_megabytes(models: Models, say: Say, *, gradient: bool = False) -> dict[str, float]:
    """MiB that the same program needs beside the scene, the cameras and its results."""
    del say  # nothing takes long
    found = {}
    for case, model in models.items():
        compiled, _ = _rendering(model, gradient)
        found[case] = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return found


# Columns that an experiment may ask for; each is measured once, with the models of its first seed.
MEASURES: dict[str, Callable[[Models, Say], dict[str, float]]] = {
    "sampling_s": sampling_seconds,
    "rendering_s": rendering_seconds,
    "rendering_mb": rendering_megabytes,
    "rendering_gradient_s": functools.partial(rendering_seconds, gradient=True),
    "rendering_gradient_mb": functools.partial(rendering_megabytes, gradient=True),
}
# Only times of one run compare; memory is the same whenever it is looked at.
TIMES = tuple(name for name in MEASURES if name.endswith("_s"))


def take(
    names: Iterable[str], places: Mapping[str, pathlib.Path], folder: pathlib.Path, say: Say
) -> dict[str, dict[str, float]]:
    """By measure and case what the models cost, as kept in `folder`; what is missing is measured.

    Where a case has no time yet, those of all these cases are taken in one run, and others dropped.

    Args:
      names: of `MEASURES`.
      places: by case the workdir of its model, which is opened if something is to be measured.
      folder: of the experiment.
      say: told what happens.
    """
    load = functools.cache(scene_model.load)
    costs = {}
    for name in names:
        path = folder / f"{name}.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        missing = [case for case in places if case not in kept]
        if missing and name in TIMES:
            missing, kept = list(places), {}
        if missing:
            kept |= MEASURES[name]({case: load(places[case]) for case in missing}, say)
            files.write_json(path, kept)
        costs[name] = kept
    return costs


def _in_turns(calls: Mapping[str, Callable[[int], Any]], say: Say) -> dict[str, float]:
    """Median seconds of each call; the first call of each may compile and does not count."""
    seconds: dict[str, list[float]] = {case: [] for case in calls}
    for turn in range(_REPEATS + 1):
        for case, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call(turn))
            if turn:
                seconds[case].append(time.perf_counter() - began)
        say(f"timing: {turn} of {_REPEATS} rounds")
    return {case: float(np.median(values)) for case, values in seconds.items()}


def _side_by_side(model: SceneModel) -> Cameras:
    """Cameras [V] in a row, looking the same way."""
    cameras = views.example_cameras(model.num_views, model.image_size)[0]
    poses = cameras.world_from_cam.at[:, 0, 3].set(jnp.arange(model.num_views, dtype=jnp.float32))
    return dataclasses.replace(cameras, world_from_cam=poses)


def _rendering(model: SceneModel, gradient: bool) -> tuple[jax.stages.Compiled, tuple[Any, ...]]:
    """A program that draws a scene at its V views, and its arguments.

    With `gradient`, the derivative of the mean square of the images by everything in the scene.
    """
    source = pipeline.make_source(model.data, "eval")
    batch = next(pipeline.eval_batches(source, model.data, batch_size=1, num_scenes=1))
    context = views.from_batch(batch["context"])
    height, width = model.image_size

    @jax.jit
    def decoded(frozen, images: jax.Array, cameras: Cameras) -> Any:
        return frozen.decode(frozen.encode(images, cameras).mean, cameras)

    def draw(scene: Any, cameras: Cameras) -> jax.Array:
        return render(scene, cameras, height=height, width=width, depth_mode=None).rgb

    def error(scene: Any, cameras: Cameras) -> jax.Array:
        return jnp.mean(draw(scene, cameras) ** 2)

    arguments = decoded(model.frozen, context.images, context.cameras), context.cameras
    program = jax.jit(jax.grad(error) if gradient else draw)
    return program.lower(*arguments).compile(), arguments
