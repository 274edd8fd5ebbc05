"""The persistent compilation cache: the second start of a run compiles nothing."""

import os
import pathlib

import jax

ENVIRONMENT = "LGS_JAX_CACHE"
DEFAULT = "~/.cache/lgs_jax"


def enable() -> str:
    """Switches the cache on and returns a line that says where it is.

    The environment decides: LGS_JAX_CACHE names a folder, or is "off"; without it a folder that JAX
    was already given (JAX_COMPILATION_CACHE_DIR) is kept, and the default is ~/.cache/lgs_jax.
    """
    choice = os.environ.get(ENVIRONMENT, "")
    if choice.lower() == "off":
        return f"compilation cache: off ({ENVIRONMENT}=off)"
    given = jax.config.jax_compilation_cache_dir
    if given and not choice:
        return f"compilation cache: {given}"
    folder = pathlib.Path(choice or DEFAULT).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return (
            f"compilation cache: off, {folder} cannot be made ({error.strerror}); "
            f"set {ENVIRONMENT} to another folder"
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Small programs too: the hundreds of them in a command add up to a third of its time.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return f"compilation cache: {folder} ({ENVIRONMENT}=off disables it)"
