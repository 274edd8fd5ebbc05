"""Random streams: one root key, named streams, one key per step.

Keys are typed, never stored and never threaded through a loop: the key of anything random is a
function of (seed, stream, step), so a resumed run draws what the uninterrupted one would have.
"""

import zlib

import jax

Key = jax.Array


def root_key(seed: int) -> Key:
    """The key from which all streams of a run are derived."""
    return jax.random.key(seed)


def stream_key(root: Key, stream: str, step: int | jax.Array = 0) -> Key:
    """The key of a named stream at a step: `fold_in(fold_in(root, stream), step)`."""
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(stream.encode())), step)
