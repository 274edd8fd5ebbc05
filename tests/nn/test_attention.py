import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.nn import attention


def _reference(params, tokens, heads, mask):
    """Attention of one set of tokens [T, C] in float64 loops."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    count, channels = tokens.shape
    size = channels // heads
    mean, var = tokens.mean(-1, keepdims=True), tokens.var(-1, keepdims=True)
    x = (tokens - mean) / np.sqrt(var + 1e-6) * params["norm"]["scale"] + params["norm"]["bias"]
    x = x @ params["query_key_value"]["kernel"] + params["query_key_value"]["bias"]
    x = x.reshape(count, 3, heads, size)
    out = np.zeros((count, heads, size))
    for head in range(heads):
        for i in range(count):
            scores = np.exp(x[:, 1, head] @ x[i, 0, head] / np.sqrt(size)) * mask
            out[i, head] = (scores / scores.sum()) @ x[:, 2, head]
    out = out.reshape(count, channels)
    return tokens + out @ params["project"]["kernel"] + params["project"]["bias"]


def test_matches_loops_with_a_mask():
    heads, tokens = 2, jax.random.normal(jax.random.key(0), (3, 5, 8))
    mask = jnp.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 0, 0, 1, 0]], bool)
    block = attention.SelfAttention(heads)
    variables = block.init(jax.random.key(1), tokens, mask)
    variables = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(2), x.shape), variables
    )
    got = block.apply(variables, tokens, mask)
    for i in range(3):
        expected = _reference(
            variables["params"], np.asarray(tokens[i], np.float64), heads, np.asarray(mask[i])
        )
        np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-5)


def test_starts_as_the_identity():
    tokens = jax.random.normal(jax.random.key(0), (2, 5, 8))
    got, _ = attention.SelfAttention(2).init_with_output(jax.random.key(1), tokens)
    np.testing.assert_array_equal(got, tokens)
