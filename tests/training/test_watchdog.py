"""Phases of a run, and the watchdog over them."""

import json
import math
import subprocess
import sys
import time

import pytest
import toy

from lgs_jax.training import processes, watchdog


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(watchdog.time, "monotonic", lambda: Clock.now)
    return Clock


def test_every_moment_is_in_one_phase(clock):
    phases = watchdog.Phases()
    clock.now += 1
    with phases("train"):
        clock.now += 2
        with phases("evaluate"):
            clock.now += 4
            with phases("save"):
                clock.now += 8
            assert phases.now == "evaluate"
            clock.now += 16
        resumed = clock.now
        clock.now += 32
        assert phases.so_far()["train"] == 34
        with phases("data"):
            clock.now += 64
        assert phases.resumed == resumed
    phases.move("data", "train", 4)
    phases.close()
    clock.now += 128
    assert phases.now == "close"
    spent = {name: seconds for name, seconds in phases.so_far().items() if seconds}
    expected = {"start": 1, "train": 38, "evaluate": 20, "save": 8, "data": 60, "close": 128}
    assert spent == expected


@pytest.fixture
def watched(tmp_path, monkeypatch):
    phases = watchdog.Phases()
    watch = watchdog.Watchdog(phases, 10.0, end=lambda status: ends.append(status))
    watch.folder = tmp_path
    reports, ends = [], []
    monkeypatch.setattr(watch, "_write", reports.append)
    phases.finished()  # not the first step any more
    watch.look(1.0)

    def wait(looks, elapsed=1.0):
        """Looks, by default a second apart; how many reports and ends there were until then."""
        for _ in range(looks):
            watch.look(elapsed)
        return len(reports), ends

    return phases, wait, reports


def test_reports_then_ends(watched):
    phases, wait, reports = watched
    with phases("train"):
        assert wait(11) == (0, [])  # the first look sees that the phase began
        assert wait(1) == (1, [])
        assert wait(8) == (1, [])
        assert wait(2) == (2, [processes.EXIT_STATUS])
    assert (
        "process 0 of 1 has given no sign of life for 11 s in the phase 'train', 1 steps"
        in (reports[0])
    )
    assert "A device does not finish its step." in reports[0]
    assert "If it stays so, it ends in 10 s with status 76" in reports[0]
    assert "the same command continues from the newest checkpoint" in reports[0]
    assert "It ends now with status 76" in reports[1]


def test_signs_of_life_keep_it_quiet(watched):
    phases, wait, _ = watched
    with phases("evaluate"):
        for _ in range(30):
            wait(9)
            phases.beat()
    with phases("train"):
        assert wait(15) == (1, [])
        phases.finished()  # it has woken up, late
        assert wait(15) == (1, [])
        assert wait(54) == (1, [])  # five times the longest step that there was
        assert wait(3) == (2, [])


def test_a_long_compilation_does_not_make_it_patient(watched):
    phases, wait, _ = watched
    with phases("compile"):
        wait(1000)
    with phases("train"):
        phases.finished()
        wait(1)
        assert wait(11) == (1, [])


@pytest.mark.parametrize(
    ("phase", "patience"),
    [("start", math.inf), ("compile", math.inf), ("evaluate", 100), ("save", 100), ("data", 10)],
)
def test_phases_may_be_silent_for_different_times(watched, phase, patience):
    phases, wait, _ = watched
    with phases(phase):
        assert wait(min(patience, 2000)) == (0, [])
        assert wait(2)[0] == (0 if patience == math.inf else 1)


def test_the_first_step_may_take_longer(tmp_path, monkeypatch):
    phases = watchdog.Phases()
    watch = watchdog.Watchdog(phases, 10.0)
    reports = []
    monkeypatch.setattr(watch, "_write", reports.append)
    with phases("train"):
        for _ in range(99):
            watch.look(1.0)
        assert not reports
        for _ in range(3):
            watch.look(1.0)
        assert len(reports) == 1


def test_a_process_that_was_itself_stopped_is_not_taken_for_stalled(watched):
    phases, wait, _ = watched
    with phases("train"):
        wait(2)
        # The watchdog slept as long as everybody: a look an hour after the one before.
        assert wait(1, elapsed=3600.0) == (0, [])
        assert wait(7) == (0, [])
        assert wait(3) == (1, [])


def test_hints_and_allowances_know_the_same_phases():
    watched = {phase for phase, factor in watchdog.ALLOWANCES.items() if factor != math.inf}
    assert watchdog._HINTS.keys() == watched


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[1])
import toy

def hang(size, seconds):
    batches = toy_batches(size, seconds)
    def from_step(start):
        for step, batch in enumerate(batches(start), start):
            if step == 6:
                time.sleep(600)
            yield batch
    return from_step

toy_batches = toy.train_batches
toy.train_batches = hang
sys.argv = sys.argv[1:]
toy.main()
"""


def test_a_stalled_run_ends_and_can_be_continued(tmp_path):
    """In a process of its own: its data hang after the sixth step."""
    options = {"num_steps": 8, "log_every": 1, "eval_every": 0, "save_every": 3}
    options |= {"visualize": False, "tensorboard": False, "stall_seconds": 0.5}
    directory = str(toy.pathlib.Path(toy.__file__).parent)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, directory, str(tmp_path), json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == processes.EXIT_STATUS, done.stderr
    assert time.monotonic() - began < 100
    stacks = (tmp_path / "stalled-0.txt").read_text()
    for text in (done.stderr, stacks):
        assert "in the phase 'data', 6 steps after its start" in text
        assert "config.data.num_workers" in text
        assert "in from_step" in text  # where it hangs
        assert "It ends now with status 76" in text
    assert "stall: process 0 of 1" in (tmp_path / "train.log").read_text()
    results = toy.train(tmp_path, options | {"stall_seconds": 0.0}, config={"training": options})
    assert results["step"] == 8
    assert "continues from step 6" in (tmp_path / "train.log").read_text()
