"""The forward process, draws of the noise level, and weights of the denoising loss."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax.diffusion import arrays, parameterization
from lgs_jax.diffusion.schedules import Schedule

Array = jax.Array

WEIGHTINGS = ("uniform", "snr", "min_snr", "sigmoid")


def diffuse(x: Array, eps: Array, log_snr: Array, process: str) -> Array:
    """z = alpha x + sigma eps [B, ...] at noise levels log_snr [B].

    Kingma et al. 2021, eq. 1 (vp); Liu et al. 2022, eq. 1 (flow).
    """
    alpha, sigma = (arrays.expand(a, x) for a in parameterization.alpha_sigma(log_snr, process))
    return alpha * x + sigma * eps


def sample_log_snr(
    key: Array, shape: tuple[int, ...], schedule: Schedule, *, stratified: bool = True
) -> Array:
    """log-SNRs of `shape` at times uniform in [0, 1].

    Stratified times are (offset + i / n) mod 1 with one uniform offset for all n values: each is
    uniform by itself, and together they cover [0, 1] evenly, which lowers the variance of the loss
    (Kingma et al. 2021, appendix I.1). Give the whole batch in one call.
    """
    if not stratified:
        return schedule(jax.random.uniform(key, shape))
    count = math.prod(shape)
    times = (jax.random.uniform(key) + jnp.arange(count) / max(count, 1)) % 1.0
    return schedule(times.reshape(shape))


def weighting(
    name: str,
    log_snr: Any,
    kind: str,
    process: str,
    *,
    gamma: float = 5.0,
    bias: float = 0.0,
    schedule: Schedule | None = None,
) -> Any:
    """Weight [...] of the squared error of a prediction of that kind at log-SNRs [...].

    The errors of one prediction are |eps error|^2 = SNR |x error|^2 and |v error|^2 = |x error|^2 /
    sigma^2 (both processes), so that a weight on one of them says the weights on the others. The
    named weights are these, whatever the kind:
      "uniform": 1 on the error of the given kind itself.
      "snr": SNR on the x error = 1 on the eps error (Ho et al. 2020, eq. 14, "simple").
      "min_snr": min(SNR, gamma) on the x error (Hang et al. 2023, "min-SNR-gamma").
      "sigmoid": sigmoid(bias - log_snr) on the eps error (Kingma & Gao 2023; Hoogeboom et al.
        2024, "Simpler diffusion"). A lower bias gives more of the loss to the noisy levels.

    They apply to levels as they are drawn. Kingma & Gao state theirs per unit of log-SNR: give the
    `schedule` whose uniform times drew the levels, and the weight is multiplied by -d log_snr / dt,
    which takes the schedule's own density out of the loss. On the v error "sigmoid" and "min_snr"
    stay bounded then.

    Raises:
      ValueError: for an unknown name, kind or process, or gamma <= 0.
    """
    parameterization.check_kind(kind)
    if gamma <= 0:
        raise ValueError(f"{gamma=} must be > 0")
    # In logarithms, so that no intermediate overflows or vanishes at extreme log-SNR.
    xp = arrays.namespace(log_snr)
    from_x = _log_weight_from_x(log_snr, kind, process)
    if name == "uniform":
        log_weight = xp.zeros_like(log_snr)
    elif name == "snr":
        log_weight = log_snr + from_x
    elif name == "min_snr":
        log_weight = xp.minimum(log_snr, math.log(gamma)) + from_x
    elif name == "sigmoid":
        log_weight = bias - arrays.softplus(bias - log_snr) + from_x
    else:
        raise ValueError(f"unknown weighting {name!r}; choose from {', '.join(WEIGHTINGS)}")
    weight = xp.exp(log_weight)
    return weight if schedule is None else weight * schedule.slope(log_snr)


def _log_weight_from_x(log_snr: Any, kind: str, process: str) -> Any:
    """Logarithm of (weight on the error of `kind`) / (weight on the x error)."""
    _, log_sigma = parameterization.log_alpha_sigma(log_snr, process)
    return {"x": 0.0, "eps": -log_snr, "v": 2 * log_sigma}[kind]
