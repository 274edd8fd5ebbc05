"""Experiments: the same training in several cases and seeds, and one table of what came out.

An experiment is a file `configs/experiments/<name>.py` with a function `get_experiment()` that
returns the arguments of `Experiment`. Every case of every seed goes through the stages in order, in
a workdir of its own, as `python -m lgs_jax.main` would; what is finished is not done again.
"""

import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax import settings
from lgs_jax.core.cameras import Cameras
from lgs_jax.inference import scene_model
from lgs_jax.inference.scene_model import SceneModel
from lgs_jax.tasks import denoising
from lgs_jax.training import preemption

FOLDER = pathlib.Path("configs/experiments")
SAMPLING = "sampling_s"
RESULTS = "results.json"
_REPEATS = 5


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
        "vae:eval/target_psnr", or `SAMPLING` for the seconds that one scene takes.
      rank: the column that orders the cases; "-" before it where less is better.
      plot: (column for x, column for y) of the picture; None: none.
    """

    title: str
    question: str
    stages: Mapping[str, Mapping[str, Any]]
    cases: Mapping[str, Mapping[str, Mapping[str, Any]]]
    columns: Mapping[str, str]
    rank: str
    seeds: Sequence[int] = (0, 1)
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
        for title, source in self.columns.items():
            if source != SAMPLING and source.partition(":")[0] not in self.stages:
                raise ExperimentError(
                    f"column {title!r} is {source!r}; expected {SAMPLING} or "
                    f"<stage>:<group>/<name>, with a stage of {', '.join(self.stages)}"
                )


def load(name: str) -> Experiment:
    """The experiment of a name, of the folder configs/experiments here, or of a path.

    Raises:
      ExperimentError: if there is none, or it is not as `Experiment` expects.
    """
    path = pathlib.Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    if not path.exists():
        known = sorted(file.stem for file in FOLDER.glob("*.py"))
        where = f"{FOLDER} has {', '.join(known)}" if known else f"there is no {FOLDER} here"
        raise ExperimentError(f"there is no experiment {path}; {where}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return settings.build(Experiment, module.get_experiment(), str(path))
    except settings.SettingsError as error:
        raise ExperimentError(str(error)) from error


def run(
    experiment: Experiment,
    folder: pathlib.Path,
    *,
    only: Sequence[str] = (),
    extra: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> dict[str, list[dict[str, Any]]]:
    """Trains what is missing; returns the values of all columns for each case, seed by seed.

    Args:
      experiment: what to do.
      folder: holds `<case>/seed<seed>/<stage>` of every training, or `shared/...` where the case
        changes nothing up to that stage.
      only: names of cases; empty: all.
      extra: further flags of every training, such as "--config.training.num_steps=10".
      say: told what happens.

    Raises:
      ExperimentError: if a case is not known, or a training fails.
    """
    if unknown := sorted(set(only) - set(experiment.cases)):
        raise ExperimentError(
            f"no case {unknown[0]!r}; the cases are {', '.join(experiment.cases)}"
        )
    cases = [case for case in experiment.cases if not only or case in only]
    todo = [(seed, case) for seed in experiment.seeds for case in cases]
    began = time.monotonic()
    for number, (seed, case) in enumerate(todo):
        for stage in experiment.stages:
            where = _place(experiment, folder, case, seed, stage)
            if (where / RESULTS).exists():
                continue
            minutes = (time.monotonic() - began) / 60
            say(f"[{number + 1} of {len(todo)}, {minutes:.0f} min] {case}, seed {seed}: {stage}")
            _train(_flags(experiment, folder, case, seed, stage), where, extra)
    times = {}
    if SAMPLING in experiment.columns.values():
        last = list(experiment.stages)[-1]
        models = {
            case: scene_model.load(_place(experiment, folder, case, experiment.seeds[0], last))
            for case in cases
        }
        times = _sampling_times(models, say)
    return {
        case: [
            _values(experiment, folder, case, seed) | _timed(experiment, times.get(case))
            for seed in experiment.seeds
        ]
        for case in cases
    }


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


def _train(flags: Sequence[str], where: pathlib.Path, extra: Sequence[str]) -> None:
    """Runs one training to its end; its output goes into a file beside its workdir."""
    where.parent.mkdir(parents=True, exist_ok=True)
    log = where.with_suffix(".log")
    command = [sys.executable, "-m", "lgs_jax.main", f"--workdir={where}", *flags, *extra]
    with log.open("a") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if status == preemption.EXIT_STATUS:
        raise KeyboardInterrupt
    if status:
        last = log.read_text().strip().splitlines()[-1:]
        raise ExperimentError(
            f"a training failed with status {status}; see {log}: {' '.join(last)}"
        )


def _values(experiment: Experiment, folder: pathlib.Path, case: str, seed: int) -> dict[str, float]:
    """The columns that come from files."""
    found = {}
    for title, source in experiment.columns.items():
        if source == SAMPLING:
            continue
        stage, _, key = source.partition(":")
        path = _place(experiment, folder, case, seed, stage) / RESULTS
        value = json.loads(path.read_text())
        for part in key.split("/"):
            if not isinstance(value, Mapping) or part not in value:
                raise ExperimentError(f"{path} has no {key}, which column {title!r} asks for")
            value = value[part]
        found[title] = float(value)
    return found


def _timed(experiment: Experiment, seconds: float | None) -> dict[str, float]:
    return {title: seconds for title, source in experiment.columns.items() if source == SAMPLING}


def _sampling_times(
    models: Mapping[str, SceneModel], say: Callable[[str], None]
) -> dict[str, float]:
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
    cameras = denoising.example_cameras(model.num_views, model.image_size)[0]
    poses = cameras.world_from_cam.at[:, 0, 3].set(jnp.arange(model.num_views, dtype=jnp.float32))
    return dataclasses.replace(cameras, world_from_cam=poses)
