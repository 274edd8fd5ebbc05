"""Constants of a task: arguments of every compiled program, neither trained nor saved."""

import jax
import jax.numpy as jnp
import numpy as np
import toy

from lgs_jax import settings
from lgs_jax.training import checkpoint, loop, optimizer, state, step
from lgs_jax.training.settings import TrainSettings

SHORT = {"num_steps": 4, "log_every": 1, "eval_every": 0, "batch_size": 4, "tensorboard": False}


class ToyWithOffset(toy.Toy):
    """The toy task whose data are moved by a frozen offset."""

    def loss(self, params, batch, key, frozen):
        return super().loss(params, self.moved(batch, frozen), key)

    def evaluate(self, params, batch, key, frozen):
        return super().evaluate(params, self.moved(batch, frozen), key)

    def visualize(self, params, batch, key, frozen):
        return {"offset": np.asarray(frozen["offset"])}

    def moved(self, batch, frozen):
        return batch | {"y": batch["y"] + frozen["offset"][: batch["y"].shape[0]]}


def train(workdir, offset, **options):
    train_settings = settings.build(TrainSettings, SHORT | options, "config.training")
    return loop.train(
        ToyWithOffset(),
        train_settings,
        workdir=workdir,
        config_json={"training": SHORT},
        train_batches=toy.train_batches(4),
        eval_batches=toy.eval_batches(4),
        write_visuals=toy.write_visuals,
        constants=({"offset": np.full(8, offset, np.float32)},),
    )


def test_a_run_passes_its_constants_on_and_does_not_save_them(tmp_path):
    plain = toy.train(tmp_path / "plain", SHORT)
    none = train(tmp_path / "none", 0.0)
    moved = train(tmp_path / "moved", 3.0)
    assert none["train"]["loss"] == plain["train"]["loss"]
    assert none["eval"] == plain["eval"]
    assert moved["train"]["loss"] > 2 * plain["train"]["loss"]
    assert moved["eval"]["mse"] > 2 * plain["eval"]["mse"]
    picture = tmp_path / "moved" / "visuals" / "step_00000004" / "offset.npy"
    assert (np.load(picture) == 3.0).all()
    _, params = checkpoint.restore_params(tmp_path / "moved")
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, toy.Toy().init(jax.random.key(0))
    )


def test_microbatches_share_them(tmp_path):
    whole, split = (
        train(tmp_path / str(parts), 3.0, accumulate_steps=parts, num_steps=1) for parts in (1, 2)
    )
    # The noise differs (0.1 of errors of size 3), the offset does not.
    np.testing.assert_allclose(split["train"]["loss"], whole["train"]["loss"], rtol=0.2)


def test_they_are_arguments_of_the_compiled_step():
    transform = optimizer.OptimizerSettings()
    task, large = ToyWithOffset(), {"offset": jnp.zeros(2**18)}

    @jax.jit
    def one(current, batch, constants):
        return step.train_step(
            current,
            batch,
            constants,
            loss_fn=task.loss,
            optimizer_settings=transform,
            num_steps=4,
            ema_decay=0.9,
            accumulate_steps=1,
            seed=0,
        )

    start = state.create(task.init(jax.random.key(0)), optimizer.make(transform))
    compiled = one.lower(start, toy.make_batch(0, 4), (large,)).compile()
    assert compiled.memory_analysis().argument_size_in_bytes > large["offset"].nbytes
    size = sum(x.nbytes for x in jax.tree.leaves(start))
    assert compiled.memory_analysis().output_size_in_bytes < size + 1000
