"""Joining the other processes of a job, and leaving when one of them is lost."""

import multiprocessing
import os
import re

import jax

from lgs_jax.settings import SettingsError

# JAX itself reads the first one alone.
ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# Of a process that stalled or lost another one: start all again, but count how often.
EXIT_STATUS = 76

# The backend's messages can be pages long.
_REASON_LENGTH = 400


_STATUS = re.compile(r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED): ")


class LostProcessError(RuntimeError):
    """A step failed in a job of several processes, most often because another one died."""

    def __init__(self, error: Exception, place: object, step: int):
        process, count = which()
        super().__init__(
            f"process {process} of {count} cannot go on: {str(error).strip()[:_REASON_LENGTH]}\n"
            "Unless this names a fault of its own (memory, say), another process has died; the log "
            f"of that one tells why. Start all {count} again with the same command: they continue "
            f"from the newest complete checkpoint in {place} (this process saved step {step})"
        )


def join(heartbeat_seconds: int = 100) -> None:
    """Makes this process one of several; to be called before JAX starts its backend.

    The environment decides where it names the address of process 0 (host:port), the number of
    processes and which one this is; else JAX asks the cluster that it finds itself in (SLURM, Cloud
    TPU, Kubernetes, Open MPI).

    Args:
      heartbeat_seconds: a process that was not heard of for so long is given up, and JAX ends the
        others.

    Raises:
      SettingsError: if neither says it, or the environment says half of it.
    """
    given = {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)}
    numbers = [given.get(name) for name in ENVIRONMENT[1:]]
    patience = {"heartbeat_timeout_seconds": heartbeat_seconds}
    if any(numbers):
        if len(given) < len(ENVIRONMENT) or not all(text.isdecimal() for text in numbers):
            raise SettingsError(
                f"--distributed: the environment says {given}; expected all of "
                f"{', '.join(ENVIRONMENT)}, the latter two whole numbers"
            )
        jax.distributed.initialize(given[ENVIRONMENT[0]], *map(int, numbers), **patience)
        return
    try:
        jax.distributed.initialize(**patience)
    except ValueError as error:
        raise SettingsError(
            f"--distributed: JAX finds no cluster here ({error}) Start it with srun or another "
            f"script of launch/, set {', '.join(ENVIRONMENT)}, or leave --distributed out"
        ) from error


def which() -> tuple[int, int]:
    """The number of this process and how many there are."""
    return jax.process_index(), jax.process_count()


def from_backend(error: Exception) -> bool:
    """Whether an error was raised by the devices or their connections; JAX has two types for it."""
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(_STATUS.match(str(error)))


def end_at_once(status: int) -> None:
    """Ends this process and the workers that read its data, without waiting for anything.

    Python's ordinary end would wait for the other processes of the job, one of which is lost.
    """
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(status)
