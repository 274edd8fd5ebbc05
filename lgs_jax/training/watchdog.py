"""What a run is doing, and a watchdog that notices when it does nothing any more.

A device that has stopped answering, a storage that hangs or the loss of another process leaves a
training waiting for ever, and holds its machines. The watchdog turns this into the stacks of all
threads and, when that has not woken anybody, into an exit that a launcher can answer.
"""

import contextlib
import faulthandler
import math
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

from lgs_jax.training import processes

# What a run can be doing, and how much longer than in a step it may be silent there. Nobody knows
# how long a compiler takes; the others give a sign of life for every batch, or write files.
ALLOWANCES = {
    "start": math.inf,
    "compile": math.inf,
    "train": 1.0,
    "data": 1.0,
    "evaluate": 10.0,
    "save": 10.0,
    "profile": 10.0,
    "close": 10.0,
}

_OF_A_STEP = ("train", "data")

_HINTS = {
    "train": "A device does not finish its step. Of several processes, another one may be late or "
    "dead: look for the one whose stack is elsewhere, or whose log has ended.",
    "data": "The next batch does not come: look at the storage of config.data.root and at the "
    "workers that read it (config.data.num_workers).",
    "evaluate": "An evaluation does not go on: its data, a device, or another process.",
    "save": "A checkpoint is not written: look at the storage of --workdir.",
    "profile": "A trace (config.profile) is not written: look at the storage of --workdir.",
    "close": "The run cannot end: a checkpoint is still being written, or a process is missing.",
}

# A step may take so many times as long as the longest silence before it.
_SLOWER = 5.0
# The first step of all has no measure.
_FIRST = 10.0
_SECONDS_BETWEEN_LOOKS = 10.0
# Reporting needs a disk and a terminal, which may be what hangs.
_SECONDS_TO_REPORT = 30.0


class Phases:
    """Where the time of a run goes: at every moment it is in exactly one phase of `ALLOWANCES`.

    Only the thread that trains moves from phase to phase; any thread may look.

    Attributes:
      seconds: spent in each phase so far, without the stay in the present one.
      resumed: when the last phase other than "train" and "data" ended (`time.monotonic`).
      beats: signs of life so far.
      steps: steps that the devices have finished since this process began.
    """

    def __init__(self):
        self.seconds = dict.fromkeys(ALLOWANCES, 0.0)
        self.resumed = -math.inf
        self.beats = 0
        self.steps = 0
        self._stack = ["start"]
        self._since = time.monotonic()

    @property
    def now(self) -> str:
        """The present phase."""
        return self._stack[-1]

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """The phase `name` for the length of the block; then back to the one around it."""
        self._account()
        self._stack.append(name)
        try:
            yield
        finally:
            self._account()
            self._stack.pop()
            if name not in _OF_A_STEP:
                self.resumed = time.monotonic()

    def close(self) -> None:
        """What remains, outside of all blocks, is the phase "close"."""
        self._account()
        self._stack[0] = "close"

    def move(self, source: str, target: str, seconds: float) -> None:
        """Counts time spent in one phase to another."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def beat(self) -> None:
        """Gives a sign of life."""
        self.beats += 1

    def finished(self) -> None:
        """A step is done."""
        self.steps += 1
        self.beat()

    def so_far(self) -> dict[str, float]:
        """Seconds in each phase up to this moment."""
        self._account()
        return dict(self.seconds)

    def _account(self) -> None:
        now = time.monotonic()
        self.seconds[self.now] += now - self._since
        self._since = now
        self.beat()


class Watchdog:
    """Looks from a thread of its own whether the run gives signs of life.

    After `patience` seconds of silence (times the allowance of the phase, and no less than a few
    times the longest silence that was followed by a finished step) it reports: a message and the
    stacks of all threads, to standard error and to stalled-<process>.txt in `folder`; the message
    also to train.log. After as long again it reports once more and ends the process with
    `processes.EXIT_STATUS`. Time in which the whole process was stopped (Ctrl-Z, a suspended
    laptop) does not count. Code that never gives up Python's lock cannot be seen from here.

    Args:
      phases: of the run.
      patience: seconds; 0: no watchdog.
      end: ends the process.
    """

    def __init__(
        self,
        phases: Phases,
        patience: float,
        *,
        end: Callable[[int], None] = processes.end_at_once,
    ):
        self.folder: pathlib.Path | None = None
        self._phases = phases
        self._patience = patience
        self._end = end
        self._interval = min(patience / 10, _SECONDS_BETWEEN_LOOKS)
        self._seen = (0, 0)  # beats, steps
        self._phase = phases.now
        self._silence = 0.0
        self._longest = 0.0
        self._reported = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._patience:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()

    def look(self, elapsed: float) -> None:
        """Looks at the run, `elapsed` seconds after the look before."""
        phases = self._phases
        beats, steps = phases.beats, phases.steps
        before, self._phase = self._phase, phases.now
        if beats != self._seen[0]:
            if steps != self._seen[1] and before in _OF_A_STEP:
                self._longest = max(self._longest, self._silence)
            self._seen, self._silence, self._reported = (beats, steps), 0.0, False
            return
        # More than was asked to be slept: this thread did not run either.
        self._silence += min(elapsed, 2 * self._interval)
        allowed = max(self._patience * ALLOWANCES[self._phase], _SLOWER * self._longest)
        if not steps:
            allowed *= _FIRST
        if self._silence > 2 * allowed:
            self._report(allowed, last=True)
            self._end(processes.EXIT_STATUS)
        elif self._silence > allowed and not self._reported:
            self._reported = True
            self._report(allowed, last=False)

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(self._interval):
            now = time.monotonic()
            self.look(now - before)
            before = now

    def _report(self, allowed: float, *, last: bool) -> None:
        text = message(self._phases, self._silence, allowed, last=last)
        writer = threading.Thread(target=self._write, args=(text,), name="stall", daemon=True)
        writer.start()
        writer.join(_SECONDS_TO_REPORT)

    def _write(self, text: str) -> None:
        os.write(2, f"\n{text}\n".encode())
        faulthandler.dump_traceback(file=2, all_threads=True)
        if self.folder is None:
            return
        process, _ = processes.which()
        with (self.folder / f"stalled-{process}.txt").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            file.flush()
            faulthandler.dump_traceback(file=file, all_threads=True)
        if process == 0:
            with (self.folder / "train.log").open("a") as file:
                file.write(text + "\n")


def message(phases: Phases, silence: float, allowed: float, *, last: bool) -> str:
    """What the watchdog says of a silence."""
    process, count = processes.which()
    phase = phases.now
    sequel = (
        f"It ends now with status {processes.EXIT_STATUS}"
        if last
        else f"If it stays so, it ends in {allowed:.0f} s with status {processes.EXIT_STATUS}"
    )
    return (
        f"stall: process {process} of {count} has given no sign of life for {silence:.0f} s in the "
        f"phase '{phase}', {phases.steps} steps after its start. {_HINTS[phase]}\n{sequel}; "
        "the same command continues from the newest checkpoint. config.training.stall_seconds is "
        "the patience, 0 switches it off (in a debugger, say). Stacks of all threads:"
    )
