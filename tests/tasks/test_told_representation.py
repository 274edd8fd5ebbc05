"""A denoiser is told what a training picture shows; from nothing, what a similar one shows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.models.conditioning import NO_CLASS, Conditioning
from lgs_jax.tasks import diffusion, make_task

SIZE = 3
BANK = [[4.0, 0.0, 0.0], [0.0, -4.0, 1.0]]
MODEL = {
    "latent_channels": 2,
    "compression": 4,
    "representation_size": SIZE,
    "embedding_size": 8,
    "widths": (8,),
    "blocks_per_level": 1,
    "middle_blocks": 0,
    "attention_levels": (),
    "num_heads": 1,
}


@pytest.fixture(scope="module")
def frozen():
    return tiny.make()


def make(frozen, recorded):
    config = {"task": "diffusion", "data": tiny.CONFIG["data"], "model": MODEL}
    config |= {"sampler": {"steps": 2}, "diffusion": {"class_drop": 0.25, "unconditional": 0.5}}
    return make_task("diffusion", config | recorded, frozen)


@pytest.fixture
def task(frozen):
    return make(frozen, {"representations": BANK})


@pytest.fixture
def told(task, monkeypatch):
    """The conditions that the network is called with."""
    found = []

    def raw(params, z, log_snr, condition):
        found.append(condition)
        return jnp.zeros_like(z)

    monkeypatch.setattr(task, "raw", raw)
    return found


def make_condition(known, count=4, **more):
    _, cameras = tiny.make_views(count)
    latents = jnp.zeros((count, tiny.VIEWS, 4, 4, 2))
    return Conditioning(cameras, latents, jnp.asarray(known), jnp.full(count, NO_CLASS), **more)


def test_training_tells_the_batch_s_where_no_view_is_known(task, frozen, told):
    batch = tiny.make_batch(64)
    batch["representation"] = np.random.default_rng(0).standard_normal((64, SIZE), "f4")
    task.loss({}, batch, jax.random.key(0), frozen)
    condition = told[0]
    np.testing.assert_array_equal(condition.representation, batch["representation"])
    seen = np.asarray(condition.known_mask).any(axis=1)
    represented = np.asarray(condition.represented)
    assert not represented[seen].any()
    assert 0.5 < represented[~seen].mean() < 1  # 0.75 of about 32


def test_a_scene_from_nothing_gets_one_of_its_own(task, told):
    known = np.zeros((4, tiny.VIEWS), bool)
    known[1, 0] = True
    condition = make_condition(known)
    task.sample({}, condition, jax.random.key(0))
    first = told[0]
    assert first.representation.shape == (4, SIZE)
    assert first.represented.tolist() == [True, False, True, True]
    # Scene i depends on its own key alone, and all scenes differ.
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(4))
    task.sample({}, jax.tree.map(lambda x: x[2:3], condition), keys[2:3])
    np.testing.assert_array_equal(told[-1].representation[0], first.representation[2])
    assert len(np.unique(first.representation)) == 4 * SIZE


def test_it_lies_near_one_of_a_training_picture(task, told):
    task.sample({}, make_condition(np.zeros((3000, tiny.VIEWS), bool), 3000), jax.random.key(3))
    drawn = np.asarray(told[0].representation)
    scale = np.sqrt(1 - 0.3**2)
    distances = np.linalg.norm(drawn[:, None] - scale * np.float32(BANK), axis=-1)
    # Noise of 0.3 in 3 dimensions: above 1.3 lies one in 4,000.
    assert (distances.min(axis=1) < 1.3).mean() > 0.995
    shares = np.bincount(distances.argmin(axis=1), minlength=2) / 3000
    np.testing.assert_allclose(shares, 0.5, atol=0.05)
    spread = np.std(drawn[distances.argmin(axis=1) == 0], axis=0)
    np.testing.assert_allclose(spread, 0.3, atol=0.03)


def test_without_any_to_draw_from_none_is_told(frozen, monkeypatch):
    task = make(frozen, {})
    monkeypatch.setattr(task, "raw", lambda _, z, log_snr, condition: seen.append(condition) or z)
    seen = []
    task.sample({}, make_condition(np.zeros((4, tiny.VIEWS), bool)), jax.random.key(3))
    assert seen[0].representation is None


def test_what_is_given_is_kept(task, told):
    given = make_condition(
        np.zeros((4, tiny.VIEWS), bool),
        representation=jnp.ones((4, SIZE)),
        represented=jnp.array([True, False, True, False]),
    )
    sampler = dataclasses.replace(task.sampler, guidance=2.0)
    task.sample({}, given, jax.random.key(0), sampler)
    np.testing.assert_array_equal(told[0].representation, given.representation)
    # Guidance leads away from a network that is told nothing.
    assert {tuple(c.represented.tolist()) for c in told} == {
        (True, False, True, False),
        (False,) * 4,
    }


def test_truncated_it_lies_near_a_typical_one(task, told):
    sampler = dataclasses.replace(task.sampler, truncation=0.5)
    known = np.zeros((300, tiny.VIEWS), bool)
    task.sample({}, make_condition(known, 300), jax.random.key(3), sampler)
    drawn = np.asarray(told[0].representation)
    assert np.linalg.norm(drawn - np.sqrt(1 - 0.3**2) * np.float32(BANK[0]), axis=-1).max() < 1.5


def test_the_typical_are_those_of_the_smallest_norms():
    four = np.float32([[3, 0], [0, 1], [-4, 0], [0, -2]])
    np.testing.assert_array_equal(diffusion.typical(four, 0.5), four[[1, 3]])
    np.testing.assert_array_equal(diffusion.typical(four, 1.0), four)
    np.testing.assert_array_equal(diffusion.typical(four, 0.01), four[[1]])


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_keeps_none_or_more_than_all_is_refused(frozen, share):
    with pytest.raises(settings.SettingsError, match=rf"truncation={share:g}.*above 0, at most 1"):
        make(frozen, {"representations": BANK, "sampler": {"truncation": share}})
