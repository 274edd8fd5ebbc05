"""What a run says while it runs, and what it leaves to be read.

metrics.jsonl   one line per logged step; a function of the configuration alone, so that a resumed
                run leaves the same file as an uninterrupted one
timings.jsonl   speed and where the time went, of every start of the run; only ever added to
train.log       what the terminal showed, and the lines that it had no time for; with timings
tensorboard/    the same scalars, with timings
results.json    the last evaluation, times, versions, device, configuration
"""

import contextlib
import json
import math
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import tensorboardX

import lgs_jax
from lgs_jax import files

# A terminal line that nobody has time to read helps nobody.
_SECONDS_BETWEEN_LINES = 2.0
_MEDIAN = "step_seconds_p50"


class RunLog:
    """Writes the log of a run; the processes other than the first write nothing.

    Args:
      workdir: where the files go; it must exist.
      start_step: the step from which the run goes on; later lines of a former attempt are dropped.
      tensorboard: whether to write TensorBoard events too.
      primary: whether this process is the one that writes.
    """

    def __init__(
        self, workdir: pathlib.Path, *, start_step: int, tensorboard: bool, primary: bool = True
    ):
        self.workdir = workdir
        self._primary = primary
        self._last_line = -math.inf
        self._board = None
        self._metrics = workdir / "metrics.jsonl"
        self._lines = _keep_lines(self._metrics, start_step, rewrite=primary)
        timings = workdir / "timings.jsonl"
        before = _keep_lines(timings, math.inf, rewrite=primary)
        self._before = time_before(before, start_step)
        self._step_seconds = [line[_MEDIAN] for line in before if _MEDIAN in line]
        if primary:
            self._timings = timings.open("a")
            self._text = (workdir / "train.log").open("a")
            self._json = self._metrics.open("a")
            if tensorboard:
                self._board = tensorboardX.SummaryWriter(
                    str(workdir / "tensorboard"), purge_step=start_step + 1
                )

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        opened = [self._text, self._json, self._timings] if self._primary else []
        for each in opened if self._board is None else [*opened, self._board]:
            # On a full disk every file fails again, with what it has not yet written.
            with contextlib.suppress(*[OSError] if kind else []):
                each.close()

    def say(self, text: str) -> None:
        """Prints a message and keeps it in train.log."""
        if self._primary:
            print(text, flush=True)
            self._write_text(text)

    def note(self, text: str) -> None:
        """Keeps a message in train.log, if the disk has room for it; another will print it."""
        if self._primary:
            with contextlib.suppress(OSError):
                self._write_text(text)

    def write(self, kind: str, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Adds a line to metrics.jsonl and TensorBoard; `kind` is "train" or "eval".

        Values that are not finite are written as null: JSON has no NaN.
        """
        values = {name: float(value) for name, value in metrics.items()}
        line = {"step": step, "kind": kind}
        line |= {name: x if math.isfinite(x) else None for name, x in values.items()}
        self._lines.append(line)
        if self._primary:
            self._json.write(json.dumps(line, allow_nan=False) + "\n")
            self._json.flush()
        self.scalars(kind, step, values)
        return values

    def write_time(
        self, kind: str, step: int, seconds: Mapping[str, float], rates: Mapping[str, float]
    ) -> dict[str, float]:
        """Adds a line to timings.jsonl, and the rates to TensorBoard.

        Args:
          kind: "start", "train" or "end".
          step: how many are done.
          seconds: spent in each phase since this start of the run.
          rates: of the latest steps.

        Returns:
          the rates and the goodput of the whole run: the share of the time in which its processes
          were there that went into steps which were not lost. Lost are those that a restart had to
          repeat; not training are compilation, evaluation, saving, starting, and waits for data.
        """
        whole = add_times(self._before, seconds)
        values = {**rates, "goodput": whole["train"] / sum(whole.values())}
        line = {"step": step, "kind": kind, "time": time.time(), **values, "seconds": seconds}
        if self._primary:
            self._timings.write(json.dumps(line) + "\n")
            self._timings.flush()
        self.scalars("time", step, values)
        self._step_seconds += [rates[_MEDIAN]] if _MEDIAN in rates else []
        return values

    def step_seconds(self) -> float | None:
        """What a step takes: the median of the logged medians, over all starts; None: too few."""
        return float(np.median(self._step_seconds)) if self._step_seconds else None

    def spent(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Seconds in each phase over all starts of the run; `seconds` are those since this one."""
        return add_times(self._before, seconds)

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars to TensorBoard only: timings, which no two runs share."""
        if self._board is not None:
            # Fails here on a full disk; else its thread would fail, and the next call would hang.
            self._board.flush()
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def progress(self, text: str) -> None:
        """Keeps a line in train.log and prints it unless another was printed a moment ago."""
        if not self._primary:
            return
        self._write_text(text)
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(text, flush=True)

    def last(self, kind: str, step: int | None = None) -> dict[str, Any] | None:
        """The newest line of a kind, of that step if one is given; None if there is none."""
        for line in reversed(self._lines):
            if line["kind"] == kind and step in (None, line["step"]):
                return {k: v for k, v in line.items() if k not in ("step", "kind")}
        return None

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes results.json."""
        if self._primary:
            files.write_json(self.workdir / "results.json", dict(results))

    def _write_text(self, text: str) -> None:
        self._text.write(text + "\n")
        self._text.flush()


def progress_line(
    step: int, num_steps: int, metrics: Mapping[str, float], rates: Mapping[str, float]
) -> str:
    """One line for a person: step, loss, speed, time to go, and troubles if there are any."""
    parts = [f"step {step:>{len(str(num_steps))}}/{num_steps}", f"loss {metrics['loss']:.4g}"]
    if "steps_per_second" in rates:
        parts += [
            f"{rates['steps_per_second']:.3g} steps/s",
            "p50/90/99 "
            + "/".join(f"{rates[f'step_seconds_p{p}']:.2g}" for p in (50, 90, 99))
            + " s",
            f"{rates['images_per_second']:.3g} images/s",
            f"MFU {rates['mfu']:.1%}"
            if "mfu" in rates
            else f"{rates['tflops_per_second']:.2g} TFLOP/s",
            f"data wait {rates['data_wait_share']:.0%}",
            f"goodput {rates['goodput']:.0%}",
            f"ETA {duration(rates['seconds_left'])}",
        ]
    if metrics["nonfinite_steps"]:
        parts.append(f"skipped {metrics['nonfinite_steps']:.0f} steps (not finite)")
    if metrics["overflow_steps"]:
        parts.append(f"overflow in {metrics['overflow_steps']:.0f} steps")
    return " | ".join(parts)


def time_before(lines: Sequence[Mapping[str, Any]], start_step: int) -> dict[str, float]:
    """Seconds in each phase over the former starts of a run, from its timings.jsonl.

    What they trained beyond the step from which it went on (`start_step` for the last of them) is
    taken from "train" and called "lost". What a killed process did after its last line is unknown.
    """
    starts = [i for i, line in enumerate(lines) if line["kind"] == "start"]
    total: dict[str, float] = {}
    kept = start_step
    for first, end in reversed(list(zip(starts, [*starts[1:], len(lines)]))):
        attempt = lines[first:end]
        seconds = dict(attempt[-1]["seconds"])
        reached = [line["step"] for line in attempt]
        trained = [line["seconds"]["train"] for line in attempt]
        seconds["lost"] = seconds["train"] - float(np.interp(kept, reached, trained))
        seconds["train"] -= seconds["lost"]
        total = add_times(total, seconds)
        kept = min(kept, attempt[0]["step"])
    return total


def add_times(one: Mapping[str, float], two: Mapping[str, float]) -> dict[str, float]:
    """The sums, name by name."""
    return {name: one.get(name, 0.0) + two.get(name, 0.0) for name in {**one, **two}}


def time_line(seconds: Mapping[str, float]) -> str:
    """One line for a person: where the time of a run went, the largest part first."""
    total = sum(seconds.values())
    parts = sorted(seconds.items(), key=lambda item: -item[1])
    shown = (f"{name} {part / total:.1%}" for name, part in parts if part > 0.0005 * total)
    return f"time {duration(total)}: {', '.join(shown)}"


def duration(seconds: float) -> str:
    """3661 -> 1:01:01."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def environment() -> dict[str, Any]:
    """Versions and devices, for results.json and checkpoints."""
    device = jax.devices()[0]
    return {
        "versions": {
            "python": platform.python_version(),
            "lgs_jax": lgs_jax.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
            "orbax": ocp.__version__,
            "numpy": np.__version__,
        },
        "device": device.device_kind,
        "platform": device.platform,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
    }


def _keep_lines(path: pathlib.Path, last_step: float, *, rewrite: bool) -> list[dict[str, Any]]:
    """The lines up to a step; later ones are dropped from the file too.

    A line that a kill has cut short can only be the last: it belongs to a step that was not saved.
    """
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines(keepends=True):
        if not text.endswith("\n"):
            break
        line = json.loads(text)
        if line["step"] <= last_step:
            lines.append(line)
    if rewrite:
        with files.replacing(path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines
