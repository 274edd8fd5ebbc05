"""The loop in one process: results, logs, evaluation, stopping, no retracing."""

import errno
import json
import pathlib
import threading

import jax
import numpy as np
import pytest
import toy

from lgs_jax import settings
from lgs_jax.training import checkpoint, logging, loop, preemption, workdir

SHORT = {
    "num_steps": 12,
    "log_every": 2,
    "eval_every": 5,
    "save_every": 4,
    "ema_decay": 0.5,
    "tensorboard": False,
    "optimizer": {"learning_rate": 0.03, "warmup_steps": 4},
}


class StopAt(preemption.StopSignal):
    """Is asked to stop when it has been looked at so many times."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0


def lines(workdir):
    return [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its task, workdir and results."""
    workdir = tmp_path_factory.mktemp("finished")
    task = toy.Toy()
    return task, workdir, toy.train(workdir, SHORT, task=task)


def test_leaves_what_its_docstring_promises(finished):
    _, workdir, results = finished
    written = lines(workdir)
    assert [x["step"] for x in written if x["kind"] == "train"] == [2, 4, 6, 8, 10, 12]
    assert [x["step"] for x in written if x["kind"] == "eval"] == [5, 10, 12]
    steps = [x["step"] for x in written]
    assert steps == sorted(steps)
    saved = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    assert saved == ["step_00000008", "step_00000012"]  # the two newest
    pictures = sorted(path.relative_to(workdir).as_posix() for path in workdir.rglob("*.npy"))
    assert pictures == [f"visuals/step_{s:08d}/first.npy" for s in (5, 10, 12)]
    assert json.loads((workdir / "results.json").read_text()) == results
    assert results["step"] == 12
    assert results["eval"]["mse"] == written[-1]["mse"]
    assert results["config"] == {"training": SHORT}
    log = (workdir / "train.log").read_text()
    assert "toy with 20 parameters" in log
    assert "step 10/12 | loss" in log
    assert "steps/s" in log


def test_one_trace_serves_all_steps(finished):
    assert finished[0].traces == 1


def test_step_tripwire(finished):
    """Pinned: a change of data order, random streams, schedule or optimizer shows here."""
    _, workdir, _ = finished
    first, last = lines(workdir)[0], lines(workdir)[-2]
    assert first["learning_rate"] == pytest.approx(0.015)
    # Another processor sums in another order; a change of anything that matters moves these by
    # per cents.
    assert first["loss"] == pytest.approx(0.641779, rel=1e-4)
    assert first["grad_norm"] == pytest.approx(0.837087, rel=1e-4)
    assert last["loss"] == pytest.approx(0.624321, rel=1e-4)
    assert last["param_norm"] == pytest.approx(2.426460, rel=1e-4)


def test_evaluation_is_the_exact_mean_over_what_is_not_padding(finished):
    _, workdir, results = finished
    _, params = checkpoint.restore_params(workdir)
    errors = []
    for batch in toy.eval_batches(8)():
        prediction = np.asarray(toy.Toy().predict(params, batch["x"]))
        errors.extend(((prediction - batch["y"]) ** 2)[batch["weight"] > 0])
    assert len(errors) == 20
    assert results["eval"]["mse"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_starting_a_finished_run_again_trains_nothing(finished):
    _, workdir, results = finished
    before = (workdir / "metrics.jsonl").read_text()
    task = toy.Toy()
    again = toy.train(workdir, SHORT, task=task)
    assert task.traces == 0
    assert again["eval"] == results["eval"]
    assert (workdir / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("looks", [1, 5, 6, 13])
def test_a_stopped_run_continues_to_the_same_end(finished, tmp_path, looks):
    """Looks: one after every step and one before every batch of an evaluation (at 5, 10, 12)."""
    _, uninterrupted, _ = finished
    with pytest.raises(preemption.Preempted, match="the same command continues it"):
        toy.train(tmp_path, SHORT, stop=StopAt(looks))
    assert "stopped at step" in (tmp_path / "train.log").read_text()
    toy.train(tmp_path, SHORT)
    written = (tmp_path / "metrics.jsonl").read_text()
    assert written == (uninterrupted / "metrics.jsonl").read_text()
    toy.assert_same_state(tmp_path, uninterrupted, SHORT)


def test_too_many_bad_steps_end_the_run(tmp_path):
    options = SHORT | {"max_nonfinite": 2, "eval_every": 0}
    task = toy.Toy(bad_steps=(1, 2, 4, 5, 6, 7))  # two in a row are allowed, three are not
    with pytest.raises(loop.NonFiniteError, match=r"step 7: .* 3 times in a row.*those of step 4"):
        toy.train(tmp_path, options, task=task)
    values = lines(tmp_path)[0]
    assert values["step"] == 2
    assert values["loss"] is None  # JSON has no NaN
    assert values["nonfinite_steps"] == 1
    # It is looked at where it is logged, and before anything is saved.
    rare = options | {"log_every": 100, "save_every": 8}
    with pytest.raises(loop.NonFiniteError, match=r"step 7: .* 3 times in a row"):
        toy.train(tmp_path / "rare", rare, task=toy.Toy(bad_steps=(4, 5, 6)))
    assert not list((tmp_path / "rare" / "checkpoints").iterdir())


class Reads:
    """Which step was prepared when the training thread read an array or waited for one."""

    def __init__(self, monkeypatch):
        self.steps = []
        self.prepared = 0
        kind = type(toy.jnp.zeros(()))
        value, wait = kind._value, kind.block_until_ready
        monkeypatch.setattr(kind, "_value", property(lambda x: self.note() or value.fget(x)))
        monkeypatch.setattr(kind, "block_until_ready", lambda x: self.note() or wait(x))
        for name in ("asarray", "array"):  # of an array on the CPU, NumPy takes the memory itself
            monkeypatch.setattr(np, name, self.convert(getattr(np, name)))
        monkeypatch.setattr(toy, "make_batch", self.prepare(toy.make_batch))

    def convert(self, function):
        def convert(x, *arguments, **options):
            if isinstance(x, toy.jax.Array):
                self.note()
            return function(x, *arguments, **options)

        return convert

    def note(self):
        if threading.current_thread() is threading.main_thread():
            self.steps.append(self.prepared)

    def prepare(self, make_batch):
        def make(step, size, seed=0):
            self.prepared = step
            return make_batch(step, size, seed)

        return make


def test_the_host_waits_for_no_step_that_it_does_not_log(tmp_path, monkeypatch):
    options = SHORT | {"num_steps": 12, "log_every": 5, "eval_every": 0, "save_every": 0}
    reads = Reads(monkeypatch)
    x = toy.jnp.ones(())
    for read in (float, int, np.asarray, toy.jax.device_get, toy.jax.block_until_ready):
        reads.steps.clear()
        read(x + 1)
        assert reads.steps, read  # it would be seen
    toy.train(tmp_path, options)
    # Step 5 is read once step 6 runs, with the batch of index 5; likewise 10. At the end the last
    # step is read, saved and evaluated.
    during = set(reads.steps) - {0, 11, 10_000, 10_001, 10_002}
    assert during == {5, 10}


def test_save_by_time(tmp_path):
    options = SHORT | {"save_every": 0, "save_every_seconds": 1e-9, "eval_every": 0}
    options |= {"keep_checkpoints": 20, "visualize": False, "num_steps": 4}
    toy.train(tmp_path, options)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4
    assert not (tmp_path / "visuals").exists()


def test_init_from_starts_with_the_averaged_parameters(finished, tmp_path):
    _, source, _ = finished
    options = SHORT | {"init_from": str(source), "num_steps": 1, "log_every": 1}
    options |= {"optimizer": {"learning_rate": 1e-12}}
    toy.train(tmp_path / "new", options)
    _, old = checkpoint.restore_params(source)
    _, new = checkpoint.restore_params(tmp_path / "new")
    np.testing.assert_allclose(new["hidden"]["kernel"], old["hidden"]["kernel"], rtol=1e-6)
    with pytest.raises(checkpoint.CheckpointError, match=r"\(3, 4\) there, \(3, 5\) here"):
        toy.train(tmp_path / "wide", options, task=toy.Toy(width=5))


def test_layers_that_init_from_lacks_start_at_random_where_allowed(finished, tmp_path):
    _, source, _ = finished

    class Deeper(toy.Toy):
        def init(self, key):
            return super().init(key) | {"more": {"kernel": jax.random.normal(key, (4, 4))}}

    options = SHORT | {"init_from": str(source), "num_steps": 1, "log_every": 1}
    options |= {"optimizer": {"learning_rate": 1e-12}}
    with pytest.raises(checkpoint.CheckpointError, match=r"init_missing=True"):
        toy.train(tmp_path / "refused", options, task=Deeper())
    toy.train(tmp_path / "deeper", options | {"init_missing": True}, task=Deeper())
    assert f"parameters of {source}, and random more" in (tmp_path / "deeper/train.log").read_text()
    _, old = checkpoint.restore_params(source)
    _, new = checkpoint.restore_params(tmp_path / "deeper")
    np.testing.assert_allclose(new["hidden"]["kernel"], old["hidden"]["kernel"], rtol=1e-6)
    assert np.std(new["more"]["kernel"]) > 0.1
    wide = toy.Toy(width=5)
    with pytest.raises(checkpoint.CheckpointError, match=r"\(3, 4\) there, \(3, 5\) here"):
        toy.train(tmp_path / "wide", options | {"init_missing": True}, task=wide)
    with pytest.raises(ValueError, match=r"init_missing=True needs init_from"):
        toy.train(tmp_path / "alone", SHORT | {"init_missing": True})


def test_says_once_what_was_chosen_while_compiling(tmp_path):
    chosen = []

    class Choosing(toy.Toy):
        def loss(self, params, batch, key):
            chosen.append("a loss of one's own")
            return super().loss(params, batch, key)

        def evaluate(self, params, batch, key):
            chosen.append("an evaluation by others")
            return super().evaluate(params, batch, key)

    options = SHORT | {"num_steps": 4, "eval_every": 2, "visualize": False}
    toy.train(tmp_path, options, task=Choosing(), choices=lambda: tuple(chosen * 2))
    log = (tmp_path / "train.log").read_text()
    compiled, loss, first, evaluated = (
        log.index(text)
        for text in ("compiled the", "a loss of", "an evaluation by", "evaluation at step 2")
    )
    assert compiled < loss < first < evaluated
    assert log.count("a loss of") == log.count("an evaluation by") == 1


def test_advice_on_logged_metrics_is_given_once(tmp_path):
    seen = []

    def advise(metrics):
        seen.append(metrics["loss"])
        return f"lower the loss of {metrics['loss']:.3f}" if len(seen) > 1 else ""

    options = SHORT | {"num_steps": 8, "log_every": 2, "eval_every": 0, "visualize": False}
    toy.train(tmp_path, options, advise=advise)
    log = (tmp_path / "train.log").read_text()
    assert len(seen) == 2  # of four logged steps
    assert log.count("lower the loss") == 1
    assert f"lower the loss of {seen[1]:.3f}" in log


def test_an_empty_evaluation_set_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="evaluation set is empty"):
        loop.train(
            toy.Toy(),
            settings.build(toy.TrainSettings, SHORT, "training"),
            workdir=tmp_path,
            config_json={},
            train_batches=toy.train_batches(8),
            eval_batches=lambda: iter(()),
            write_visuals=toy.write_visuals,
        )


needs_full = pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")


@needs_full
def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    (tmp_path / "train.log").symlink_to("/dev/full")
    message = r"a file of the run in .* cannot be written \(.*No space left.*\); make room there"
    with pytest.raises(workdir.WorkdirError, match=message):
        toy.train(tmp_path, SHORT)


@needs_full
def test_a_full_disk_does_not_hide_what_came_before(tmp_path):
    (tmp_path / "train.log").symlink_to("/dev/full")
    log = logging.RunLog(tmp_path, start_step=0, tensorboard=False)
    log.note("something")
    log.__exit__(RuntimeError, RuntimeError("the first"), None)  # raises no other error


def test_a_full_disk_is_told_where_events_would_not_be_written(tmp_path):
    with logging.RunLog(tmp_path, start_step=0, tensorboard=True) as log:
        log.scalars("time", 1, {"x": 1.0})

        def flush():
            raise OSError(errno.ENOSPC, "No space left on device")

        log._board.flush, flushes = flush, log._board.flush
        with pytest.raises(OSError, match="No space left"):
            log.scalars("time", 2, {"x": 1.0})
        log._board.flush = flushes
