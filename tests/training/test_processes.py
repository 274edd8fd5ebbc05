"""Two real processes that train together, against one process; one of the two is killed."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import toy

from lgs_jax import settings
from lgs_jax.training import checkpoint, loop, processes

OPTIONS = {
    "num_steps": 24,
    "log_every": 1,
    "eval_every": 12,
    "save_every": 4,
    "keep_checkpoints": 3,
    "tensorboard": False,
    "mesh": {"data": 2},
    "optimizer": {"learning_rate": 0.03, "warmup_steps": 4},
}
_PATIENCE = 120.0


def launch(workdirs, *, step_seconds=0.0):
    """Starts one process for each workdir; two or more find one another."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    count = len(workdirs)
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(2 // count),
        "JAX_COMPILATION_CACHE_DIR": toy.jax.config.jax_compilation_cache_dir or "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return [
        subprocess.Popen(
            [sys.executable, toy.__file__, str(workdir), json.dumps(OPTIONS), str(step_seconds)]
            + ([address, str(count), str(index)] if count > 1 else []),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index, workdir in enumerate(workdirs)
    ]


def finish(processes):
    outputs = [process.communicate(timeout=_PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def parameters(workdir):
    return toy.jax.tree.leaves(checkpoint.restore_params(workdir)[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The workdir of two processes with a device each that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("pair")
    finish(launch([workdir] * 2))
    return workdir


def assert_equal_up_to_rounding(workdir, other):
    """The same halves of a batch or the whole, added up in other ways: float32, 24 steps."""
    ours, theirs = lines(workdir), lines(other)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, two in zip(ours, theirs):
        for key in one.keys() - {"kind"}:
            assert one[key] == pytest.approx(two[key], rel=2e-4, abs=1e-6), (one["step"], key)
    for one, two in zip(parameters(workdir), parameters(other)):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_two_processes_train_like_one(pair, tmp_path):
    finish(launch([tmp_path]))
    assert len(lines(pair)) == OPTIONS["num_steps"] + 2
    assert_equal_up_to_rounding(pair, tmp_path)
    for step in ("step_00000012", "step_00000024"):
        # Each process has loaded half of the scenes that are shown.
        one, two = (np.load(w / "visuals" / step / "first.npy") for w in (pair, tmp_path))
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)
    for workdir, count in ((pair, 2), (tmp_path, 1)):
        results = json.loads((workdir / "results.json").read_text())
        assert (results["process_count"], results["device_count"]) == (count, 2)


def kill_one(workdir, victim, *, steps, delay=0.0, patience=0.5):
    """Kills one of two processes a while after so many steps; the other one cannot go on.

    Returns:
      exit status and output of the other one, which has `patience` seconds to end by itself; a
      launcher would end it then.
    """
    both = launch([workdir] * 2, step_seconds=0.05)
    try:
        end = time.monotonic() + _PATIENCE
        while len(lines(workdir)) < steps:
            assert time.monotonic() < end, "no step was made in time"
            assert [process.poll() for process in both] == [None, None]
            time.sleep(0.01)
        time.sleep(delay)
        both[victim].send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            both[1 - victim].wait(patience)
    finally:
        for process in both:
            process.kill()
        outputs = [process.communicate()[0] for process in both]
    assert both[victim].returncode == -signal.SIGKILL
    assert lines(workdir)[-1]["step"] < OPTIONS["num_steps"]
    return both[1 - victim].returncode, outputs[1 - victim]


def assert_goes_on_to_the_end_of(pair, workdir):
    output, _ = finish(launch([workdir] * 2))
    assert "continues from step" in output
    assert (workdir / "metrics.jsonl").read_text() == (pair / "metrics.jsonl").read_text()
    for one, two in zip(parameters(workdir), parameters(pair)):
        np.testing.assert_array_equal(one, two)


def test_the_loss_of_a_process_costs_no_more_than_the_steps_since_the_save(pair, tmp_path):
    """What every launcher of several hosts relies on: start all again, get the same numbers."""
    kill_one(tmp_path, 1, steps=10)
    assert_goes_on_to_the_end_of(pair, tmp_path)


@pytest.mark.slow
def test_five_losses_at_random_end_like_the_undisturbed_pair(pair, tmp_path):
    rng = random.Random(0)
    for steps in (3, 7, 11, 15, 19):
        kill_one(tmp_path, rng.randrange(2), steps=steps, delay=rng.uniform(0, 0.1))
    assert_goes_on_to_the_end_of(pair, tmp_path)


@pytest.mark.slow
def test_the_survivor_ends_by_itself_and_says_what_to_do(pair, tmp_path):
    status, output = kill_one(tmp_path, 1, steps=10, patience=_PATIENCE)
    assert status == processes.EXIT_STATUS, output
    assert "process 0 of 2 cannot go on" in output
    assert "Start all 2 again with the same command" in output
    assert_goes_on_to_the_end_of(pair, tmp_path)


def test_one_process_goes_on_where_two_were(pair, tmp_path):
    """From step 16 on; the pair's own last steps are what it has to repeat."""
    copy = shutil.copytree(pair, tmp_path / "run")
    for step in (20, 24):
        shutil.rmtree(copy / "checkpoints" / f"step_{step:08d}")
    toy.train(copy, OPTIONS | {"mesh": {}}, config={"training": OPTIONS})
    assert "continues from step 16" in (copy / "train.log").read_text()
    assert_equal_up_to_rounding(copy, pair)


def test_processes_that_do_not_share_their_workdir_are_told_so(tmp_path):
    (tmp_path / "other").mkdir()
    processes = launch([tmp_path / "own", tmp_path / "other"])
    for process in processes:
        output = process.communicate(timeout=_PATIENCE)[0]
        assert process.returncode == 1
        assert "the processes [1] of 2 do not see what process 0 writes into" in output
        assert "storage that all machines share" in output
    assert not list((tmp_path / "own").glob(".probe*"))


def test_a_step_that_fails_in_a_job_of_several_says_what_to_do(tmp_path, monkeypatch):
    """As the backends do it when a connection breaks; that they do, takes a minute to see."""
    error = toy.jax.errors.JaxRuntimeError("Gloo all-reduce failed: Connection reset by peer")
    assert processes.from_backend(error)
    assert processes.from_backend(ValueError("UNKNOWN: Gloo AllGather failed: Read error"))
    assert not processes.from_backend(ValueError("the evaluation set is empty"))

    def fail(self, batches):
        raise error

    monkeypatch.setattr(loop._Loop, "go", fail)
    with pytest.raises(toy.jax.errors.JaxRuntimeError, match="Gloo"):
        toy.train(tmp_path, {"num_steps": 1})  # alone: an error like any other

    def fail_as_one_of_two(self, batches):
        monkeypatch.setattr(toy.jax, "process_count", lambda: 2)
        raise error

    abandoned = []
    monkeypatch.setattr(loop._Loop, "go", fail_as_one_of_two)
    monkeypatch.setattr(contextlib.ExitStack, "pop_all", lambda stack: abandoned.append(stack))
    with pytest.raises(processes.LostProcessError) as found:
        toy.train(tmp_path, {"num_steps": 1})
    assert len(abandoned) == 1
    message = str(found.value)
    assert "process 0 of 2 cannot go on: Gloo all-reduce failed: Connection reset" in message
    assert "Start all 2 again with the same command" in message
    assert f"newest complete checkpoint in {tmp_path} (this process saved step 0)" in message
    assert isinstance(found.value, loop.ERRORS)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"JAX finds no cluster here .*set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"),
        ({"JAX_NUM_PROCESSES": "2"}, r"the environment says \{'JAX_NUM_PROCESSES': '2'\}"),
        (
            dict.fromkeys(processes.ENVIRONMENT, "a:1"),
            "expected all of JAX_COORDINATOR_ADDRESS.* the latter two whole numbers",
        ),
    ],
)
def test_a_process_that_cannot_know_the_others_says_so(monkeypatch, environment, message):
    def initialize(*arguments, heartbeat_timeout_seconds):
        assert arguments == ()  # no cluster: JAX itself would now look for one
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(toy.jax.distributed, "initialize", initialize)
    for name in processes.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(settings.SettingsError, match=message):
        processes.join()


def test_the_environment_names_the_processes(monkeypatch):
    asked = []
    monkeypatch.setattr(
        toy.jax.distributed, "initialize", lambda *values, **more: asked.append((values, more))
    )
    for name, value in zip(processes.ENVIRONMENT, ("host:1234", "4", "0")):
        monkeypatch.setenv(name, value)
    processes.join(heartbeat_seconds=30)
    assert asked == [(("host:1234", 4, 0), {"heartbeat_timeout_seconds": 30})]
