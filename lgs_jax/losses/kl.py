"""KL divergence of a diagonal Gaussian posterior to the unit normal, in nats.

Letters: h, w latent map, c latent channels.
"""

import jax
import jax.numpy as jnp

Array = jax.Array

_LATENT_AXES = (-3, -2, -1)


def to_unit_normal(mean: Array, log_var: Array) -> Array:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of every latent element, [...] -> [...].

    Kingma and Welling, "Auto-encoding variational Bayes", appendix B. The average of this is the
    term whose weight does not depend on the latent's size.
    """
    # expm1: exp(v) - 1 - v is of second order, so near v = 0 it must not start from a rounded exp.
    return 0.5 * (jnp.square(mean) + (jnp.expm1(log_var) - log_var))


def image_mean(mean: Array, log_var: Array) -> Array:
    """Mean KL per latent element of each latent map, [..., h, w, c] -> [...]."""
    return jnp.mean(to_unit_normal(mean, log_var), axis=_LATENT_AXES)


def image_sum(mean: Array, log_var: Array) -> Array:
    """KL of each whole latent map, [..., h, w, c] -> [...]: the rate, in nats per image."""
    return jnp.sum(to_unit_normal(mean, log_var), axis=_LATENT_AXES)
