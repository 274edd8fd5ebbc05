"""Experiments: the same training in several cases and seeds, and one table of what came out.

An experiment is a file `configs/experiments/<name>.py` with a function `get_experiment()` that
returns the arguments of `Experiment`. Every case of every seed goes through the stages in order, in
a workdir of its own, as `python -m lgs_jax.main` would; what is finished is not done again.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lgs_jax import settings
from lgs_jax.inference import experiment_costs
from lgs_jax.training import logging, preemption

FOLDER = pathlib.Path("configs/experiments")
RESULTS = "results.json"
_POLL_SECONDS = 0.2
# A flag of the configuration: its key, and its value unless that is the next argument.
_FLAG = re.compile(r"--(?P<no>no)?config\.(?P<key>[^=]+)(=(?P<value>.*))?", re.DOTALL)


class ExperimentError(RuntimeError):
    """An experiment is not as it should be, or one of its trainings failed."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is compared.

    Attributes:
      title: of the table.
      question: what it is to answer, in a sentence or two.
      stages: by name, in order: {"config": file, "set": {key of the configuration: value}}. A stage
        whose configuration has the task `diffusion` is given the workdir of the stage `vae`.
      cases: by name: for each stage the keys that differ.
      seeds: every case is trained with each.
      columns: by title: "<stage>:<group>/<name>" of the stage's results.json, such as
        "vae:eval/target_psnr", or one of `experiment_costs.MEASURES`, such as "sampling_s", the
        seconds that one scene takes.
      rank: the column that orders the cases; "-" before it where less is better.
      baseline: the case that the others are compared with in `rank`, seed by seed; None: none.
      plot: (column for x, column for y) of the picture; None: none.
    """

    title: str
    question: str
    stages: Mapping[str, Mapping[str, Any]]
    cases: Mapping[str, Mapping[str, Mapping[str, Any]]]
    columns: Mapping[str, str]
    rank: str
    seeds: Sequence[int] = (0, 1)
    baseline: str | None = None
    plot: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        for case, changes in self.cases.items():
            if unknown := sorted(set(changes) - set(self.stages)):
                raise ExperimentError(
                    f"case {case!r} changes the stage {unknown[0]!r}; the stages are "
                    f"{', '.join(self.stages)}"
                )
        wanted = [self.rank.removeprefix("-"), *(self.plot or ())]
        if missing := [name for name in wanted if name not in self.columns]:
            raise ExperimentError(
                f"{missing[0]!r} is no column; the columns are {', '.join(self.columns)}"
            )
        if self.baseline is not None and self.baseline not in self.cases:
            raise ExperimentError(
                f"baseline {self.baseline!r} is no case; the cases are {', '.join(self.cases)}"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ExperimentError(f"seeds are {list(self.seeds)}; expected some, each once")
        for title, source in self.columns.items():
            if source in experiment_costs.MEASURES:
                continue
            if source.partition(":")[0] not in self.stages:
                raise ExperimentError(
                    f"column {title!r} is {source!r}; expected <stage>:<group>/<name>, with a "
                    f"stage of {', '.join(self.stages)}, or one of "
                    f"{', '.join(experiment_costs.MEASURES)}"
                )


def load(name: str) -> Experiment:
    """The experiment of a name, of configs/experiments here or in the package, or of a path.

    Raises:
      ExperimentError: if there is none, or it is not as `Experiment` expects.
    """
    path = pathlib.Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    path = pathlib.Path(settings.packaged(path))
    if not path.exists():
        folder = pathlib.Path(settings.packaged(FOLDER))
        known = sorted(file.stem for file in folder.glob("*.py"))
        where = f"{FOLDER} has {', '.join(known)}" if known else f"there is no {FOLDER} here"
        raise ExperimentError(f"there is no experiment {path}; {where}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_experiment"):
        raise ExperimentError(
            f"{path} has no function get_experiment(); give a file such as those of {FOLDER}"
        )
    try:
        return settings.build(Experiment, module.get_experiment(), str(path))
    except settings.SettingsError as error:
        raise ExperimentError(str(error)) from error


def run(
    experiment: Experiment,
    folder: pathlib.Path,
    *,
    only: Sequence[str] = (),
    jobs: int = 1,
    extra: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> dict[str, list[dict[str, Any]]]:
    """Trains what is missing; returns the values of all columns for each case, seed by seed.

    Args:
      experiment: what to do.
      folder: holds `<case>/seed<seed>/<stage>` of every training, or `shared/...` where the case
        changes nothing up to that stage.
      only: names of cases; empty: all.
      jobs: trainings at a time, each with its own part of the CPU's cores.
      extra: further flags of every training, such as "--config.training.num_steps=10"; they win
        over those of the stage and the case.
      say: told what happens.

    Raises:
      ExperimentError: if a case is not known, there are more jobs than cores, or a training fails;
        others that run at that moment save and leave; or if what is kept in `folder` was trained
        with other values.
    """
    if unknown := sorted(set(only) - set(experiment.cases)):
        raise ExperimentError(
            f"no case {unknown[0]!r}; the cases are {', '.join(experiment.cases)}"
        )
    cases = [case for case in experiment.cases if not only or case in only]
    _train_all(_trainings(experiment, folder, cases), _shares_of_cores(jobs), extra, say)
    first, last = experiment.seeds[0], list(experiment.stages)[-1]
    models = {case: _place(experiment, folder, case, first, last) for case in cases}
    asked = [name for name in experiment_costs.MEASURES if name in experiment.columns.values()]
    costs = experiment_costs.take(asked, models, folder, say)
    return {
        case: [_values(experiment, folder, case, seed, costs) for seed in experiment.seeds]
        for case in cases
    }


@dataclasses.dataclass(frozen=True)
class _Training:
    """A stage of a case with a seed: its workdir, flags, and the workdir of the stage before it."""

    name: str
    where: pathlib.Path
    flags: Sequence[str]
    before: pathlib.Path | None

    @property
    def ready(self) -> bool:
        return self.before is None or _done(self.before)


def _done(where: pathlib.Path) -> bool:
    return (where / RESULTS).exists()


def _check_kept(training: _Training, extra: Sequence[str]) -> None:
    """Raises if results that are there were trained with other values than are asked for now."""
    if not _done(training.where):
        return
    config = json.loads((training.where / RESULTS).read_text()).get("config", {})
    for key, text in _values_of_flags([*training.flags, *extra]).items():
        if key == "autoencoder":
            continue  # a folder, which may have been moved
        found = functools.reduce(lambda node, part: (node or {}).get(part), key.split("."), config)
        if not _same(found, text):
            raise ExperimentError(
                f"{training.where} was trained with {key} = {found} and --config.{key}={text} asks "
                "for another; take another --output, or delete it to train it anew"
            )


def _values_of_flags(arguments: Sequence[str]) -> dict[str, str]:
    """The text of each key of the configuration, the last one given, as in the training."""
    values = {}
    for argument, following in zip(arguments, [*arguments[1:], "--"]):
        if found := _FLAG.fullmatch(argument):
            switch = "false" if found["no"] else "true" if following.startswith("--") else following
            values[found["key"]] = switch if found["value"] is None else found["value"]
    return values


def _same(value: Any, text: str) -> bool:
    """Whether the text of a flag means a value of a JSON file."""
    try:
        wanted = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return str(value).lower() == text.lower()  # a string, or true and false
    return value == (list(wanted) if isinstance(wanted, tuple) else wanted)


def _trainings(
    experiment: Experiment, folder: pathlib.Path, cases: Sequence[str]
) -> list[_Training]:
    """All of them, those that cases share once, in the order in which they are started."""
    found: dict[pathlib.Path, _Training] = {}
    for seed in experiment.seeds:
        for case in cases:
            before = None
            for stage in experiment.stages:
                where = _place(experiment, folder, case, seed, stage)
                flags = _flags(experiment, folder, case, seed, stage)
                training = _Training(f"{case}, seed {seed}: {stage}", where, flags, before)
                found.setdefault(where, training)
                before = where
    return list(found.values())


def _shares_of_cores(jobs: int) -> list[list[int] | None]:
    """For each job the cores that it may use; None: those that this process may use.

    Small trainings fill one core better than several: two with a core each get about 1.3 times as
    much done as one after the other with both (docs/evaluation.md).
    """
    can_choose = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if can_choose else range(os.cpu_count() or 1)
    if not 1 <= jobs <= len(cores):
        raise ExperimentError(f"jobs is {jobs}; expected 1 to {len(cores)}, the cores there are")
    if jobs == 1 or not can_choose:
        return [None] * jobs
    return [part.tolist() for part in np.array_split(cores, jobs)]


def _train_all(
    trainings: Sequence[_Training],
    free: list[list[int] | None],
    extra: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Runs what is not done, as many at a time as there are free shares of cores."""
    for training in trainings:
        _check_kept(training, extra)
    waiting = [training for training in trainings if not _done(training.where)]
    running: dict[pathlib.Path, tuple[subprocess.Popen, list[int] | None]] = {}
    total, began = len(waiting), time.monotonic()
    try:
        while waiting or running:
            for training in [each for each in waiting if each.ready][: len(free)]:
                waiting.remove(training)
                started = total - len(waiting)
                finished = started - 1 - len(running)
                say(f"{_progress(started, finished, total, began)} {training.name}")
                cores = free.pop()
                process = _start(training.flags, training.where, extra, cores)
                running[training.where] = process, cores
            time.sleep(_POLL_SECONDS)
            for where, (process, cores) in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[where]
                    free.append(cores)
                    _check(status, where)
    finally:
        # Nothing runs any more unless one failed or somebody stopped this: the others save first.
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def _progress(started: int, finished: int, total: int, began: float) -> str:
    """Which training, for how long, and for how much longer if all take the same time."""
    seconds = time.monotonic() - began
    ending = (
        f", ETA {logging.duration(seconds / finished * (total - finished))}" if finished else ""
    )
    return f"[{started} of {total}, {logging.duration(seconds)}{ending}]"


def _place(
    experiment: Experiment, folder: pathlib.Path, case: str, seed: int, stage: str
) -> pathlib.Path:
    """The workdir of a training; cases that do not differ up to a stage share it."""
    stages = list(experiment.stages)
    so_far = stages[: stages.index(stage) + 1]
    name = case if any(experiment.cases[case].get(each) for each in so_far) else "shared"
    plain = "".join(letter if letter.isalnum() else "_" for letter in name)
    return folder / plain / f"seed{seed}" / stage


def _flags(
    experiment: Experiment, folder: pathlib.Path, case: str, seed: int, stage: str
) -> list[str]:
    """The flags of one training."""
    about = experiment.stages[stage]
    changes = {**about.get("set", {}), **experiment.cases[case].get(stage, {})}
    flags = [f"--config={about['config']}", f"--config.seed={seed}"]
    if "vae" in experiment.stages and stage != "vae":
        flags.append(f"--config.autoencoder={_place(experiment, folder, case, seed, 'vae')}")
    return flags + [f"--config.{key}={value}" for key, value in changes.items()]


def _start(
    flags: Sequence[str], where: pathlib.Path, extra: Sequence[str], cores: list[int] | None
) -> subprocess.Popen:
    """Starts one training; its output goes into a file beside its workdir."""
    where.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lgs_jax.main", f"--workdir={where}", *flags, *extra]
    with _log(where).open("a") as output, _on(cores):
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


@contextlib.contextmanager
def _on(cores: list[int] | None) -> Iterator[None]:
    """What this thread starts in the block has these cores; None: those of this thread."""
    before = os.sched_getaffinity(0) if cores else None
    try:
        if cores:
            os.sched_setaffinity(0, cores)
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


def _log(where: pathlib.Path) -> pathlib.Path:
    return where.with_suffix(".log")


def _check(status: int, where: pathlib.Path) -> None:
    """Raises unless the training came to its end."""
    if status == preemption.EXIT_STATUS:
        raise KeyboardInterrupt
    if status:
        last = _log(where).read_text().strip().splitlines()[-1:]
        raise ExperimentError(
            f"a training failed with status {status}; see {_log(where)}: {' '.join(last)}"
        )


def _values(
    experiment: Experiment,
    folder: pathlib.Path,
    case: str,
    seed: int,
    costs: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """The columns of a case and seed; what is measured of the cases is in `costs`."""
    found = {}
    for title, source in experiment.columns.items():
        if source in costs:
            found[title] = costs[source][case]
            continue
        stage, _, key = source.partition(":")
        path = _place(experiment, folder, case, seed, stage) / RESULTS
        value = json.loads(path.read_text())
        for part in key.split("/"):
            if not isinstance(value, Mapping) or part not in value:
                raise ExperimentError(f"{path} has no {key}, which column {title!r} asks for")
            value = value[part]
        found[title] = math.nan if value is None else float(value)
    return found
