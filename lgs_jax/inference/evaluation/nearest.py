"""Looks for what samples may have been copied from: the nearest photographs of the training set.

Samples from nothing are compared at their reference view. So are, as a measure of how near a new
photograph lies, those of the held-out scenes.

Letters: N scenes, V views of the latents, T held-out views.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lgs_jax.data import assemble, pipeline, progress
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Source
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import visuals
from lgs_jax.inference.evaluation import scoring
from lgs_jax.metrics import copying
from lgs_jax.tasks import panels, views

FILE = "nearest"
SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The nearest training photographs of the samples and of the held-out photographs.

    Attributes:
      photographs: how many of the training set were looked at.
      distances: of features, Euclidean [N], of the samples and of the held-out photographs.
      places: for each (index of the training scene, position of its view) [N, 2].
    """

    photographs: int
    distances: tuple[np.ndarray, np.ndarray]
    places: tuple[np.ndarray, np.ndarray]

    def figures(self) -> dict[str, Any]:
        """What is written into results.json."""
        sampled, held_out = self.distances
        return {
            "training_photographs": self.photographs,
            "median_of_samples": float(np.median(sampled)),
            "median_of_held_out": float(np.median(held_out)),
            "copying_z": copying.copying_z(sampled, held_out),
            "distances_of_samples": sampled.tolist(),
            "distances_of_held_out": held_out.tolist(),
        }


def find(
    scorer: scoring.Scorer,
    source: Source,
    data: DataSettings,
    *,
    samples: np.ndarray,
    held_out: np.ndarray,
    num_scenes: int,
    batch_size: int,
    say: Callable[[str], None],
) -> Nearest:
    """Compares with the V views of the first training scenes, in a mixed order.

    Args:
      scorer: has the features of photographs.
      source: of the training set.
      data: how views are chosen.
      samples: their features [N, D].
      held_out: features of held-out photographs [N, D].
      num_scenes: of the training set to look at; all of it if there are fewer.
      batch_size: scenes at once.
      say: told of the progress.
    """
    num_scenes = min(num_scenes, len(source))
    seen, places = [], []
    ahead = progress.Progress(num_scenes, "training scenes", say, every_s=10.0)
    for batch in pipeline.eval_batches(source, data, batch_size=batch_size, num_scenes=num_scenes):
        real = np.flatnonzero(batch["weight"] > 0)
        found = scorer.photograph_features(views.from_batch(batch["context"]).images)[real]
        seen += list(found.reshape(-1, found.shape[-1]))
        places += [(i, v) for i in batch["scene_index"][real] for v in range(found.shape[1])]
        ahead.add(len(real))
    sides = [copying.nearest(values, np.stack(seen)) for values in (samples, held_out)]
    return Nearest(
        photographs=len(seen),
        distances=tuple(distances for distances, _ in sides),
        places=tuple(np.array(places)[positions] for _, positions in sides),
    )


def draw(
    folder: pathlib.Path,
    near: Nearest,
    source: Source,
    data: DataSettings,
    found: Sequence[Mapping[str, Any]],
    show: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]],
    reference: int,
) -> pathlib.Path:
    """Writes nearest.png: the samples that lie nearest to the training set, then photographs.

    Args:
      folder: where to.
      near: what was found.
      source: of the training set.
      data: how views are chosen.
      found: records of the N scenes.
      show: photographs and samples uint8 [n, V + T, H, W, 3] of scenes by index.
      reference: position of the view that was compared.
    """
    cache, table, titles = FrameCache(0), [], []
    for side, name in enumerate(("samples", "held-out photographs")):
        order = np.argsort(near.distances[side], kind="stable")[:SHOWN]
        photographs, samples = show([found[position]["index"] for position in order])
        shown = (samples, photographs)[side][:, reference]
        entries = [
            (assemble.scene_entry(source, data, scene, rng=None, cache=cache), view)
            for scene, view in near.places[side][order].tolist()
        ]
        training = [entry["context"]["images"][view] for entry, view in entries]
        table += [list(shown), training]
        titles += [name, "nearest for training"]
    picture = panels.grid(table, row_titles=titles)
    return visuals.write_visuals(folder, {FILE: picture})[0]
