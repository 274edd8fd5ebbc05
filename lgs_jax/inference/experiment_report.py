"""The table and the picture of an experiment."""

import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgs_jax import files
from lgs_jax.inference.experiment import Experiment

Values = Mapping[str, Sequence[Mapping[str, float]]]

_DIGITS = 4


class MissingPlotError(ImportError):
    """The package that draws is not installed."""


def write(experiment: Experiment, folder: pathlib.Path, values: Values) -> list[pathlib.Path]:
    """Writes values.json, table.md and, where the experiment asks for it, plot.png.

    Args:
      experiment: what was done.
      folder: where to.
      values: of all columns for each case, seed by seed.

    Raises:
      MissingPlotError: if there is a plot to draw and no matplotlib; the others are written.
    """
    paths = [folder / "values.json", folder / "table.md"]
    files.write_json(paths[0], {"seeds": list(experiment.seeds), "values": values})
    with files.replacing(paths[1]) as partial:
        partial.write_text(table(experiment, values))
    if experiment.plot:
        paths.append(plot(experiment, values, folder / "plot.png"))
    return paths


def table(experiment: Experiment, values: Values) -> str:
    """Means over the seeds and their range, and whether the seeds agree about the order."""
    columns, base = list(experiment.columns), experiment.baseline
    rank = experiment.rank.removeprefix("-")
    compared = base in values
    titles = ["case", *columns, *([f"{rank} more than {base}"] if compared else [])]
    lines = [f"# {experiment.title}", "", experiment.question, "", _row(titles)]
    lines += [_row(["---"] * len(titles))]
    for case, seeds in values.items():
        cells = [_cell([seed[column] for seed in seeds]) for column in columns]
        if compared:
            pairs = zip(seeds, values[base], strict=True)
            differences = [f"{seed[rank] - own[rank]:+.{_DIGITS - 1}g}" for seed, own in pairs]
            cells.append("" if case == base else " / ".join(differences))
        lines += [_row([case, *cells])]
    seeds = ", ".join(map(str, experiment.seeds))
    several = len(experiment.seeds) > 1
    what = f"Means over the seeds {seeds}, ± half of their range." if several else f"Seed {seeds}."
    lines += ["", f"{what} Differences seed by seed." if compared and several else what]
    return "\n".join([*lines, "", order(experiment, values)]) + "\n"


def order(experiment: Experiment, values: Values) -> str:
    """The order of the cases by `rank`, and whether it is the same for every seed."""
    column, sign = experiment.rank.removeprefix("-"), -1 if experiment.rank[0] == "-" else 1
    per_seed = [
        sorted(values, key=lambda case, seed=seed: -sign * values[case][seed][column])
        for seed in range(len(experiment.seeds))
    ]
    mean = {case: np.mean([seed[column] for seed in seeds]) for case, seeds in values.items()}
    best_first = sorted(values, key=lambda case: -sign * mean[case])
    text = f"Order by {column}, best first: {', '.join(best_first)}. "
    if len(per_seed) == 1:
        return text + "One seed only: nothing is known about its stability."
    if all(found == per_seed[0] for found in per_seed):
        return text + f"The same for each of the {len(per_seed)} seeds."
    spread = max(np.ptp([seed[column] for seed in seeds]) for seeds in values.values())
    pairs = list(itertools.combinations(best_first, 2))
    unsure = [
        f"{a} and {b}"
        for a, b in pairs
        if len({found.index(a) > found.index(b) for found in per_seed}) > 1
    ]
    return text + (
        f"The seeds disagree about {len(unsure)} of {len(pairs)} pairs: {'; '.join(unsure)}. Seeds "
        f"of a case differ by up to {spread:.{_DIGITS}g}."
    )


def plot(experiment: Experiment, values: Values, path: pathlib.Path) -> pathlib.Path:
    """One point for each case and seed, joined and named by the case.

    Raises:
      MissingPlotError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPlotError(
            "the plot needs matplotlib (pip install 'lgs_jax[experiments]'); the table does not"
        ) from error
    x, y = experiment.plot
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for case, seeds in values.items():
        points = np.array([[seed[x], seed[y]] for seed in seeds])
        (drawn,) = axes.plot(*points.T, "o-", markersize=4, linewidth=1)
        axes.annotate(
            case,
            points.mean(axis=0),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8,
            color=drawn.get_color(),
        )
    axes.set(xlabel=x, ylabel=y, title=experiment.title)
    axes.margins(x=0.12)  # room for the names
    axes.grid(alpha=0.3)
    with files.replacing(path) as partial:
        figure.savefig(partial, dpi=120)
    return path


def read(folder: pathlib.Path) -> Any:
    """What `write` has kept of the values."""
    return json.loads((folder / "values.json").read_text())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.{_DIGITS}g}"
    return mean if np.ptp(values) == 0 else f"{mean} ± {np.ptp(values) / 2:.1g}"
