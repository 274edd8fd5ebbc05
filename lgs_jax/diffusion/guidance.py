"""Guidance: functions of denoisers that give a denoiser.

Classifier-free: scale w is the factor of (conditional - unconditional): 0 is unconditional, 1
conditional, above 1 guided. Ho & Salimans 2022 ("Classifier-free diffusion guidance"), eq. 6, write
w = 1 + (their w). Autoguidance (Karras et al. 2024, "Guiding a diffusion model with a bad version
of itself"): the same with a smaller or less trained network in place of the unconditional one. Both
make the same mistakes, the weaker one more of them, so away from it lie better samples.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax.diffusion import arrays, parameterization
from lgs_jax.diffusion.parameterization import Prediction
from lgs_jax.diffusion.samplers import DenoiseFn

Array = jax.Array
Interval = tuple[float, float]

EVERYWHERE: Interval = (-math.inf, math.inf)


def classifier_free(
    denoise_cond: DenoiseFn,
    denoise_uncond: DenoiseFn,
    scale: Any,
    *,
    interval: Interval = EVERYWHERE,
    rescale: float = 0.0,
    process: str | None = None,
) -> DenoiseFn:
    """The guided denoiser; see `combine`.

    Where no scene of the batch is at a level inside the interval, `denoise_uncond` is not run: that
    saves its time in a sampler, where all scenes share a level. To run both as one batch, stack
    them and call `combine`.

    Args:
      denoise_cond: the denoiser with its condition.
      denoise_uncond: the denoiser without it (or with one to keep away from).
      scale: guidance scale, a number or one per scene [B]; it may be traced.
      interval: as in `combine`.
      rescale: as in `combine`.
      process: as in `combine`.

    Raises:
      ValueError: see `combine`.
    """
    _check(interval, rescale, process)

    def denoise(z: Array, log_snr: Array) -> Prediction:
        cond = denoise_cond(z, log_snr)

        def guided() -> Prediction:
            return combine(
                cond,
                denoise_uncond(z, log_snr),
                z,
                log_snr,
                scale,
                interval=interval,
                rescale=rescale,
                process=process,
            )

        if interval == EVERYWHERE:
            return guided()
        # Both branches must have one dtype; `combine` gives that of cond and z together.
        plain = jax.tree.map(lambda c: c.astype(jnp.result_type(c, z)), cond)
        return jax.lax.cond(jnp.any(_inside(log_snr, interval)), guided, lambda: plain)

    return denoise


def autoguided(denoise: DenoiseFn, denoise_weaker: DenoiseFn, scale: Any) -> DenoiseFn:
    """The denoiser that keeps away from a weaker one: weaker + scale (denoise - weaker).

    Args:
      denoise: the denoiser, which may be a guided one.
      denoise_weaker: one of the same data and conditions that is smaller or less trained.
      scale: a number or one per scene [B], 1: none; it may be traced.
    """
    return classifier_free(denoise, denoise_weaker, scale)


def combine(
    cond: Prediction,
    uncond: Prediction,
    z: Array,
    log_snr: Array,
    scale: Any,
    *,
    interval: Interval = EVERYWHERE,
    rescale: float = 0.0,
    process: str | None = None,
) -> Prediction:
    """Guides a conditional prediction away from an unconditional one of the same z [B, ...].

    uncond + scale (cond - uncond), for x, eps and v alike: the weights add up to 1, so the three
    forms still fit each other.

    Args:
      cond: conditional prediction.
      uncond: unconditional prediction.
      z: noisy data [B, ...].
      log_snr: its levels [B].
      scale: a number or one per scene [B].
      interval: (low, high) in log-SNR; scenes outside of low <= log_snr < high get `cond`
        (Kynkaanniemi et al. 2024, "Applying guidance in a limited interval").
      rescale: how far, from 0 to 1, to bring each scene's guided v back to the standard deviation
        of the conditional one (Lin et al. 2023, "Common diffusion noise schedules ... are flawed",
        eqs. 14 to 16, on v as there); 0.7 is theirs. x and eps are made to fit.
      process: "vp" or "flow"; needed for `rescale` only.

    Raises:
      ValueError: for an empty interval, a rescale outside [0, 1], or one above 0 without a process.
    """
    _check(interval, rescale, process)
    scale = arrays.expand(jnp.broadcast_to(jnp.asarray(scale, z.dtype), log_snr.shape), z)
    guided = jax.tree.map(lambda c, u: u + scale * (c - u), cond, uncond)
    if rescale > 0:
        axes = tuple(range(log_snr.ndim, z.ndim))
        wanted, got = (jnp.std(p.v, axis=axes, keepdims=True) for p in (cond, guided))
        # A prediction without any spread has nothing to rescale.
        ratio = jnp.where(got > 0, wanted / jnp.where(got > 0, got, 1.0), 1.0)
        factor = rescale * ratio + (1 - rescale)
        guided = parameterization.predict("v", factor * guided.v, z, log_snr, process)
    inside = arrays.expand(_inside(log_snr, interval), z)
    return jax.tree.map(
        # The level of a scene and the rescaling have types of their own.
        lambda g, c: jnp.where(inside, g, c).astype(jnp.result_type(c, z)),
        guided,
        cond,
    )


def _inside(log_snr: Array, interval: Interval) -> Array:
    low, high = interval
    return (log_snr >= low) & (log_snr < high)


def _check(interval: Interval, rescale: float, process: str | None) -> None:
    low, high = interval
    if not low < high:
        raise ValueError(f"{interval=} must be (low, high) in log-SNR with low < high")
    if not 0 <= rescale <= 1:
        raise ValueError(f"{rescale=} must be in [0, 1]")
    if process is not None:
        parameterization.check_process(process)
    elif rescale > 0:
        raise ValueError(f"{rescale=} needs process='vp' or 'flow' to make x and eps fit")
