"""python -m lgs_jax experiments NAME: trains the cases of an experiment and compares them.

NAME is a file of configs/experiments, such as `compression`, or a path. Every case is trained with
every seed; what is finished is not done again, so the same command goes on where it was stopped.
Writes table.md, values.json and plot.png. Flags after `--` go to every training and win over the
experiment's own.

  python -m lgs_jax experiments compression --output=runs/compression --jobs=2
  python -m lgs_jax experiments diffusion --output=runs/short -- --config.training.num_steps=200
"""

import argparse
import dataclasses
import pathlib
import signal

from lgs_jax import files
from lgs_jax.cli import reporting
from lgs_jax.inference import experiment, experiment_report
from lgs_jax.training import checkpoint, compilation_cache


def main(arguments: list[str]) -> int:
    """Trains, compares; returns the exit status."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_args(arguments[:split])
    # Ended like Ctrl-C, so that the trainings save and do not go on alone.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(options, arguments[split + 1 :])
    except (
        experiment.ExperimentError,
        experiment_report.MissingPlotError,
        checkpoint.CheckpointError,
        ValueError,
        OSError,
    ) as error:
        return reporting.fail(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def run(options: argparse.Namespace, extra: list[str]) -> None:
    """Runs the experiment and prints its table."""
    chosen = experiment.load(options.name)
    if options.seeds is not None:
        chosen = dataclasses.replace(chosen, seeds=tuple(options.seeds))
    name = pathlib.Path(options.name).stem
    folder = files.local(options.output or f"runs/{name}", "--output")
    compilation_cache.enable()
    values = experiment.run(
        chosen,
        folder,
        only=options.only,
        jobs=options.jobs,
        extra=extra,
        say=lambda text: print(text, flush=True),
    )
    for path in experiment_report.write(chosen, folder, values):
        print(path)
    print("\n" + (folder / "table.md").read_text())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="of configs/experiments, or a path")
    add("--output", help="folder of the runs and the table; default: runs/NAME")
    add(
        "--only",
        nargs="+",
        metavar="CASE",
        default=[],
        help="these cases alone; where one has no times yet, those of all of these are taken in "
        "one run, as others do not compare",
    )
    add("--seeds", nargs="+", type=int, metavar="N", help="in place of the experiment's")
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="trainings at a time, each on its own part of the CPU's cores; default: 1",
    )
    return parser
