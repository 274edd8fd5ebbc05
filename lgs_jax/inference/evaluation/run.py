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

from lgs_jax.data import assemble, neighbours, pipeline, progress
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Source
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import encode_latents
from lgs_jax.inference.evaluation import (
    distances,
    nearest,
    protocols,
    records,
    report,
    scoring,
    summary,
    versions,
)
from lgs_jax.inference.scene_model import SceneModel
from lgs_jax.tasks import panels
from lgs_jax.tasks.diffusion_settings import SamplerSettings
from lgs_jax.vision.features import FeatureNetwork
from lgs_jax.vision.lpips import Lpips

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is evaluated beside the model and its data.

    Attributes:
      protocol: a name in `protocols.PROTOCOLS`.
      num_scenes: the first so many of the evaluation's order, no more than there are; None: all.
      target_views: T; None: as many as encoded views where there is room for them between those,
        see `protocols.target_views`.
      num_samples: K, for protocols that draw samples.
      steps, guidance: of the sampler; None: as the model says.
      tell_class: whether the denoiser is told the class of the scene.
      seed: of the samples.
      batch_size: B.
      gallery: scenes of each kind that are shown: best, middle and worst.
      nearest_training: training scenes among which the nearest photographs of samples from nothing
        are looked for; 0: none.
      allow_left_out: go on although the data have scenes or frames that cannot be read.
    """

    protocol: str
    num_scenes: int | None = None
    target_views: int | None = None
    num_samples: int = 1
    steps: int | None = None
    guidance: float | None = None
    tell_class: bool = False
    seed: int = 0
    batch_size: int = 8
    gallery: int = 2
    nearest_training: int = 0
    allow_left_out: bool = False

    def __post_init__(self) -> None:
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("num_scenes", "target_views"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for name in ("gallery", "nearest_training"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


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
    """Scores the held-out scenes; writes results.json, results.md and a gallery into `folder`.

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
    data = protocols.data_settings(
        options.protocol, model, dict(changes or {}), options.target_views
    )
    sampler = _sampler(model, protocol, options)
    _check_nearest(options, protocol, network)
    source = _held_out(data, options, say)
    shown = protocols.describe_views(data)
    say(shown)
    if "source" in (changes or {}):
        say(_describe_angles(source, data, model.degrees_apart))
    request = _request(model, name, options, source, data, sampler) | {
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
    num_parts = _score(kept, scorer, source, data, options.batch_size, count, say)
    found = kept.read(num_parts)
    groups = summary.view_groups(protocol.known_mask(model), data.target_views)
    results = {
        "protocol": options.protocol,
        "summary": protocol.summary,
        "views": shown,
        "request": request,
        "left_out": len(source.report.findings),
        "versions": versions.found(),
        "data_sha256": _combined(found),
        "num_scenes": len(found),
        "scores": summary.scores(found, groups),
        "scene": summary.scene_means(found),
        "distances": distances.measure(kept, num_parts, network, say),
        "scenes": found,
    }
    show = functools.partial(_show, scorer, source, data, options.batch_size)
    paths = [folder / "results.json"]
    if options.nearest_training:
        near, picture = _nearest(kept, scorer, model, data, found, show, options, say)
        results["nearest"] = near.figures()
        paths.append(picture)
    records.write_json(paths[0], results)
    paths += report.write(folder, results)
    chosen = report.choose(found, groups, options.gallery)
    if chosen:
        pictures = show([found[position]["index"] for position in chosen])
        paths.append(report.write_gallery(folder, list(zip(chosen.values(), *pictures))))
    for path in paths:
        say(str(path))
    return results


def _check_nearest(
    options: Options, protocol: protocols.Protocol, network: FeatureNetwork | None
) -> None:
    if options.nearest_training and (protocol.compares or network is None):
        raise ValueError(
            "nearest_training is for samples from nothing and measures distances of features: take "
            "the protocol unconditional and a feature network, or leave it out"
        )


def _held_out(data: DataSettings, options: Options, say: Say) -> Source:
    """The scenes to score; refuses data that are not whole and more scenes than there are."""
    source = pipeline.make_source(data, "eval")
    say(source.report.summary())
    if source.report.findings and not options.allow_left_out:
        raise ValueError(
            f"the data have {len(source.report.bad_scenes)} scenes and "
            f"{len(source.report.bad_frames)} frames that cannot be used, so the figures would be "
            "those of other data; mend them, allow it, or, where scenes have too few frames for "
            f"{data.context_views} + {data.target_views} views, ask for fewer target_views"
        )
    if options.num_scenes is not None and options.num_scenes > len(source):
        raise ValueError(
            f"num_scenes={options.num_scenes}, but the data hold out {len(source)} scenes; ask for "
            "no more, or leave it out for all of them"
        )
    return source


def _describe_angles(source: Source, data: DataSettings, degrees_apart: np.ndarray | None) -> str:
    """How far apart the encoded views of captures are, with a warning if the model knows others."""
    angles = []
    for index in range(len(source)):
        example = source[index]
        context, _ = assemble.choose_frames(source, example, data, index, rng=None)
        ends = example.world_from_cam[context[[0, -1]]]
        angles.append(neighbours.angles_deg(ends)[0, 1])
    angle = float(np.median(angles))
    text = f"encoded views {angle:.0f} degrees apart, median of {len(angles)} scenes"
    far = "" if degrees_apart is None else neighbours.too_far(angle, degrees_apart)
    return f"{text}\nwarning: {far}" if far else text


def _request(
    model: SceneModel,
    name: str,
    options: Options,
    source: Source,
    data: DataSettings,
    sampler: SamplerSettings | None,
) -> dict[str, Any]:
    """What the scores of a folder depend on, beside the networks that measure."""
    asked = dataclasses.asdict(options)
    for key in ("gallery", "nearest_training"):  # the scores do not depend on them
        del asked[key]
    return {
        "model": name,
        "parameters": encode_latents.parameter_hash((model.frozen.params, model.params)),
        **asked,
        "num_scenes": options.num_scenes or len(source),
        "target_views": data.target_views,
        "sampler": dataclasses.asdict(sampler) if sampler else None,
        "data": dataclasses.asdict(data),
    }


def _sampler(
    model: SceneModel, protocol: protocols.Protocol, options: Options
) -> SamplerSettings | None:
    """How samples are drawn; None where none are. Refuses options without effect."""
    if protocol.samples:
        asked = {"steps": options.steps, "guidance": options.guidance}
        if options.tell_class and not model.task.model.num_classes:
            raise ValueError("tell_class is for a model with classes; this one has none")
        if options.guidance is not None:
            asked["guidance_known"] = options.guidance
        sampler = dataclasses.replace(
            model.task.sampler, **{key: value for key, value in asked.items() if value is not None}
        )
        known = int(protocol.known_mask(model).sum())
        model.task.check_request(known, sampler.scales[known > 0], class_told=options.tell_class)
        return sampler
    idle = {"num_samples": 1, "steps": None, "guidance": None, "tell_class": False}
    for key, value in idle.items():
        if getattr(options, key) != value:
            raise ValueError(
                f"{key}={getattr(options, key)} has no effect on the protocol "
                f"{options.protocol}, which draws no samples; leave it out"
            )
    return None


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
    source: Source,
    data: DataSettings,
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
    batches = pipeline.eval_batches(source, data, batch_size=batch_size, num_scenes=count)
    for number, batch in enumerate(batches):
        if number in done:
            continue
        scored = scorer(batch)
        real = np.flatnonzero(batch["weight"] > 0)
        features = scored.features and tuple(values[real] for values in scored.features)
        kept.keep(number, [_record(source, batch, scored, i) for i in real.tolist()], features)
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
    scorer: scoring.Scorer,
    source: Source,
    data: DataSettings,
    batch_size: int,
    scenes: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs and the first sample again, uint8 [n, V + T, H, W, 3], of scenes by index."""
    cache, true, rendered = FrameCache(0), [], []
    for start in range(0, len(scenes), batch_size):
        part = list(scenes[start : start + batch_size])
        padded = part + part[-1:] * (batch_size - len(part))  # one shape: compiled already
        batch = pipeline.stack(
            [assemble.scene_entry(source, data, i, rng=None, cache=cache) for i in padded]
        )
        photographs = [batch[group]["images"] for group in ("context", "target")]
        true += list(np.concatenate(photographs, axis=1)[: len(part)])
        rendered += list(panels.to_uint8(scorer.render(batch, 0).rgb)[: len(part)])
    return np.stack(true), np.stack(rendered)
