"""One training step: accumulation, the NaN guard, the running average, what is logged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from lgs_jax.training import mesh as meshes
from lgs_jax.training import optimizer, start, state, step
from lgs_jax.training.settings import TrainSettings

SETTINGS = optimizer.OptimizerSettings(learning_rate=0.01, warmup_steps=0, weight_decay=0.01)


@pytest.fixture(autouse=True)
def _mesh():
    with jax.set_mesh(meshes.make(meshes.MeshSettings(data=1))):
        yield


def make_step(task, *, accumulate_steps=1, ema_decay=0.999):
    return jax.jit(
        functools.partial(
            step.train_step,
            loss_fn=task.loss,
            optimizer_settings=SETTINGS,
            num_steps=100,
            ema_decay=ema_decay,
            accumulate_steps=accumulate_steps,
            seed=0,
        )
    )


def first_state(task):
    return state.create(task.init(jax.random.key(1)), optimizer.make(SETTINGS))


def test_accumulated_gradient_equals_that_of_the_whole_batch():
    task = toy.Toy(noise=0.0)
    start, batch = first_state(task), toy.make_batch(0, 12)
    whole, metrics = make_step(task)(start, batch)
    for parts in (2, 3, 6):
        split, split_metrics = make_step(task, accumulate_steps=parts)(start, batch)
        # Float32 sums in another order; Adam divides by the root of the gradient's square, so
        # the gradient's relative error of about 1e-6 arrives undamped in parameters of size 1.
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=2e-6), split.params, whole.params
        )
        np.testing.assert_allclose(split_metrics["grad_norm"], metrics["grad_norm"], rtol=1e-5)
        np.testing.assert_allclose(split_metrics["error"], metrics["error"], rtol=1e-5)
        np.testing.assert_allclose(split_metrics["loss"], metrics["loss"], rtol=1e-5)
        assert split_metrics["overflow"] == metrics["overflow"]  # counts are added


def test_microbatches_get_different_noise():
    def loss(params, batch, key):
        return jnp.sum(params) * 0.0, {"draw": jax.random.normal(key)}

    batch = {"x": jnp.zeros((4, 1))}
    key = jax.random.key(0)
    _, metrics, _ = step.accumulated_gradient(loss, jnp.zeros(2), batch, key, 2)
    draws = [float(jax.random.normal(jax.random.fold_in(key, i))) for i in range(2)]
    assert float(metrics["draw"]) == pytest.approx(np.mean(draws), rel=1e-5)


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters():
    task = toy.Toy(bad_steps=(1, 2))
    one = make_step(task)
    before, metrics = one(first_state(task), toy.make_batch(0, 8))
    assert (metrics["nonfinite_streak"], metrics["nonfinite_steps"]) == (0, 0)
    current = before
    for number in (1, 2):
        current, metrics = one(current, toy.make_batch(number, 8))
        assert np.isnan(metrics["loss"])
        assert metrics["update_norm"] == 0
        assert (metrics["nonfinite_streak"], metrics["nonfinite_steps"]) == (number, number)
        for name in ("params", "opt_state", "ema"):
            jax.tree.map(
                np.testing.assert_array_equal, getattr(current, name), getattr(before, name)
            )
    assert current.step == 3
    current, metrics = one(current, toy.make_batch(3, 8))
    assert (metrics["nonfinite_streak"], metrics["nonfinite_steps"]) == (0, 2)
    assert not np.array_equal(current.params["hidden"]["kernel"], before.params["hidden"]["kernel"])


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is_finite():
    def loss(params, batch, key):
        return jnp.sum(jnp.sqrt(params["kernel"])), {}  # the root's slope at 0 is infinite

    start = state.create({"kernel": jnp.zeros(3)}, optimizer.make(SETTINGS))
    task = toy.Toy()
    task.loss = loss
    after, metrics = make_step(task)(start, {"x": jnp.zeros((2, 1))})
    assert np.isfinite(metrics["loss"])
    assert metrics["nonfinite_steps"] == 1
    np.testing.assert_array_equal(after.params["kernel"], 0.0)


def test_average_follows_its_formula():
    task = toy.Toy()
    current = first_state(task)
    one = make_step(task, ema_decay=0.2)
    expected = np.asarray(current.params["hidden"]["kernel"], np.float64)
    for number, decay in enumerate([1 / 10, 2 / 11, 0.2, 0.2]):  # (1 + s) / (10 + s) up to 0.2
        current, _ = one(current, toy.make_batch(number, 8))
        now = np.asarray(current.params["hidden"]["kernel"], np.float64)
        expected = decay * expected + (1 - decay) * now
        np.testing.assert_allclose(current.ema["hidden"]["kernel"], expected, rtol=1e-5)


def test_without_decay_the_average_is_the_parameters():
    task = toy.Toy()
    after, _ = make_step(task, ema_decay=0.0)(first_state(task), toy.make_batch(0, 8))
    jax.tree.map(np.testing.assert_array_equal, after.ema, after.params)


def test_logged_norms_and_overflow():
    task = toy.Toy(noise=0.0)
    start = first_state(task)
    batch = toy.make_batch(0, 8) | {"y": np.full(8, 5.0, np.float32)}  # far off: overflow > 0
    after, metrics = make_step(task)(start, batch)
    flat = {
        name: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        for name, tree in (("before", start.params), ("after", after.params))
    }
    moved = np.linalg.norm(flat["after"] - flat["before"])
    # The difference of parameters of size 1 keeps about 1e-7 / 1e-2 of an update of size 1e-2.
    np.testing.assert_allclose(metrics["update_norm"], moved, rtol=1e-4)
    np.testing.assert_allclose(metrics["param_norm"], np.linalg.norm(flat["after"]), rtol=1e-6)
    assert metrics["learning_rate"] == pytest.approx(0.01)
    assert (metrics["overflow"], metrics["overflow_steps"]) == (8, 1)


def test_refuses_a_task_metric_with_a_name_of_the_trainer():
    task = toy.Toy()
    task.loss = lambda params, batch, key: (jnp.float32(0), {"grad_norm": jnp.float32(0)})
    with pytest.raises(ValueError, match=r"\['grad_norm'\] are names that the trainer logs"):
        make_step(task)(first_state(toy.Toy()), toy.make_batch(0, 2))


def test_the_compiled_step_writes_the_new_state_in_place_of_the_old():
    """All of its bytes, which are otherwise needed twice."""
    mesh = meshes.make(meshes.MeshSettings(data=1))
    task, settings = toy.Toy(width=600), TrainSettings(num_steps=4)
    before = start.abstract_state(task, settings, mesh)
    batch = meshes.put_local_batch(mesh, toy.make_batch(0, 8))
    compiled = start.jit_step(task, settings, mesh, before).lower(before, batch).compile()
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(before))
    assert size > 4 * 4 * 3 * 600  # a kernel of 3 x 600, its two moments and its average
    assert compiled.memory_analysis().alias_size_in_bytes == size
