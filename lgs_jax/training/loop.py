"""The training loop.

The order of a run is fixed: workdir, mesh, abstract state, shardings, restore (own checkpoint, else
`init_from`, else random), then: batch, step, the previous step's metrics, save, stop, evaluate.

No step waits for the one before: the loop runs ahead of the devices by `profiling.RUN_AHEAD` steps
and reads numbers back only where it logs, saves or evaluates (and, of several processes, where they
agree on stopping).

"Step s" is the state after s steps. A save at step s comes before the evaluation at step s, and a
run that starts at a step whose evaluation is due and was not written does it first; so it does not
matter at which moment a run was stopped.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax

from lgs_jax import files
from lgs_jax.training import (
    checkpoint,
    evaluation,
    logging,
    preemption,
    processes,
    profiling,
    start,
    watchdog,
)
from lgs_jax.training import mesh as meshes
from lgs_jax.training import state as states
from lgs_jax.training import workdir as workdirs
from lgs_jax.training.settings import TrainSettings

Batch = Mapping[str, Any]
WriteVisuals = Callable[[pathlib.Path, Mapping[str, Any]], list[pathlib.Path]]


class NonFiniteError(RuntimeError):
    """Too many steps in a row had a loss or a gradient that is not finite."""


# Errors whose message says all that a person needs.
ERRORS = (
    workdirs.WorkdirError,
    checkpoint.CheckpointError,
    NonFiniteError,
    processes.LostProcessError,
)


def train(
    task: Any,
    settings: TrainSettings,
    *,
    workdir: str | pathlib.Path,
    config_json: Mapping[str, Any],
    train_batches: Callable[[int], Iterator[Batch]],
    eval_batches: Callable[[], Iterator[Batch]],
    write_visuals: WriteVisuals,
    constants: tuple[Any, ...] = (),
    stop: preemption.StopSignal | None = None,
    data_report: Mapping[str, Any] | None = None,
    images_per_scene: int = 1,
    choices: Callable[[], Sequence[str]] = tuple,
    advise: Callable[[Mapping[str, float]], str] = lambda _: "",
) -> dict[str, Any]:
    """Trains a task to the end, or continues it from the newest checkpoint in the workdir.

    Args:
      task: a `tasks.task.Task`.
      settings: length, cadence, optimizer, devices.
      workdir: where everything is written.
      config_json: the whole configuration; saved with every checkpoint and compared on resume.
      train_batches: start step -> endless batches, this process's share of each; an iterator with
        `close()`, as generators are.
      eval_batches: the batches of one evaluation, this process's share of each, equally many on
        every process.
      write_visuals: writes what `task.visualize` returns.
      constants: trees of arrays that the task's functions take as further arguments; see
        `tasks.task.Task`.
      stop: asks the run to save and stop; None: nothing does.
      data_report: what the data sources left out and why; written to data_report.json.
      images_per_scene: views of a scene that a step sees, for the images per second.
      choices: what was decided while programs were compiled, in sentences for the log, each of
        which is written once; asked after every compilation.
      advise: what to change, told by the metrics of a step, in a sentence for the log, or nothing;
        asked wherever metrics are logged until it has said something.

    Returns:
      what was written to results.json.

    Raises:
      workdir.WorkdirError: if the workdir cannot be used, belongs to another configuration, or its
        disk is full.
      checkpoint.CheckpointError: if the newest checkpoint cannot be read, or one not written.
      preemption.Preempted: after saving, if `stop` asked for it.
      NonFiniteError: after more than `max_nonfinite` steps in a row that are not finite.
      processes.LostProcessError: if a step fails in a job of several processes.
    """
    phases = watchdog.Phases()
    with workdirs.disk_full_explained(workdir), contextlib.ExitStack() as stack:
        watch = stack.enter_context(watchdog.Watchdog(phases, settings.stall_seconds))
        run = start.open_run(task, settings, workdir, config_json, stack)
        watch.folder = run.files
        if data_report is not None and jax.process_index() == 0:
            files.write_json(run.files / "data_report.json", dict(data_report))
        constants = jax.device_put(constants, meshes.state_shardings(run.mesh, constants))
        evaluator = evaluation.Evaluator(
            task,
            run.mesh,
            seed=settings.seed,
            batches=eval_batches,
            write=write_visuals,
            constants=constants,
        )
        batches = train_batches(run.start_step)
        stack.callback(batches.close)
        stack.callback(phases.close)
        meters = phases, *_meters(run, phases, images_per_scene, stack)
        told = (stop or preemption.StopSignal(), choices, advise)
        loop = _Loop(run, evaluator, constants, *told, *meters)
        try:
            with phases("train"):
                return loop.go(batches)
        except ERRORS as error:
            run.log.note(f"error: {error}")
            raise
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if jax.process_count() == 1 or not processes.from_backend(error):
                raise
            # Nothing is closed: a save in flight would wait for the process that is lost.
            stack.pop_all()
            phases.close()
            raise processes.LostProcessError(error, run.place, loop.saved_step) from error


def _meters(
    run: start.Run, phases: watchdog.Phases, images: int, stack: contextlib.ExitStack
) -> tuple[profiling.Throughput, profiling.Tracer]:
    """What measures the run and what traces it; `stack` ends both."""
    settings = run.settings
    throughput = profiling.Throughput(
        phases,
        num_steps=settings.num_steps,
        scenes=settings.batch_size,
        images=images,
        devices=(run.mesh.size, jax.devices()[0].device_kind),
    )
    stack.callback(throughput.close)
    wanted = profiling.windows(settings.profile, settings.num_steps)
    tracer = profiling.Tracer(
        wanted if jax.process_index() == 0 else (),
        run.files / "profile",
        run.log.say,
        phases,
        shown=run.place / "profile",
    )
    stack.callback(tracer.close)
    return throughput, tracer


class _Loop:
    """The state of a run in progress that is not on the device."""

    def __init__(
        self,
        run: start.Run,
        evaluator: evaluation.Evaluator,
        constants: tuple[Any, ...],
        stop: preemption.StopSignal,
        choices: Callable[[], Sequence[str]],
        advise: Callable[[Mapping[str, float]], str],
        phases: watchdog.Phases,
        throughput: profiling.Throughput,
        tracer: profiling.Tracer,
    ):
        self.run = run
        self.constants = constants
        self.settings = run.settings
        self.log = run.log
        self.evaluator = evaluator
        self.stop = stop
        self.choices = choices
        self.said: set[str] = set()
        self.advise = advise
        self.advice = ""
        self.phases = phases
        self.throughput = throughput
        self.tracer = tracer
        self.saved_step = run.start_step
        self.last_save = time.monotonic()
        self.began = time.monotonic()
        self.streaks: list[tuple[int, jax.Array]] = []  # of steps not looked at yet

    def go(self, batches: Iterator[Batch]) -> dict[str, Any]:
        """Runs to the end and writes the results."""
        settings, state = self.settings, self.run.state
        pending: tuple[int, dict[str, jax.Array]] | None = None
        self.log.write_time("start", self.run.start_step, self.phases.so_far(), {})
        self.tracer.check(self.run.start_step)
        if self.run.start_step < settings.num_steps:
            batch = self._next_batch(batches)
            train_step = self._compile(state, batch)
        for done in range(self.run.start_step, settings.num_steps):
            if done and settings.eval_every and done % settings.eval_every == 0:
                pending = self._write(pending)
                self._evaluate(done, state)
            self.tracer.at(done, pending)
            with jax.profiler.StepTraceAnnotation("train", step_num=done + 1):
                state, metrics = train_step(state, batch, self.constants)
            self.throughput.dispatched(metrics["loss"])
            self._write(pending)  # if it is logged: waits for it while this one is running
            pending = (done + 1, metrics)
            save, leave = self._decide(done + 1)
            if save or leave:
                pending = self._write(pending)
                self._save(done + 1, state, wait=leave)
            if leave:
                self._leave(done + 1)
            if done + 1 < settings.num_steps:
                batch = self._next_batch(batches)
        self._write(pending)
        self.tracer.at(settings.num_steps, state)
        self._evaluate(settings.num_steps, state)
        with self.phases("save"):
            self.run.checkpoints.wait()
        return self._results()

    def _next_batch(self, batches: Iterator[Batch]) -> Batch:
        with self.phases("data"):
            began = time.monotonic()
            batch = next(batches)
            busy = self.throughput.busy_since(began)
        self.phases.move("data", "train", busy)  # nobody waited but the host
        return meshes.put_local_batch(self.run.mesh, batch)

    def _compile(self, state: states.TrainState, batch: Batch) -> Callable:
        """The compiled step. A batch of another shape is an error, not a silent recompilation."""
        jitted = start.jit_step(self.run.task, self.settings, self.run.mesh, state)
        began = time.monotonic()
        with self.phases("compile"):
            traced = jitted.trace(state, batch, self.constants)
            compiled = traced.lower().compile()
        flops = profiling.matmul_flops(traced.jaxpr)
        self.throughput.begin(flops)
        text = f"compiled the training step in {time.monotonic() - began:.1f} s"
        if (memory := compiled.memory_analysis()) is not None:
            size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
            text += f"; it needs {size / 2**30:.2f} GiB on each device"
        text += f"; {flops / 1e9:.4g} GFLOP of matrix products in a step"
        self.log.say(text)
        self._say_choices()
        return compiled

    def _say_choices(self) -> None:
        for text in self.choices():
            if text not in self.said:
                self.said.add(text)
                self.log.say(text)

    def _say_advice(self, metrics: Mapping[str, float]) -> None:
        if not self.advice and (text := self.advise(metrics)):
            self.advice = text
            self.log.say(text)

    def _write(self, pending: tuple[int, dict[str, jax.Array]] | None) -> None:
        """Logs a step whose turn it is; of the others nothing is read back from the devices."""
        if pending is None:
            return
        done, metrics = pending
        self.streaks.append((done, metrics["nonfinite_streak"]))
        if done % self.settings.log_every == 0 or done == self.settings.num_steps:
            values = self.log.write("train", done, jax.device_get(metrics))
            rates = self.throughput.report(done)
            rates = self.log.write_time("train", done, self.phases.so_far(), rates)
            line = logging.progress_line(done, self.settings.num_steps, values, rates)
            self.log.progress(line)
            self._say_advice(values)
            self._check_finite()
            self.run.checkpoints.check()

    def _check_finite(self) -> None:
        """Ends a run that has stopped learning; looks at the steps since it looked last."""
        streaks, self.streaks = jax.device_get(self.streaks), []
        for done, streak in streaks:
            if streak <= self.settings.max_nonfinite:
                continue
            raise NonFiniteError(
                f"step {done}: the loss or its gradient was not finite {streak} times in a row "
                f"(config.training.max_nonfinite={self.settings.max_nonfinite}); parameters are "
                f"those of step {done - streak}. Look for bad data, or lower "
                "config.optimizer.learning_rate in another --workdir (with "
                f"--config.training.init_from={self.run.place} to keep what was learnt)"
            )

    def _decide(self, done: int) -> tuple[bool, bool]:
        """Whether to save and whether to leave at this step; the same on every process."""
        settings = self.settings
        save = done == settings.num_steps
        save |= bool(settings.save_every) and done % settings.save_every == 0
        if jax.process_count() > 1 and done % settings.stop_check_every:
            return save, False
        late = 0 < settings.save_every_seconds <= time.monotonic() - self.last_save
        leave, late = preemption.agree(self.stop.requested, late)
        return save or late, leave

    def _save(self, done: int, state: states.TrainState, *, wait: bool) -> None:
        self._check_finite()
        with self.phases("save"):
            if done != self.saved_step:
                self.run.publish()
                about = {"step": done, "seconds": self._seconds()} | logging.environment()
                self.run.checkpoints.save(done, state, self.run.config, about)
                self.saved_step, self.last_save = done, time.monotonic()
            if wait:
                self.run.checkpoints.wait()

    def _evaluate(self, done: int, state: states.TrainState) -> None:
        """Evaluates unless that was done before a restart; leaves if it is asked to stop."""
        if self.log.last("eval", done) is None:
            with self.phases("evaluate"):
                self._evaluate_now(done, state)

    def _evaluate_now(self, done: int, state: states.TrainState) -> None:
        began = time.monotonic()
        visuals = (
            self.run.files / "visuals" / f"step_{done:08d}" if self.settings.visualize else None
        )
        metrics = self.evaluator(state.ema, visuals, self._interrupted)
        self._say_choices()
        if metrics is None:
            self._save(done, state, wait=True)
            self._leave(done)
        values = self.log.write("eval", done, metrics)
        self.run.publish()
        shown = " | ".join(f"{name} {value:.4g}" for name, value in sorted(values.items()))
        took = logging.duration(time.monotonic() - began)
        self.log.say(f"evaluation at step {done} | {shown} | took {took}")

    def _interrupted(self) -> bool:
        """Whether to leave an evaluation; asked before each of its batches."""
        self.phases.beat()
        return preemption.agree(self.stop.requested)[0]

    def _seconds(self) -> float:
        """Wall time of the run, that before restarts included."""
        return self.run.seconds_before + time.monotonic() - self.began

    def _leave(self, done: int) -> NoReturn:
        text = (
            f"{self.stop.reason or 'another process was asked to stop'}: stopped at step {done} of "
            f"{self.settings.num_steps}, saved in {self.run.place}; the same command continues it"
        )
        self.log.say(text)
        self.log.write_time("end", done, self.phases.so_far(), {})
        raise preemption.Preempted(text)

    def _results(self) -> dict[str, Any]:
        steps = self.settings.num_steps
        seconds = self.phases.so_far()
        times = self.log.write_time("end", steps, seconds, {})
        spent = self.log.spent(seconds)
        results = {
            "step": steps,
            "eval": self.log.last("eval", steps),
            "train": self.log.last("train"),
            "seconds": self._seconds(),
            "step_seconds": self.log.step_seconds(),
            "goodput": times["goodput"],
            "spent": spent,
            "seed": self.settings.seed,
            "config": self.run.config,
        } | logging.environment()
        self.log.write_results(results)
        self.log.say(f"goodput {times['goodput']:.1%} | {logging.time_line(spent)}")
        self.log.say(f"finished {steps} steps; results in {self.run.place / 'results.json'}")
        return results
