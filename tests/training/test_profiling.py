"""Rates, FLOPs, traces and goodput."""

import gzip
import json
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from lgs_jax.settings import SettingsError
from lgs_jax.training import logging, preemption, profiling, watchdog
from lgs_jax.training import settings as training_settings

SHORT = {
    "num_steps": 8,
    "log_every": 4,
    "eval_every": 0,
    "save_every": 0,
    "visualize": False,
    "tensorboard": False,
}


class Outcome:
    """Stands for the result of a step that is done when the test says so."""

    def __init__(self):
        self.done = threading.Event()

    def block_until_ready(self):
        assert self.done.wait(10)


def finish(phases, outcome):
    """Finishes a step and waits until that has been seen."""
    before = phases.steps
    outcome.done.set()
    while phases.steps == before:
        time.sleep(0.0005)


@pytest.fixture
def phases():
    return watchdog.Phases()


@pytest.fixture
def rates(phases):
    rates = profiling.Throughput(
        phases, num_steps=100, scenes=8, images=6, devices=(2, "TPU v5 lite")
    )
    rates.begin(flops=1e12)
    yield rates
    rates.close()


def take(rates, phases, seconds):
    """One step of a length; returns what the clock says of it."""
    outcome = Outcome()
    began = time.monotonic()
    rates.dispatched(outcome)
    time.sleep(seconds)
    finish(phases, outcome)
    return time.monotonic() - began


def test_rates_leave_out_the_first_step_and_pauses(rates, phases):
    take(rates, phases, 0.1)
    assert rates.report(1) == {}
    taken = [take(rates, phases, 0.01) for _ in range(9)]
    with phases("evaluate"):
        time.sleep(0.2)
    taken.append(take(rates, phases, 0.05))
    report = rates.report(20)
    assert report["steps_per_second"] == pytest.approx(10 / sum(taken), rel=0.2)
    assert report["step_seconds_p50"] < 0.04 < report["step_seconds_p99"] < 0.2
    rate = report["steps_per_second"]
    assert report["scenes_per_second"] == pytest.approx(8 * rate)
    assert report["images_per_second"] == pytest.approx(48 * rate)
    assert report["tflops_per_second"] == pytest.approx(rate)
    assert report["mfu"] == pytest.approx(rate * 1e12 / (2 * 197e12))
    assert report["seconds_left"] == pytest.approx(80 / rate)
    assert report["data_wait_share"] == 0.0
    assert rates.report(20) == {}


def test_waiting_for_data_counts_while_no_step_runs(rates, phases):
    take(rates, phases, 0.0)
    rates.report(1)
    outcome = Outcome()
    rates.dispatched(outcome)
    began = time.monotonic()
    time.sleep(0.02)
    assert rates.busy_since(began) == pytest.approx(time.monotonic() - began, abs=0.01)
    finish(phases, outcome)
    time.sleep(0.05)
    waited = time.monotonic() - began
    assert 0.02 <= rates.busy_since(began) <= waited - 0.05
    assert rates.busy_since(time.monotonic()) == pytest.approx(0.0, abs=1e-3)


def test_the_host_runs_ahead_by_no_more_than_it_should(rates, phases):
    outcomes = [Outcome() for _ in range(profiling.RUN_AHEAD + 1)]
    handed = []

    def hand():
        for outcome in outcomes:
            rates.dispatched(outcome)
            handed.append(outcome)

    thread = threading.Thread(target=hand)
    thread.start()
    time.sleep(0.05)
    assert len(handed) == profiling.RUN_AHEAD
    for outcome in outcomes:
        finish(phases, outcome)
    thread.join()
    assert len(handed) == len(outcomes)


def flops_of(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return profiling.matmul_flops(jax.jit(function).trace(*arguments).jaxpr)


def convolution(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_flops_of_products_and_convolutions_are_those_of_the_hand():
    assert flops_of(jnp.matmul, (3, 5, 7), (3, 7, 11)) == 2 * 3 * 5 * 7 * 11
    assert flops_of(convolution, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * (2 * 8 * 8) * 9 * 3 * 5
    # A gradient with respect to both factors costs twice the product.
    forward = 2 * (2 * 4 * 4) * 9 * 3 * 5
    for stride in (1, 2):
        gradient = jax.grad(lambda x, k, s=stride: convolution(x, k, s).sum(), argnums=(0, 1))
        size = 4 * stride
        total = flops_of(gradient, (2, size, size, 3), (3, 3, 3, 5))
        assert total == pytest.approx(3 * forward)


def test_flops_in_loops_branches_and_kernels():
    product = 2 * 4**3

    def scan(x):
        return jax.lax.scan(lambda c, _: (jax.checkpoint(jnp.matmul)(c, c), None), x, None, 10)[0]

    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, lambda y: y @ y, x)

    def loop(x):
        return jax.lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ y, x)

    assert flops_of(scan, (4, 4)) == 10 * product
    assert flops_of(branch, (4, 4)) == 2 * product
    assert flops_of(loop, (4, 4)) == product

    # XLA counts the body of a loop once, which is why it is not asked.
    compiled = jax.jit(scan).lower(jnp.eye(4)).compile()
    assert compiled.cost_analysis()["flops"] < 2 * product

    mesh = jax.sharding.AbstractMesh((2,), ("data",))
    spec = jax.sharding.PartitionSpec("data")
    shard = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=spec, out_specs=spec)
    assert flops_of(shard, (8, 4)) == 2 * product


def test_a_kernel_counts_what_it_states():
    pallas = pytest.importorskip("jax.experimental.pallas")

    def kernel(x, out):
        out[...] = x[...] @ x[...]

    shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    estimate = pallas.CostEstimate(flops=77, transcendentals=0, bytes_accessed=0)
    stated = pallas.pallas_call(kernel, shape, cost_estimate=estimate, interpret=True)
    assert flops_of(stated, (4, 4)) == 77
    assert flops_of(pallas.pallas_call(kernel, shape, interpret=True), (4, 4)) == 0


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("cpu", None),
        ("NVIDIA GeForce RTX 3090", None),
    ],
)
def test_peaks_by_kind_of_device(kind, peak):
    assert profiling.peak_flops(kind) == peak


def test_no_mfu_without_a_peak(phases):
    rates = profiling.Throughput(phases, num_steps=9, scenes=1, images=1, devices=(1, "cpu"))
    for _ in range(2):
        take(rates, phases, 0.0)
    assert "mfu" not in rates.report(2)
    rates.close()


def test_windows_are_read():
    assert profiling.windows("", 10) == ()
    assert profiling.windows("2:5, 5:10", 10) == ((2, 5), (5, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (5, "'5' is no range of steps; expected FIRST:LAST"),
        ("5:5", "with FIRST < LAST"),
        ("6:8,2:4", "'2:4' is no range.*ascending"),
        ("2:4,", "'' is no range"),
        ("-1:4", "'-1:4' is no range"),
        ("8:11", r"config\.profile='8:11': the run has only 10 steps"),
    ],
)
def test_windows_that_cannot_be_are_refused_before_training(text, message):
    config = {"task": "toy", "seed": 0, "data": {}, "training": {"num_steps": 10}}
    with pytest.raises(SettingsError, match=message):
        training_settings.from_config(config | {"profile": text})
    assert training_settings.from_config(config | {"profile": "8:10"}).profile == "8:10"


class Profiler:
    """Stands for jax.profiler, whose traces take seconds to write."""

    def __init__(self, monkeypatch):
        self.calls = []
        monkeypatch.setattr(jax.profiler, "start_trace", self.start)
        monkeypatch.setattr(jax.profiler, "stop_trace", lambda: self.calls.append("stop"))

    def start(self, folder, create_perfetto_trace, profiler_options):
        assert create_perfetto_trace
        assert profiler_options.python_tracer_level == 0
        assert folder.is_dir()
        self.calls.append(folder.name)


def test_a_run_traces_the_steps_it_is_told_to(tmp_path):
    toy.train(tmp_path, SHORT | {"profile": "3:6"})
    folder = tmp_path / "profile"
    (file,) = folder.rglob("*perfetto_trace.json.gz")
    assert list(folder.rglob("*.xplane.pb"))
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [event["args"]["step_num"] for event in events if event.get("name") == "train"]
    assert sorted(map(int, steps)) == [4, 5, 6]  # the steps of these numbers in the log
    log = (tmp_path / "train.log").read_text()
    assert f"trace of the steps 3:6 in {folder}: open {file.relative_to(folder)} at" in log


def test_several_windows_and_one_that_is_open_at_the_end(tmp_path, monkeypatch):
    profiler = Profiler(monkeypatch)
    toy.train(tmp_path, SHORT | {"profile": "1:2,2:4,6:8"})
    first, second, third = (f"steps_{a:08d}_{b:08d}" for a, b in ((1, 2), (2, 4), (6, 8)))
    assert profiler.calls == [first, "stop", second, "stop", third, "stop"]


def test_a_run_that_is_stopped_leaves_its_trace(tmp_path, monkeypatch):
    profiler = Profiler(monkeypatch)
    stop = preemption.StopSignal()
    options = SHORT | {"profile": "1:2,3:8"}
    steps = iter(range(9))

    class Stop(preemption.StopSignal):
        requested = property(lambda self: next(steps) == 4)

    stop = Stop()
    with pytest.raises(preemption.Preempted):
        toy.train(tmp_path, options, stop=stop)
    assert profiler.calls[2:] == ["steps_00000003_00000008", "stop"]
    assert "trace of the steps 3:4 in" in (tmp_path / "train.log").read_text()
    toy.train(tmp_path, options)
    log = (tmp_path / "train.log").read_text()
    assert "config.profile: the run is at step 5; of 1:2 none is traced" in log
    assert "config.profile: the run is at step 5; of 3:8 5:8 is traced" in log
    assert profiler.calls[4:] == ["steps_00000003_00000008", "stop"]


def test_goodput_of_a_run_that_was_restarted(tmp_path, monkeypatch):
    """Two starts: 10 steps of 6 s, of which 4 are repeated, then the rest."""
    spent = dict.fromkeys(watchdog.ALLOWANCES, 0.0)
    with logging.RunLog(tmp_path, start_step=0, tensorboard=False) as log:
        log.write_time("start", 0, spent | {"start": 10.0}, {})
        log.write_time("train", 5, spent | {"start": 10.0, "compile": 30.0, "train": 30.0}, {})
        late = spent | {"start": 10.0, "compile": 30.0, "train": 60.0, "data": 5.0}
        assert log.write_time("train", 10, late, {"rate": 1.0}) == {
            "rate": 1.0,
            "goodput": pytest.approx(60 / 105),
        }
    with (tmp_path / "timings.jsonl").open("a") as file:
        file.write('{"step": 11, "kind": "tr')  # killed while writing
    with logging.RunLog(tmp_path, start_step=6, tensorboard=False) as log:
        again = spent | {"start": 10.0}
        assert log.write_time("start", 6, again, {})["goodput"] == pytest.approx(36 / 115)
        again |= {"train": 24.0, "save": 1.0}
        assert log.write_time("end", 10, again, {})["goodput"] == pytest.approx(60 / 140)
        assert log.spent(again)["lost"] == pytest.approx(24.0)
        assert log.spent(again)["start"] == pytest.approx(20.0)
    lines = [json.loads(text) for text in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["start", "train", "train", "start", "end"]
    # An older checkpoint is taken up: all but its steps is lost.
    assert logging.time_before(lines, 0)["lost"] == pytest.approx(84.0)
    shown = logging.time_line({"train": 60.0, "lost": 24.0, "compile": 36.0, "save": 0.0})
    assert shown == "time 0:02:00: train 50.0%, compile 30.0%, lost 20.0%"


def test_the_time_of_a_step_is_that_of_all_starts(tmp_path):
    spent = dict.fromkeys(watchdog.ALLOWANCES, 0.0) | {"train": 1.0}
    with logging.RunLog(tmp_path, start_step=0, tensorboard=False) as log:
        assert log.step_seconds() is None
        log.write_time("start", 0, spent, {})
        for step, median in ((5, 0.5), (10, 9.0)):  # once the machine was busy
            log.write_time("train", step, spent, {"step_seconds_p50": median})
    with logging.RunLog(tmp_path, start_step=10, tensorboard=False) as log:
        log.write_time("train", 15, spent, {"step_seconds_p50": 0.6})
        assert log.step_seconds() == pytest.approx(0.6)


def test_a_run_accounts_for_its_time(tmp_path):
    began = time.monotonic()
    results = toy.train(tmp_path, SHORT, seconds=0.02)
    seconds = time.monotonic() - began
    spent = results["spent"]
    assert sum(spent.values()) == pytest.approx(seconds, rel=0.1)
    assert spent["data"] > 0.05  # the toy's steps are much shorter than its waits
    assert 0 < results["goodput"] == pytest.approx(spent["train"] / sum(spent.values()), rel=0.05)
    line = json.loads((tmp_path / "timings.jsonl").read_text().splitlines()[1])
    assert (line["kind"], line["step"]) == ("train", 4)
    assert line["data_wait_share"] > 0.3
    assert results["step_seconds"] > 0
    assert np.isfinite([value for name, value in line.items() if name.startswith("step_")]).all()
