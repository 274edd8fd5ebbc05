"""Evaluates a model by a protocol, batch by batch, and goes on where it was stopped.

Letters: B scenes of a batch, V views of the latents, T held-out views, K samples.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lgs_jax.data import neighbours, pipeline, progress
from lgs_jax.data.example import Source
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import encode_latents
from lgs_jax.inference.evaluation import (
    distances,
    nearest,
    protocols,
    records,
    report,
    scenes,
    scoring,
    summary,
    versions,
)
from lgs_jax.inference.evaluation.options import Options, sampler_of
from lgs_jax.inference.scene_model import SceneModel
from lgs_jax.tasks import panels
from lgs_jax.tasks.diffusion_settings import SamplerSettings
from lgs_jax.vision.features import FeatureNetwork
from lgs_jax.vision.lpips import Lpips

Say = Callable[[str], None]


def evaluate(
    folder: str | pathlib.Path,
    model: SceneModel,
    name: str,
    options: Options,
    *,
    changes: Mapping[str, Any] | None = None,
    lpips: Lpips | None = None,
    network: FeatureNetwork | None = None,
    statistics: str | pathlib.Path | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Scores scenes; writes results.json, results.md and a gallery into `folder`.

    Args:
      folder: of this evaluation; one that was stopped goes on.
      model: what is evaluated.
      name: of the model, for the reader.
      options: how.
      changes: keys of the model's `DataSettings` to change, such as `root`.
      lpips: measured where given.
      network: whose features give the distances between true and rendered images.
      statistics: folder that keeps the features of the true images for other evaluations.
      say: told what happens.

    Raises:
      ValueError: if model, data and protocol do not fit each other, the data have bad scenes, or
        the folder holds something else.
      lgs_jax.data.report.DataError: if a scene cannot be read.
    """
    folder = pathlib.Path(folder)
    protocol = protocols.PROTOCOLS.get(options.protocol)
    changes = dict(changes or {})
    _check_scenes(options, changes)
    gap = scenes.ANY_GAP if options.views == "neighbours" else {}
    data = protocols.data_settings(
        options.protocol, model, changes | gap, options.target_views, options.split
    )
    sampler = sampler_of(model, protocol, options)
    _check_nearest(options, protocol, network)
    chosen, views = _choose(model, data, options, say, angles="source" in changes)
    request = _request(model, name, options, chosen, sampler) | {
        "lpips": lpips and _weights_of(lpips),
        "network": network and {"name": network.name, "checksum": network.checksum},
    }
    kept = records.Records(folder, request)
    scorer = scoring.Scorer(
        model,
        protocol,
        seed=options.seed,
        num_samples=options.num_samples,
        sampler=sampler,
        tell_class=options.tell_class,
        lpips=lpips,
        network=network,
        statistics=None if statistics is None else pathlib.Path(statistics),
    )
    count = request["num_scenes"]
    num_parts = _score(kept, scorer, chosen, options.batch_size, count, say)
    found = kept.read(num_parts)
    groups = summary.view_groups(protocol.known_mask(model), data.target_views)
    results = {
        "protocol": options.protocol,
        "summary": protocol.summary,
        "views": views,
        "mixture": chosen.describe_mixture([each["index"] for each in found]),
        "request": request,
        "left_out": len(chosen.source.report.findings),
        "versions": versions.found(),
        "data_sha256": _combined(found),
        "num_scenes": len(found),
        "scores": summary.scores(found, groups),
        "scene": summary.scene_means(found),
        "distances": distances.measure(kept, num_parts, network, say),
        "scenes": found,
    }
    _write(kept, scorer, model, chosen, options, results, groups, say)
    return results


def _choose(
    model: SceneModel, data: DataSettings, options: Options, say: Say, *, angles: bool
) -> tuple[scenes.Scenes, str]:
    """The scenes in the views that are evaluated, and what these are in a sentence.

    `angles`: whether to say how far the views are apart.
    """
    near = options.views == "neighbours"
    degrees = neighbours.usual_deg(model.degrees_apart) if near else None
    chosen = scenes.Scenes(_source(data, options, say), data, degrees)
    views = protocols.describe_views(data, options.split, options.views)
    say(views)
    if angles:
        say(chosen.describe_angles(model.degrees_apart))
    return chosen, views


def _write(
    kept: records.Records,
    scorer: scoring.Scorer,
    model: SceneModel,
    chosen: scenes.Scenes,
    options: Options,
    results: dict[str, Any],
    groups: Mapping[str, Any],
    say: Say,
) -> None:
    """Writes figures, tables and pictures; adds the nearest training photographs to the results."""
    folder, found = kept.folder, results["scenes"]
    show = functools.partial(_show, scorer, chosen, options.batch_size)
    paths = [folder / "results.json"]
    if options.nearest_training:
        near, picture = _nearest(kept, scorer, model, chosen.data, found, show, options, say)
        results["nearest"] = near.figures()
        paths.append(picture)
    records.write_json(paths[0], results)
    paths += report.write(folder, results)
    titles = report.choose(found, groups, options.gallery)
    if titles:
        pictures = show([found[position]["index"] for position in titles])
        paths.append(report.write_gallery(folder, list(zip(titles.values(), *pictures))))
    for path in paths:
        say(str(path))


def _check_scenes(options: Options, changes: Mapping[str, Any]) -> None:
    """Refuses a choice of scenes or of views that there is not."""
    captures = "source" in changes
    if options.views == "neighbours" and not captures:
        raise ValueError(
            "views='neighbours' is for captures; the views of the model's own scenes are chosen as "
            "its data settings say, so leave it out"
        )
    if options.split == "train":
        for wrong, what in (
            (captures, "captures, on which the model was not trained"),
            ("view_index" in changes, "a view_index, which is for evaluation"),
            (options.nearest_training, "nearest_training, which compares new scenes with them"),
        ):
            if wrong:
                raise ValueError(f"split='train' does not go with {what}; leave one of them out")


def _check_nearest(
    options: Options, protocol: protocols.Protocol, network: FeatureNetwork | None
) -> None:
    if options.nearest_training and (protocol.compares or network is None):
        raise ValueError(
            "nearest_training is for samples from nothing and measures distances of features: take "
            "the protocol unconditional and a feature network, or leave it out"
        )


def _source(data: DataSettings, options: Options, say: Say) -> Source:
    """The scenes to score; refuses data that are not whole and more scenes than there are."""
    source = pipeline.make_source(data, options.split)
    say(source.report.summary())
    if source.report.findings and not options.allow_left_out:
        fewer = (
            ", or, where scenes have too few frames for "
            f"{data.context_views} + {data.target_views} views, ask for fewer target_views"
        )
        drawn = options.split == "train" and data.view_draws  # whose T is that of the training
        raise ValueError(
            f"the data have {len(source.report.bad_scenes)} scenes and "
            f"{len(source.report.bad_frames)} frames that cannot be used, so the figures would be "
            f"those of other data; mend them, or allow it{'' if drawn else fewer}"
        )
    if options.num_scenes is not None and options.num_scenes > len(source):
        there = "hold out" if options.split == "eval" else "have for training"
        raise ValueError(
            f"num_scenes={options.num_scenes}, but the data {there} {len(source)} scenes; ask for "
            "no more, or leave it out for all of them"
        )
    return source


def _request(
    model: SceneModel,
    name: str,
    options: Options,
    chosen: scenes.Scenes,
    sampler: SamplerSettings | None,
) -> dict[str, Any]:
    """What the scores of a folder depend on, beside the networks that measure."""
    asked = dataclasses.asdict(options)
    for key in ("gallery", "nearest_training"):  # the scores do not depend on them
        del asked[key]
    return {
        "model": name,
        "parameters": encode_latents.parameter_hash(
            (model.frozen.params, model.params, *([model.guide] if model.guide else []))
        ),
        **asked,
        "num_scenes": options.num_scenes or len(chosen.source),
        "target_views": chosen.data.target_views,
        "degrees": chosen.degrees,
        "sampler": dataclasses.asdict(sampler) if sampler else None,
        "data": dataclasses.asdict(chosen.data),
    }


def _weights_of(lpips: Lpips) -> dict[str, Any]:
    """Which LPIPS is measured."""
    return {
        "trunk": lpips.net.trunk,
        "resize_to": lpips.resize_to,
        "checksum": lpips.checksum or encode_latents.parameter_hash(lpips.params),
    }


def _score(
    kept: records.Records,
    scorer: scoring.Scorer,
    chosen: scenes.Scenes,
    batch_size: int,
    count: int,
    say: Say,
) -> int:
    """Scores the batches that are not done yet; returns how many there are."""
    num_parts = -(-count // batch_size)
    done = [number for number in range(num_parts) if kept.done(number)]
    if done:
        say(f"going on: {len(done)} of {num_parts} batches are done")
    ahead = progress.Progress(num_parts, "batches", say, done=len(done), every_s=10.0)
    for number, batch in enumerate(chosen.batches(batch_size, count)):
        if number in done:
            continue
        scored = scorer(batch)
        real = np.flatnonzero(batch["weight"] > 0)
        features = scored.features and tuple(values[real] for values in scored.features)
        found = [_record(chosen.source, batch, scored, i) for i in real.tolist()]
        kept.keep(number, found, features)
        ahead.add()
    return num_parts


def _record(source: Source, batch: Mapping[str, Any], scored: scoring.Scored, i: int) -> dict:
    """What is kept of scene i of a batch."""
    index = int(batch["scene_index"][i])
    key = source[index].key
    return {
        "index": index,
        "key": key,
        "sha256": records.scene_hash(batch, i, key),
        "samples": [
            {name: values[i].tolist() for name, values in sample.items()}
            for sample in scored.samples
        ],
        "photograph": {name: values[i].tolist() for name, values in scored.photograph.items()},
        "scene": {name: float(values[i]) for name, values in scored.scenes.items()},
    }


def _combined(found: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of all that was seen: two evaluations of equal hash saw the same pictures."""
    return hashlib.sha256("\n".join(record["sha256"] for record in found).encode()).hexdigest()


def _nearest(
    kept: records.Records,
    scorer: scoring.Scorer,
    model: SceneModel,
    data: DataSettings,
    found: Sequence[Mapping[str, Any]],
    show: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]],
    options: Options,
    say: Say,
) -> tuple[nearest.Nearest, pathlib.Path]:
    """What the samples may have been copied from, and the picture of it."""
    # Held-out views are not compared; scenes that were trained on must not lack frames for them.
    data = dataclasses.replace(data, target_views=model.data.target_views)
    training, reference = pipeline.make_source(data, "train"), model.task.reference
    say(training.report.summary())
    num_parts = -(-len(found) // options.batch_size)
    held_out, samples = distances.at_view(kept, num_parts, reference)
    near = nearest.find(
        scorer,
        training,
        data,
        samples=samples,
        held_out=held_out,
        num_scenes=options.nearest_training,
        batch_size=options.batch_size,
        say=say,
    )
    return near, nearest.draw(kept.folder, near, training, data, found, show, reference)


def _show(
    scorer: scoring.Scorer, chosen: scenes.Scenes, batch_size: int, indices: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs and the first sample again, uint8 [n, V + T, H, W, 3], of scenes by index."""
    true, rendered = [], []
    for start in range(0, len(indices), batch_size):
        part = list(indices[start : start + batch_size])
        padded = part + part[-1:] * (batch_size - len(part))  # one shape: compiled already
        batch = pipeline.stack([chosen.entry(index) for index in padded])
        photographs = [batch[group]["images"] for group in ("context", "target")]
        true += list(np.concatenate(photographs, axis=1)[: len(part)])
        rendered += list(panels.to_uint8(scorer.render(batch, 0).rgb)[: len(part)])
    return np.stack(true), np.stack(rendered)
