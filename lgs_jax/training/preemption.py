"""Stopping on request: SIGTERM from a scheduler, Ctrl-C from a person.

The first signal asks the loop to finish the step in flight, save and leave; a second Ctrl-C ends
the process at once, as if it were killed: what was saved before is whole. JAX's own preemption
service is switched off: with Orbax's manager it missed the save.
"""

import os
import signal
import types

import jax
import numpy as np
from jax.experimental import multihost_utils

from lgs_jax.training import processes

# EX_TEMPFAIL of sysexits.h: not done, start the same command again.
EXIT_STATUS = 75
_ABORTED_STATUS = 130  # 128 + SIGINT, as shells have it


class Preempted(SystemExit):
    """The run was asked to stop and has saved; the same command continues it.

    Like KeyboardInterrupt it is not an `Exception`; uncaught it ends the process with EXIT_STATUS.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.code = EXIT_STATUS


class StopSignal:
    """Remembers that somebody asked the run to stop."""

    def __init__(self):
        self.reason = ""

    def install(self) -> "StopSignal":
        """Catches SIGTERM and SIGINT from now on; call before `jax.distributed.initialize`."""
        jax.config.update("jax_enable_preemption_service", False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        if self.reason and number == signal.SIGINT:
            os.write(
                2, b"\nsecond Ctrl-C: aborted; the same command continues from the last save\n"
            )
            processes.end_at_once(_ABORTED_STATUS)
        if not self.reason:
            self.reason = signal.Signals(number).name
            # os.write is safe in a handler; print may be interrupted half-way by this very signal.
            text = f"\n{self.reason}: finishing the step in flight, then saving. Ctrl-C aborts.\n"
            os.write(2, text.encode())

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return bool(self.reason)


def agree(*flags: bool) -> tuple[bool, ...]:
    """Which flags any process has raised; every process must call it at the same step."""
    if jax.process_count() == 1:
        return flags
    gathered = multihost_utils.process_allgather(np.array(flags))
    return tuple(map(bool, np.any(gathered, axis=0)))
