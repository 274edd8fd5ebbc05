"""Killing and stopping a run in a process of its own: it must end as if nothing had happened."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest
import toy

from lgs_jax.training import checkpoint, logging, preemption

OPTIONS = {
    "num_steps": 60,
    "log_every": 1,
    "eval_every": 20,
    "save_every": 3,
    "visualize": False,
    "tensorboard": False,
    "optimizer": {"learning_rate": 0.03, "warmup_steps": 4},
}
_PATIENCE = 120.0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    toy.train(workdir, OPTIONS)
    return workdir


def launch(workdir, options, *, step_seconds, processes=()):
    command = [sys.executable, toy.__file__, str(workdir), json.dumps(options), str(step_seconds)]
    command += map(str, processes)  # coordinator, count, index
    cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if toy.jax.config.jax_compilation_cache_dir:
        cache["JAX_COMPILATION_CACHE_DIR"] = toy.jax.config.jax_compilation_cache_dir
    return subprocess.Popen(
        command,
        env=os.environ | cache,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, process):
    """Waits for a condition; fails if the process ends before it holds."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"ended with status {process.returncode}: {process.communicate()[0]}")
        if time.monotonic() > end:
            process.kill()
            pytest.fail(f"nothing happened in time: {process.communicate()[0]}")
        time.sleep(0.001)


def steps_logged(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count('"kind": "train"') if path.exists() else 0


def saving(workdir):
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def kill_and_finish(workdir, uninterrupted, moments):
    """Kills the run at each moment (a condition and a delay), lets it end, compares everything."""
    for condition, delay in moments:
        process = launch(workdir, OPTIONS, step_seconds=0.01)
        wait_until(lambda condition=condition: condition(workdir), process)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        output = process.communicate()[0]
        # It may have finished just before; a run that is killed later continues from its end.
        assert process.returncode in (-signal.SIGKILL, 0), output
    toy.train(workdir, OPTIONS)
    toy.assert_same_state(workdir, uninterrupted, OPTIONS)
    for name in ("metrics.jsonl", "config.json"):
        assert (workdir / name).read_text() == (uninterrupted / name).read_text()
    results = [json.loads((w / "results.json").read_text()) for w in (workdir, uninterrupted)]
    assert results[0]["eval"] == results[1]["eval"]
    assert not saving(workdir)


def test_killed_runs_end_like_the_uninterrupted_one(uninterrupted, tmp_path):
    moments = [
        (lambda workdir: steps_logged(workdir) >= 8, 0.0),
        (lambda workdir: steps_logged(workdir) >= 22 and saving(workdir), 0.0),
        (lambda workdir: steps_logged(workdir) >= 40, 0.005),
    ]
    kill_and_finish(tmp_path, uninterrupted, moments)


@pytest.mark.slow
def test_ten_random_kills_end_like_the_uninterrupted_run(uninterrupted, tmp_path):
    rng = random.Random(0)
    moments = []
    for kill in range(10):
        steps = 4 + 5 * kill
        if kill % 2:
            condition = lambda w, n=steps: steps_logged(w) >= n and saving(w)  # noqa: E731
        else:
            condition = lambda w, n=steps: steps_logged(w) >= n  # noqa: E731
        moments.append((condition, rng.uniform(0, 0.03)))
    kill_and_finish(tmp_path, uninterrupted, moments)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_costs_at_most_the_step_in_flight(uninterrupted, tmp_path, number):
    options = OPTIONS | {"save_every": 0}
    process = launch(tmp_path, options, step_seconds=0.02)
    wait_until(lambda: steps_logged(tmp_path) >= 7, process)
    at_signal = steps_logged(tmp_path)
    process.send_signal(number)
    output = process.communicate(timeout=_PATIENCE)[0]
    assert process.returncode == preemption.EXIT_STATUS, output
    _, step = checkpoint.locate(tmp_path)
    assert f"{number.name}: stopped at step {step} of 60" in output
    # Between reading the log and the signal's arrival a few more steps may pass, none is lost.
    assert step == steps_logged(tmp_path) >= at_signal
    toy.train(tmp_path, options)
    assert toy.final_state(tmp_path, options)[1] == 60
    toy.assert_same_state(tmp_path, uninterrupted, OPTIONS)


def launch_pair(workdir, options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = {"step_seconds": 0.02}
    return [launch(workdir, options, processes=(address, 2, i), **arguments) for i in range(2)]


@pytest.mark.slow
def test_two_processes_stop_together_and_continue(uninterrupted, tmp_path):
    options = OPTIONS | {"save_every": 0, "stop_check_every": 5}
    pair = launch_pair(tmp_path, options)
    wait_until(lambda: steps_logged(tmp_path) >= 7, pair[0])
    pair[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=_PATIENCE)[0] for process in pair]
    assert [process.returncode for process in pair] == [preemption.EXIT_STATUS] * 2, outputs
    _, step = checkpoint.locate(tmp_path)
    assert step % 5 == 0  # where they look at each other
    assert f"another process was asked to stop: stopped at step {step}" in outputs[0]

    pair = launch_pair(tmp_path, options)
    outputs = [process.communicate(timeout=_PATIENCE)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    ended, alone = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path, uninterrupted)
    )
    assert [line["step"] for line in ended] == [line["step"] for line in alone]
    # Two devices add the batch up in another order: float32, growing over 60 steps.
    assert ended[-2]["loss"] == pytest.approx(alone[-2]["loss"], rel=1e-3)
    assert ended[-1]["mse"] == pytest.approx(alone[-1]["mse"], rel=1e-3)


def test_a_second_interrupt_aborts():
    program = (
        "import os, signal\n"
        "from lgs_jax.training import preemption\n"
        "stop = preemption.StopSignal().install()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"  # schedulers repeat themselves: no harm
        "assert stop.requested and stop.reason == 'SIGTERM'\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "finishing the step in flight" in done.stderr
    assert done.stderr.endswith(
        "second Ctrl-C: aborted; the same command continues from the last save\n"
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 130


def test_a_process_alone_agrees_with_itself():
    assert preemption.agree(True, False) == (True, False)


def test_a_line_cut_short_is_dropped(uninterrupted, tmp_path):
    lines = (uninterrupted / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:12]) + lines[12][:20])
    with logging.RunLog(tmp_path, start_step=9, tensorboard=False) as log:
        assert log.last("train") is not None
        assert log.last("train", 10) is None
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines[:9])
