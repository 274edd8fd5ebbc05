"""KL divergence of a diagonal Gaussian posterior to the unit normal, in nats."""

import jax
import jax.numpy as jnp

Array = jax.Array


def to_unit_normal(mean: Array, log_var: Array) -> Array:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of every latent element, [...] -> [...].

    Kingma and Welling, "Auto-encoding variational Bayes", appendix B. The average of this is the
    term whose weight does not depend on the latent's size.
    """
    # expm1: exp(v) - 1 - v is of second order, so near v = 0 it must not start from a rounded exp.
    return 0.5 * (jnp.square(mean) + (jnp.expm1(log_var) - log_var))
