"""What software made an evaluation."""

import os
import pathlib
import platform
import subprocess

import flax
import grain
import jax
import jaxlib
import numpy as np

import lgs_jax

_LIMIT_S = 10.0


def found() -> dict[str, str | None]:
    """Versions of what takes part in an evaluation, and the device.

    `commit` is that of the package's own git checkout, with `-dirty` where files differ from it;
    None where it runs from none.
    """
    return {
        "lgs_jax": lgs_jax.__version__,
        "commit": _commit(pathlib.Path(lgs_jax.__file__).parents[1]),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "numpy": np.__version__,
        "grain": grain.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
    }


def _commit(folder: pathlib.Path) -> str | None:
    """The commit of a checkout whose root is `folder`; None if it is none or there is no git."""
    if not (folder / ".git").exists():  # a folder above may be the checkout of something else
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(
            [*command, "--exclude=*"],
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
