"""Tables and pictures of an evaluation."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgs_jax import files
from lgs_jax.data.report import counted
from lgs_jax.inference import visuals
from lgs_jax.inference.evaluation.protocols import GROUPS
from lgs_jax.tasks import panels

_DIGITS = {"psnr": 2, "consistency_psnr": 2}
_ORDER = ("psnr", "ssim", "ssim_signed", "lpips")
_NEAREST = {
    "training_photographs": "training photographs looked at",
    "median_of_samples": "distance of samples to the nearest of them",
    "median_of_held_out": "the same of held-out photographs",
    "copying_z": "copying z (below -3: copies)",
}
_SHOWN = {
    "first": "one sample",
    "best": "best of K",
    "photograph": "nearest given photograph instead",
}
_TRAINED_ON = (
    "**These are scenes that the model was trained on, no held-out ones: they show what it has "
    "learnt, not what it makes of new scenes.**"
)
_TRAINED_ON_GROUPS = GROUPS | {"target": "views that are not encoded"}


def write(folder: pathlib.Path, results: Mapping[str, Any]) -> list[pathlib.Path]:
    """Writes results.md."""
    path = folder / "results.md"
    with files.replacing(path) as partial:
        partial.write_text(markdown(results))
    return [path]


def markdown(results: Mapping[str, Any]) -> str:
    """The figures as tables of Markdown."""
    request = results["request"]
    scenes, count = results["num_scenes"], request["num_samples"]
    trained_on = request["split"] == "train"
    titles = _TRAINED_ON_GROUPS if trained_on else GROUPS
    lines = [
        f"# {results['protocol']}{' of the training set' * trained_on}: {results['summary']}",
        "",
        *[_TRAINED_ON, ""][: 2 * trained_on],
        f"{request['model']}, {counted(scenes, 'scene')}"
        + (f" ({results['mixture']})" if results["mixture"] else "")
        + f", {counted(count, 'sample')} of each, "
        f"seed {request['seed']}; {results['views']}; data {results['data_sha256'][:16]}"
        + (f"; {results['left_out']} scenes or frames left out" if results["left_out"] else ""),
        "",
    ]
    if request["sampler"]:
        lines += [_sampler(request, known=results["protocol"] != "unconditional"), ""]
    scores = results["scores"]
    if scores:
        measures = [name for name in _ORDER if name in scores]
        lines += ["| views | shown | " + " | ".join(measures) + " |"]
        lines += ["| --- | --- |" + " --- |" * len(measures)]
        for group in next(iter(scores.values())):
            for kind in scores[measures[0]][group]:
                cells = [_figure(name, scores[name][group][kind]) for name in measures]
                lines += [f"| {titles[group]} | {_SHOWN[kind]} | " + " | ".join(cells) + " |"]
        lines += [""]
    lines += ["| measure | value |", "| --- | --- |"]
    lines += [f"| {name} | {_figure(name, value)} |" for name, value in results["scene"].items()]
    lines += [f"| {name} | {_distance(value)} |" for name, value in results["distances"].items()]
    for name, title in _NEAREST.items() if "nearest" in results else ():
        lines += [f"| {title} | {results['nearest'][name]:.4g} |"]
    if scenes > 1:
        lines += ["", "In brackets: 95 % intervals, by bootstrap over scenes."]
    lines += [""]
    return "\n".join(lines)


def _sampler(request: Mapping[str, Any], *, known: bool) -> str:
    """How samples were drawn; `known`: of scenes of which a view is known."""
    sampler = request["sampler"]

    def scale(name: str) -> float:
        own = sampler[f"{name}_known"] if known else None
        return sampler[name] if own is None else own

    parts = [f"{sampler['steps']} steps", f"guidance {scale('guidance')}"]
    if scale("autoguidance") != 1:
        parts.append(f"autoguidance {scale('autoguidance')}")
    if not known and sampler["truncation"] != 1:
        parts.append(f"truncation {sampler['truncation']}")
    if request["tell_class"]:
        parts.append("class told")
    return f"Sampler: {sampler['name']}, {', '.join(parts)}."


def choose(
    found: Sequence[Mapping[str, Any]], groups: Mapping[str, np.ndarray], count: int
) -> dict[int, str]:
    """Titles by position of the scenes to show: best, middle and worst by the PSNR of all views.

    Where nothing is compared with the truth, the first scenes.
    """
    if not found[0]["samples"]:
        return {i: found[i]["key"] for i in range(min(3 * count, len(found)))}
    psnr = np.array([np.mean(np.take(r["samples"][0]["psnr"], groups["all"])) for r in found])
    order = np.argsort(-psnr, kind="stable")
    middle = (len(order) - count) // 2
    places = {"best": order[:count], "middle": order[middle : middle + count]}
    places["worst"] = order[max(0, len(order) - count) :]
    shown: dict[int, str] = {}
    for kind, positions in places.items():
        for position in positions.tolist():
            shown.setdefault(position, f"{kind}, {psnr[position]:.1f} dB, {found[position]['key']}")
    return shown


def write_gallery(
    folder: pathlib.Path, rows: Sequence[tuple[str, np.ndarray, np.ndarray]]
) -> pathlib.Path:
    """Writes gallery.png: true images of each scene above rendered ones, uint8 [N, H, W, 3]."""
    table, titles = [], []
    for title, true, rendered in rows:
        table += [list(true), list(rendered)]
        titles += [title, "rendered"]
    picture = panels.grid(table, row_titles=titles)
    return visuals.write_visuals(folder, {"gallery": picture})[0]


def _figure(name: str, value: Mapping[str, float]) -> str:
    """mean [low, high]; of one scene, which has no interval, the value alone."""
    digits = _DIGITS.get(name, 4)
    if np.isnan(value["mean"]):
        return "none"
    mean, low, high = (f"{value[end]:.{digits}f}" for end in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]" if value["count"] > 1 else mean


def _distance(value: float | Mapping[str, float]) -> str:
    """A number, or mean [low, high]."""
    if not isinstance(value, Mapping):
        return f"{value:.4g}"
    return f"{value['mean']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
