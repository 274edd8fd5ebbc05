"""Settings shared by all tests."""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from absl import flags

# Nearly all of the time goes into compiling programs that run for milliseconds: without LLVM's
# optimizations (XLA's own remain) that takes less than half as long, and half of that again with
# one plain function for each fusion, all in one module.
XLA_FLAGS = ["--xla_backend_optimization_level=0"]
if jax.__version_info__ < (0, 11):  # a flag that XLA does not know stops it
    XLA_FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("XLA_FLAGS", " ".join(XLA_FLAGS))

# Tracing makes millions of objects that live on; searching them for garbage takes a sixth of it.
gc.set_threshold(100_000, 20, 20)

# Grain reads absl flags, which nobody parses under pytest.
flags.FLAGS.mark_as_parsed()

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

# Tests compile the same small programs again and again; the second run is several times faster.
jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# The files that take longest, first: no process is then left alone with one of them at the end.
LONG = (
    "test_slurm_cluster.py",
    "test_notebooks.py",
    "test_configs.py",
    "test_implementations.py",
    "test_mesh_axes.py",
    "test_resume.py",
    "test_interrupt.py",
    "test_autoencoder.py",
    "test_lpips.py",
    "test_encode_latents.py",
    "test_vae.py",
    "test_diffusion.py",
    "test_pixel_diffusion_run.py",
    "test_processes.py",
    "test_diffusion_run.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Keeps pytest-xdist from beginning with the files that have many tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of `LONG` first."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real data and reference vectors beside the checkout; skips where absent."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"no folder of reference data at {path}")
    return path
