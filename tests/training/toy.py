"""A tiny task for tests of the trainer, and a program that trains it.

    python toy.py WORKDIR '{"num_steps": 20}' [SECONDS_PER_STEP [COORDINATOR COUNT INDEX]]

The model fits y = tanh(x a) b; a batch is a function of the step. The last three arguments make it
one process of several.
"""

import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax import settings
from lgs_jax.metrics.mean import Mean
from lgs_jax.training import checkpoint, loop, preemption, processes, start
from lgs_jax.training import mesh as meshes
from lgs_jax.training.settings import TrainSettings


class Toy:
    """Two dense layers; counts how often its loss is traced."""

    def __init__(self, bad_steps=(), width=4, noise=0.1):
        self.bad_steps = jnp.array(bad_steps or (-1,))
        self.width = width
        self.noise = noise
        self.traces = 0

    def init(self, key):
        first, second = jax.random.split(key)
        return {
            "hidden": {
                "kernel": jax.random.normal(first, (3, self.width)),
                "bias": jnp.zeros(self.width),
            },
            "out": {"kernel": jax.random.normal(second, (self.width, 1)) * 0.1},
        }

    def predict(self, params, x):
        hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        return (hidden @ params["out"]["kernel"])[:, 0]

    def loss(self, params, batch, key):
        self.traces += 1
        noise = self.noise * jax.random.normal(key, batch["y"].shape)
        error = self.predict(params, batch["x"]) - batch["y"] - noise
        loss = jnp.mean(error**2)
        bad = jnp.any(batch["step"][0] == self.bad_steps)
        loss = jnp.where(bad, jnp.nan, loss)
        large = jnp.sum(jnp.abs(error) > 1.5)
        return loss, {"error": jnp.mean(jnp.abs(error)), "overflow": large.astype(jnp.int32)}

    def evaluate(self, params, batch, key):
        del key
        error = self.predict(params, batch["x"]) - batch["y"]
        return {"mse": Mean.of(error**2, batch["weight"])}

    def visualize(self, params, batch, key):
        return {"first": np.asarray(self.predict(params, batch["x"]))}

    def describe(self, params):
        return f"toy with {sum(x.size for x in jax.tree.leaves(params))} parameters"


def make_batch(step, size, seed=0):
    """The batch of a step."""
    rng = np.random.default_rng([seed, step])
    x = rng.normal(size=(size, 3)).astype(np.float32)
    y = np.sin(x.sum(-1)).astype(np.float32)
    return {"x": x, "y": y, "weight": np.ones(size, np.float32), "step": np.full(size, step)}


def train_batches(size, seconds=0.0):
    """start step -> batches, each delayed by some seconds."""

    def batches(start_step):
        step = start_step
        while True:
            time.sleep(seconds)
            yield share(make_batch(step, size))
            step += 1

    return batches


def share(batch):
    """This process's part of a batch."""
    count, index = jax.process_count(), jax.process_index()
    return {name: np.split(value, count)[index] for name, value in batch.items()}


def eval_batches(size):
    """Three batches; the last one is half padding."""

    def batches():
        for index in range(3):
            batch = make_batch(10_000 + index, size)
            if index == 2:
                batch["weight"][size // 2 :] = 0.0
                batch["y"][size // 2 :] = 1e6
            yield share(batch)

    return batches


def write_visuals(directory, visuals):
    """Saves every picture as a NumPy file."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, value in visuals.items():
        paths.append(directory / f"{name}.npy")
        np.save(paths[-1], value)
    return paths


def train(workdir, options, *, task=None, seconds=0.0, config=None, stop=None, **hooks):
    """Trains the toy task with `TrainSettings` made from a mapping."""
    train_settings = settings.build(TrainSettings, options, "config.training")
    size = train_settings.batch_size
    return loop.train(
        task or Toy(),
        train_settings,
        workdir=workdir,
        config_json=config or {"training": dict(options)},
        train_batches=train_batches(size, seconds),
        eval_batches=eval_batches(train_settings.evaluation_batch_size),
        write_visuals=write_visuals,
        stop=stop,
        **hooks,
    )


def final_state(workdir, options):
    """The newest saved state, and its step."""
    train_settings = settings.build(TrainSettings, options, "config.training")
    mesh = meshes.make(train_settings.mesh)
    folder, step = checkpoint.locate(workdir)
    with checkpoint.Checkpoints(folder, keep=100) as checkpoints:
        return checkpoints.restore(step, start.abstract_state(Toy(), train_settings, mesh)), step


def assert_same_state(workdir, other, options):
    """Fails unless the newest states of two runs are equal bit for bit."""
    (one, step), (two, other_step) = (final_state(folder, options) for folder in (workdir, other))
    assert step == other_step
    jax.tree.map(np.testing.assert_array_equal, one, two)


def main():
    workdir, options = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
    stop = preemption.StopSignal().install()
    if sys.argv[4:]:
        address, count, index = sys.argv[4:]
        jax.distributed.initialize(address, int(count), int(index))
    try:
        train(workdir, options, seconds=float(sys.argv[3]) if sys.argv[3:] else 0.0, stop=stop)
    except processes.LostProcessError as error:  # as lgs_jax.main does
        print(error, flush=True)
        processes.end_at_once(processes.EXIT_STATUS)


if __name__ == "__main__":
    main()
