"""Random streams: a key depends on seed, stream and step, and on nothing else."""

import jax
import numpy as np

from lgs_jax.core import streams


def data(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_keys_differ_by_seed_stream_and_step():
    keys = {
        data(streams.stream_key(streams.root_key(seed), stream, step))
        for seed in range(3)
        for stream in ("init", "noise", "dropout")
        for step in range(5)
    }
    assert len(keys) == 3 * 3 * 5


def test_traced_steps_give_the_keys_of_python_ones():
    root = streams.root_key(7)
    traced = jax.jit(lambda step: streams.stream_key(root, "noise", step))
    assert [data(traced(i)) for i in range(3)] == [
        data(streams.stream_key(root, "noise", i)) for i in range(3)
    ]


def test_keys_are_the_same_in_every_process():
    # Python's own hash of a string changes from process to process; a resumed run must not.
    root = streams.root_key(0)
    number = 4255749673  # CRC-32 of b"noise"
    expected = jax.random.fold_in(jax.random.fold_in(root, np.uint32(number)), 4)
    assert data(streams.stream_key(root, "noise", 4)) == data(expected)
