"""What can be trained: each task binds a model, a loss and an evaluation (see `task.Task`)."""

import importlib
from collections.abc import Mapping
from typing import Any

from lgs_jax import settings

TASKS = ("vae", "splat_fit")


def make_task(name: str, config: Mapping[str, Any]) -> Any:
    """The task of that name, from the groups of a whole configuration (plain mappings).

    Raises:
      lgs_jax.settings.SettingsError: if there is no such task.
    """
    if name not in TASKS:
        raise settings.SettingsError(f"config.task is {name!r}; expected one of {', '.join(TASKS)}")
    return importlib.import_module(f"lgs_jax.tasks.{name}").from_config(config)
