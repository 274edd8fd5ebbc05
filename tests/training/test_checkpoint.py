"""Checkpoints: damage, leftovers, what inference reads."""

import errno
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
import toy

from lgs_jax.training import checkpoint
from lgs_jax.training import mesh as meshes
from lgs_jax.training import optimizer as optimizers
from lgs_jax.training import state as states

OPTIONS = {
    "num_steps": 4,
    "log_every": 1,
    "eval_every": 0,
    "save_every": 2,
    "tensorboard": False,
    "visualize": False,
}
# Wide enough for arrays that Orbax stores in files of their own (above 1 KiB).
WIDTH = 600


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    toy.train(workdir, OPTIONS, task=toy.Toy(width=WIDTH))
    return workdir


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained workdir that a test may damage."""
    return shutil.copytree(trained, tmp_path / "run")


def newest(workdir):
    return workdir / "checkpoints" / "step_00000004"


def test_restores_parameters_and_configuration_from_any_of_its_folders(trained):
    for source in (trained, trained / "checkpoints", newest(trained), str(trained)):
        config, params = checkpoint.restore_params(source)
        assert config == {"training": OPTIONS}
        assert params["hidden"]["kernel"].shape == (3, WIDTH)
        assert isinstance(params["out"]["kernel"], jax.Array)
    _, older = checkpoint.restore_params(trained, step=2)
    assert not np.array_equal(older["hidden"]["kernel"], params["hidden"]["kernel"])


def test_what_inference_reads_does_not_need_the_training_state(copy):
    shutil.rmtree(newest(copy) / "train")
    checkpoint.restore_params(copy)


@pytest.mark.parametrize(
    ("place", "step", "message"),
    [
        ("nothing", None, "no checkpoint in .*expected a training workdir"),
        ("", 3, r"no checkpoint of step=3 in .*there are \[2, 4\]"),
        ("checkpoints/step_00000004", 2, "is one checkpoint, but step=2 was asked for"),
    ],
)
def test_says_what_is_missing(trained, place, step, message):
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.restore_params(trained / place, step=step)


@pytest.mark.parametrize("item", ["train", "ema"])
def test_a_truncated_file_is_an_error_that_names_the_older_checkpoint(copy, item):
    largest = max((newest(copy) / item).rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    # In a process of its own: Orbax leaves broken coroutines behind, which complain later.
    call = (
        f"toy.train({str(copy)!r}, {OPTIONS!r} | {{'num_steps': 5}}, task=toy.Toy(width={WIDTH}))"
        if item == "train"
        else f"checkpoint.restore_params({str(copy)!r})"
    )
    program = f"import toy\nfrom lgs_jax.training import checkpoint\n{call}"
    folder = pathlib.Path(toy.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 1
    message = done.stderr[done.stderr.rindex("CheckpointError") :]
    assert re.search(r"step_00000004 cannot be read: it is damaged", message)
    assert "Delete or move that folder to use the one of step 2." in message


def test_after_deleting_the_damaged_one_the_run_continues_from_the_older(copy, trained):
    shutil.rmtree(newest(copy))
    toy.train(copy, OPTIONS, task=toy.Toy(width=WIDTH))
    _, one = checkpoint.restore_params(copy)
    _, two = checkpoint.restore_params(trained)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_leftovers_of_a_killed_save_are_ignored_and_removed(copy):
    half = copy / "checkpoints" / "step_00000006.orbax-checkpoint-tmp"
    shutil.copytree(newest(copy), half)
    assert checkpoint.steps_in(copy / "checkpoints") == [2, 4]
    assert checkpoint.locate(copy)[1] == 4
    toy.train(copy, OPTIONS | {"num_steps": 6}, task=toy.Toy(width=WIDTH))
    assert not half.exists()
    assert checkpoint.steps_in(copy / "checkpoints") == [4, 6]


def test_restores_into_the_shardings_of_a_mesh(trained):
    mesh = meshes.make(meshes.MeshSettings())
    _, params = checkpoint.restore_params(trained, mesh=mesh)
    assert params["hidden"]["kernel"].sharding == meshes.replicated(mesh)


def test_a_save_is_completed_in_the_background(tmp_path, monkeypatch):
    """The step after it may overwrite the state, and what is restored is the state as saved."""
    gate, rename = threading.Event(), os.rename

    def wait_and_rename(source, target):
        if pathlib.Path(target).name == "step_00000001":
            assert gate.wait(60), "the save was not returned from before it was complete"
        rename(source, target)

    monkeypatch.setattr(os, "rename", wait_and_rename)
    params = toy.Toy(width=WIDTH).init(jax.random.key(0))
    state = states.create(params, optimizers.make(optimizers.OptimizerSettings()))
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    expected = jax.tree.map(lambda x: np.array(x), state)
    with checkpoint.Checkpoints(tmp_path / "run", keep=1) as checkpoints:
        checkpoints.save(1, state, {}, {})
        assert checkpoint.steps_in(tmp_path / "run") == []
        jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(state)
        gate.set()
        checkpoints.wait()
        assert checkpoint.steps_in(tmp_path / "run") == [1]
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(1, abstract), expected)


def test_a_save_that_fails_in_the_background_ends_the_run_at_the_next_log_step(tmp_path):
    """In a process of its own, whose stderr has what Orbax logs."""
    options = OPTIONS | {"num_steps": 100, "save_every": 20}
    program = f"""
import errno, os, sys, toy
from lgs_jax.training import loop

def refuse(source, target):
    if str(target).endswith("step_00000040"):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))
    rename(source, target)

rename, os.rename = os.rename, refuse
try:
    toy.train({str(tmp_path)!r}, {options!r}, seconds=0.1)
except loop.ERRORS as error:
    sys.exit(f"error: {{error}}")
"""
    folder = pathlib.Path(toy.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: the checkpoint of step 40 cannot be written into .*checkpoints \(No space left on "
        r"device\); make room .* continues from step 20\n",
        done.stderr,
    )
    log = (tmp_path / "train.log").read_text()
    assert log.endswith(done.stderr)
    assert "step  59/100" not in log  # of the next save


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EACCES, "Permission denied", "/x"), "Permission denied"),
        (
            ValueError(
                'RESOURCE_EXHAUSTED: Error writing "a/0" in database: Failed to write 5 bytes to '
                "file 3: No space left on device [tensorstore_spec='{}'] [os_error_code='28']"
            ),
            "No space left on device",
        ),
        (RuntimeError("no bucket: x"), "no bucket: x"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_cause_of_a_failed_save_is_told_in_a_few_words(error, expected):
    assert checkpoint._cause(error) == expected
