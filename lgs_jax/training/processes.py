"""Joining the other processes of a job."""

import os

import jax

from lgs_jax.settings import SettingsError

# JAX itself reads the first one alone.
ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join() -> None:
    """Makes this process one of several; to be called before JAX starts its backend.

    The environment decides where it names the address of process 0 (host:port), the number of
    processes and which one this is; else JAX asks the cluster that it finds itself in (SLURM, Cloud
    TPU, Kubernetes, Open MPI).

    Raises:
      SettingsError: if neither says it, or the environment says half of it.
    """
    given = {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)}
    numbers = [given.get(name) for name in ENVIRONMENT[1:]]
    if any(numbers):
        if len(given) < len(ENVIRONMENT) or not all(text.isdecimal() for text in numbers):
            raise SettingsError(
                f"--distributed: the environment says {given}; expected all of "
                f"{', '.join(ENVIRONMENT)}, the latter two whole numbers"
            )
        jax.distributed.initialize(given[ENVIRONMENT[0]], *map(int, numbers))
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise SettingsError(
            f"--distributed: JAX finds no cluster here ({error}) Start it with srun or another "
            f"script of launch/, set {', '.join(ENVIRONMENT)}, or leave --distributed out"
        ) from error
