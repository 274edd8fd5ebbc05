"""How fast a run is, how much of the devices it uses, and traces that show why.

All of it is seen from the host, without making the loop wait: a thread of its own waits for each
step's loss and notes the time. docs/profiling.md says what every number means.
"""

import contextlib
import math
import pathlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from lgs_jax.settings import SettingsError
from lgs_jax.training import watchdog

# Steps that may have been handed to the devices and not be done: enough that they never run dry,
# few enough that the batches that wait on them take no memory to speak of.
RUN_AHEAD = 2

# Dense bfloat16 matrix products, FLOP/s of what JAX calls one device, by the beginning of its
# `device_kind`; the longest that fits counts. TPUs: cloud.google.com/tpu/docs, the page of each
# version ("peak compute per chip"). GPUs: NVIDIA's data sheets of A100, H100, H200 and (HGX) B200;
# where they give the figure with sparsity, half of it.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v6": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA B200": 2250e12,
}

Windows = tuple[tuple[int, int], ...]


class Throughput:
    """Rates and times of the steps since the last report.

    A step's time reaches from the end of the step before (or of the evaluation or save in between)
    to its own end, so that waiting for data is in it. The first step of a process is left out: it
    loads programs and allocates memory.

    Args:
      phases: of the run; each finished step is reported to it, waiting for data is read from it.
      num_steps: of the whole run.
      scenes: per step.
      images: views of a scene that the step sees.
      devices: how many there are, and their kind.
    """

    def __init__(
        self,
        phases: watchdog.Phases,
        *,
        num_steps: int,
        scenes: int,
        images: int,
        devices: tuple[int, str] = (1, ""),
    ):
        self._phases = phases
        self._num_steps = num_steps
        self._scenes = scenes
        self._images = images
        self._flops = 0.0
        self._peak = devices[0] * (peak_flops(devices[1]) or math.nan)
        self._free = threading.Semaphore(RUN_AHEAD)
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._times: queue.SimpleQueue = queue.SimpleQueue()
        self._dispatched = 0
        self._finished = (0, -math.inf)  # how many, when the last
        self._waited = 0.0
        threading.Thread(target=self._observe, name="steps", daemon=True).start()

    def begin(self, flops: float) -> None:
        """The step is compiled, steps follow; before, nothing was a wait that counts.

        Args:
          flops: of a step on all devices (`matmul_flops`).
        """
        self._flops = flops
        self._waited = self._phases.seconds["data"]

    def dispatched(self, outcome: jax.Array) -> None:
        """A step has been handed to the devices; waits while more than RUN_AHEAD are unfinished.

        Args:
          outcome: of the step, a small array.
        """
        self._dispatched += 1
        self._queue.put((outcome, self._phases.resumed))
        self._free.acquire()

    def busy_since(self, moment: float) -> float:
        """Seconds since a moment (`time.monotonic`) in which the devices had a step to work on."""
        count, last = self._finished
        now = time.monotonic()
        return (now if count < self._dispatched else min(max(last, moment), now)) - moment

    def report(self, step: int) -> dict[str, float]:
        """Rates since the last report, and seconds to go; empty before anything was measured.

        Args:
          step: how many of the whole run are done.
        """
        times = [self._times.get() for _ in range(self._times.qsize())]
        before, self._waited = self._waited, self._phases.seconds["data"]
        if not times:
            return {}
        rate = len(times) / sum(times)
        p50, p90, p99 = np.percentile(times, (50, 90, 99)).tolist()
        report = {
            "steps_per_second": rate,
            "scenes_per_second": rate * self._scenes,
            "images_per_second": rate * self._scenes * self._images,
            "step_seconds_p50": p50,
            "step_seconds_p90": p90,
            "step_seconds_p99": p99,
            "data_wait_share": min((self._waited - before) / sum(times), 1.0),
            "tflops_per_second": rate * self._flops / 1e12,
            "seconds_left": (self._num_steps - step) / rate,
        }
        if math.isfinite(self._peak):
            report["mfu"] = rate * self._flops / self._peak
        return report

    def close(self) -> None:
        """Ends the thread once it has seen all steps."""
        self._queue.put(None)

    def _observe(self) -> None:
        while (item := self._queue.get()) is not None:
            outcome, resumed = item
            # Of a step that failed: the loop meets the error where it reads the metrics.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                outcome.block_until_ready()
            now = time.monotonic()
            count, last = self._finished
            if count:
                self._times.put(now - max(last, resumed))
            self._finished = (count + 1, now)
            self._phases.finished()
            self._free.release()


def peak_flops(device_kind: str) -> float | None:
    """Peak of a device, FLOP/s in bfloat16; None if the table does not know it."""
    known = [kind for kind in PEAK_FLOPS if device_kind.startswith(kind)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def matmul_flops(jaxpr: Any) -> float:
    """FLOPs of the matrix products and convolutions of a traced program, on all devices together.

    Counted as usual for MFU: two for a multiplication and addition, everything between the products
    free. Unlike XLA's `cost_analysis`, which counts the body of a loop once, the body of a `scan`
    (accumulated gradients) counts as often as it runs; that of a `while` loop, whose length nobody
    knows, counts once here too. What a Pallas kernel does counts only if it states it
    (`cost_estimate`). What `remat` computes again counts again.

    Args:
      jaxpr: such as `jax.jit(f).trace(...).jaxpr`.
    """
    return float(sum(map(_equation_flops, jaxpr.eqns)))


def _equation_flops(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        outputs = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        # Zeros between the pixels (the gradient of a stride) are no work.
        pixels = equation.outvars[0].aval.size / math.prod(params["lhs_dilation"])
        return 2 * pixels * kernel.size / outputs
    if name == "pallas_call":
        estimate = params.get("cost_estimate")
        return float(estimate.flops) if estimate else 0.0
    inner = [matmul_flops(each) for each in _programs(params.values())]
    if name == "cond":
        return max(inner, default=0.0)
    times = params["length"] if name == "scan" else 1
    if name == "shard_map":  # written for one device
        mesh = params["mesh"]
        # What the parameter is called is no promise of JAX's.
        times = math.prod(mesh.shape[x] for x in params.get("newly_manual_axes", mesh.axis_names))
    return times * sum(inner)


def _programs(values: Any) -> Iterator[Any]:
    """The programs among an equation's parameters, also those in a tuple."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _programs(value)
        elif hasattr(value, "eqns"):
            yield value


def windows(text: str, num_steps: int) -> Windows:
    """ "100:105,2000:2005" -> ((100, 105), (2000, 2005)); "" -> ().

    Args:
      text: ranges of steps as Python's slices: 100:105 are the five steps that lead from the state
        after 100 steps to that after 105, which the log counts as 101 to 105.
      num_steps: of the run; no range may reach beyond.

    Raises:
      SettingsError: if the text says something else.
    """
    found, previous = [], 0
    for part in text.replace(" ", "").split(",") if text else ():
        match = re.fullmatch(r"(\d+):(\d+)", part)
        first, last = map(int, match.groups()) if match else (0, 0)
        if not previous <= first < last:
            raise SettingsError(
                f"config.profile={text!r}: {part!r} is no range of steps; expected FIRST:LAST with "
                "FIRST < LAST, several with commas in ascending order, such as 100:105,2000:2005"
            )
        if last > num_steps:
            raise SettingsError(
                f"config.profile={text!r}: the run has only {num_steps} steps "
                "(config.training.num_steps); name steps that it takes"
            )
        found.append((first, last))
        previous = last
    return tuple(found)


class Tracer:
    """Writes a trace of some steps, for xprof or Perfetto.

    Args:
      wanted: which steps, see `windows`.
      folder: where to; each range gets a folder of its own.
      say: tells a person.
      phases: of the run; beginning and ending a trace is not training.
      shown: the name of `folder` in messages, where its files end up.
    """

    def __init__(
        self,
        wanted: Windows,
        folder: pathlib.Path,
        say: Callable[[str], None],
        phases: watchdog.Phases,
        *,
        shown: Any = None,
    ):
        self._wanted = wanted
        self._folder = folder
        self._say = say
        self._phases = phases
        self._shown = shown or folder
        self._active: tuple[int, int] | None = None
        self._last = 0

    def check(self, start_step: int) -> None:
        """Tells which of the wanted steps were taken before this start of the run."""
        for first, last in self._wanted:
            if first < start_step:
                self._say(
                    f"config.profile: the run is at step {start_step}; of {first}:{last} "
                    + (f"{start_step}:{last} is traced" if start_step < last else "none is traced")
                )

    def at(self, done: int, outcome: Any) -> None:
        """Begins or ends a trace after `done` steps, if it is the moment.

        Args:
          outcome: of the newest step; waited for at the edges of a trace, so that it holds its own
            steps in full and no others.
        """
        self._last = done
        wanted = next((w for w in self._wanted if w[0] <= done < w[1]), None)
        if wanted == self._active:
            return
        jax.block_until_ready(outcome)
        self.close()
        if wanted is not None:
            with self._phases("profile"):
                folder = self._place(wanted)
                folder.mkdir(parents=True, exist_ok=True)
                options = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # a line per Python call slows what is measured
                jax.profiler.start_trace(
                    folder, create_perfetto_trace=True, profiler_options=options
                )
            self._active = wanted

    def close(self) -> None:
        """Ends a trace that has begun, wherever it is."""
        if self._active is None:
            return
        window, self._active = self._active, None
        with self._phases("profile"):
            jax.profiler.stop_trace()
        files = sorted(self._place(window).rglob("*perfetto_trace.json.gz"))
        file = files[-1].relative_to(self._folder) if files else "*.trace.json.gz"
        self._say(
            f"trace of the steps {window[0]}:{min(window[1], self._last)} in {self._shown}: open "
            f"{file} at ui.perfetto.dev, or run xprof --logdir={self._shown} (pip install xprof)"
        )

    def _place(self, window: Sequence[int]) -> pathlib.Path:
        return self._folder / f"steps_{window[0]:08d}_{window[1]:08d}"
