"""What a run writes about itself."""

import json
import math

import pytest

from lgs_jax.training import compilation_cache, logging

METRICS = {"loss": 0.5, "nonfinite_steps": 0.0, "overflow_steps": 0.0}


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(logging.time, "monotonic", lambda: Clock.now)
    return Clock


def test_progress_line_shows_troubles_only_when_there_are_any():
    rates = {
        "steps_per_second": 2.0,
        "images_per_second": 96.0,
        "step_seconds_p50": 0.5,
        "step_seconds_p90": 0.51,
        "step_seconds_p99": 1.25,
        "data_wait_share": 0.25,
        "tflops_per_second": 1.5,
        "goodput": 0.9,
        "seconds_left": 3661.0,
    }
    line = logging.progress_line(5, 100, METRICS, rates)
    assert line == (
        "step   5/100 | loss 0.5 | 2 steps/s | p50/90/99 0.5/0.51/1.2 s | 96 images/s | "
        "1.5 TFLOP/s | data wait 25% | goodput 90% | ETA 1:01:01"
    )
    line = logging.progress_line(5, 100, METRICS, rates | {"mfu": 0.413})
    assert " | MFU 41.3% | " in line
    assert "TFLOP" not in line
    assert logging.progress_line(5, 100, METRICS, {"goodput": 0.0}) == "step   5/100 | loss 0.5"
    troubled = METRICS | {"nonfinite_steps": 2.0, "overflow_steps": 3.0}
    line = logging.progress_line(5, 100, troubled, {})
    assert line.endswith("skipped 2 steps (not finite) | overflow in 3 steps")


def test_the_terminal_is_throttled_and_the_file_is_complete(tmp_path, clock, capsys):
    with logging.RunLog(tmp_path, start_step=0, tensorboard=False) as log:
        for index in range(5):
            log.progress(f"line {index}")
            clock.now += 0.9
        log.say("message")
    assert capsys.readouterr().out.split("\n") == ["line 0", "line 3", "message", ""]
    expected = [*(f"line {i}" for i in range(5)), "message"]
    assert (tmp_path / "train.log").read_text().splitlines() == expected


def test_json_has_null_for_what_is_not_finite(tmp_path):
    with logging.RunLog(tmp_path, start_step=0, tensorboard=False) as log:
        values = log.write("train", 3, {"loss": math.nan, "norm": math.inf, "rate": 0.5})
        assert math.isnan(values["loss"])
        assert log.last("train") == {"loss": None, "norm": None, "rate": 0.5}
        assert log.last("eval") is None
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    expected = {"step": 3, "kind": "train", "loss": None, "norm": None, "rate": 0.5}
    assert json.loads(line) == expected


def test_only_the_first_process_writes(tmp_path, capsys):
    with logging.RunLog(tmp_path, start_step=0, tensorboard=True, primary=False) as log:
        log.say("a")
        log.progress("b")
        log.write("train", 1, METRICS)
        log.write_time("train", 1, {"train": 1.0}, {})
        log.write_results({})
        assert log.last("train") == METRICS  # but every process knows what was logged
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_the_scalars(tmp_path):
    with logging.RunLog(tmp_path, start_step=0, tensorboard=True) as log:
        log.write("train", 1, METRICS)
        log.write_time("train", 1, {"train": 1.0}, {"steps_per_second": 2.0})
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content
    assert b"time/steps_per_second" in content
    assert b"time/goodput" in content


@pytest.fixture
def _cache_setting():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(logging.jax.config, name) for name in names}
    yield
    for name, value in before.items():
        logging.jax.config.update(name, value)


@pytest.mark.usefixtures("_cache_setting")
def test_compilation_cache_goes_where_it_is_told(tmp_path, monkeypatch):
    config = logging.jax.config
    monkeypatch.setenv("LGS_JAX_CACHE", "off")
    before = config.jax_compilation_cache_dir
    assert "off" in compilation_cache.enable()
    assert config.jax_compilation_cache_dir == before

    monkeypatch.setenv("LGS_JAX_CACHE", str(tmp_path / "here"))
    assert str(tmp_path / "here") in compilation_cache.enable()
    assert config.jax_compilation_cache_dir == str(tmp_path / "here")

    monkeypatch.delenv("LGS_JAX_CACHE")
    config.update("jax_compilation_cache_dir", "/elsewhere")
    assert compilation_cache.enable() == "compilation cache: /elsewhere"

    config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    compilation_cache.enable()
    assert config.jax_compilation_cache_dir == str(tmp_path / ".cache" / "lgs_jax")

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LGS_JAX_CACHE", str(tmp_path / "file" / "x"))
    assert "cannot be made (Not a directory); set LGS_JAX_CACHE" in compilation_cache.enable()
