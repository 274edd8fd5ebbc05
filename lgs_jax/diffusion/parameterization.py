"""What a network predicts, and how x, eps and v follow from each other.

z = alpha x + sigma eps, with x data, eps unit normal noise, v:
  process "vp" (variance preserving): alpha^2 + sigma^2 = 1, v = alpha eps - sigma x (Salimans & Ho
    2022, "Progressive distillation", section 4).
  process "flow" (rectified flow): alpha + sigma = 1, v = eps - x = dz / dsigma (Lipman et al. 2022,
    "Flow matching"; Liu et al. 2022, "Flow straight and fast"), which points from data to noise.

Both are indexed by log-SNR = log(alpha^2 / sigma^2) alone (Kingma et al. 2021, "Variational
diffusion models", section 3.1).
"""

import dataclasses
from typing import Any

import jax

from lgs_jax.diffusion import arrays

Array = jax.Array

PROCESSES = ("vp", "flow")
KINDS = ("x", "eps", "v")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
    """One prediction in its three forms, each of z's shape [...]."""

    x: Array
    eps: Array
    v: Array


def log_alpha_sigma(log_snr: Any, process: str) -> tuple[Any, Any]:
    """log alpha [...] and log sigma [...] at log-SNRs [...].

    vp: alpha^2 = sigmoid(log_snr), sigma^2 = sigmoid(-log_snr) (Kingma et al. 2021, section 3.1).
    flow: alpha = sigmoid(log_snr / 2), sigma = sigmoid(-log_snr / 2), from alpha + sigma = 1.
    """
    check_process(process)
    if process == "vp":
        return -0.5 * arrays.softplus(-log_snr), -0.5 * arrays.softplus(log_snr)
    half = log_snr / 2
    return -arrays.softplus(-half), -arrays.softplus(half)


def alpha_sigma(log_snr: Any, process: str) -> tuple[Any, Any]:
    """alpha [...] and sigma [...] at log-SNRs [...]; float64 for NumPy's and Python's numbers.

    Raises:
      ValueError: if the process is not one of `PROCESSES`.
    """
    log_alpha, log_sigma = log_alpha_sigma(log_snr, process)
    xp = arrays.namespace(log_alpha)
    return xp.exp(log_alpha), xp.exp(log_sigma)


def predict(kind: str, output: Array, z: Array, log_snr: Array, process: str) -> Prediction:
    """All three forms of a network's output.

    From "v" all of them are well conditioned. From "x", eps and v carry the rounding of z times
    1 / sigma; from "eps", x carries it times 1 / alpha. So they are finite for any log-SNR within
    +-80 in float32, but an x predicted through "eps" near the noise end is mostly rounding.

    Args:
      kind: what the network predicts, "x", "eps" or "v".
      output: the network's output, of z's shape.
      z: noisy data [B, ...].
      log_snr: [B] (any number of leading dimensions of z, also none).
      process: "vp" or "flow".

    Raises:
      ValueError: for an unknown kind or process, or shapes that do not fit.
    """
    check_kind(kind)
    if output.shape != z.shape:
        raise ValueError(f"the network's output {output.shape} must have the shape of z {z.shape}")
    alpha, sigma = (arrays.expand(a, z) for a in alpha_sigma(log_snr, process))
    if kind == "x":
        x = output
        eps = (z - alpha * x) / sigma
    elif kind == "eps":
        eps = output
        x = (z - sigma * eps) / alpha
    elif process == "vp":
        x, eps = alpha * z - sigma * output, sigma * z + alpha * output
    else:
        x, eps = z - sigma * output, z + alpha * output
    v = output if kind == "v" else _velocity(x, eps, alpha, sigma, process)
    return Prediction(x=x, eps=eps, v=v)


def target(kind: str, x: Array, eps: Array, log_snr: Array, process: str) -> Array:
    """What a network of that kind should put out for data x and noise eps [B, ...] at log_snr [B].

    Raises:
      ValueError: for an unknown kind or process, or shapes that do not fit.
    """
    check_kind(kind)
    alpha, sigma = (arrays.expand(a, x) for a in alpha_sigma(log_snr, process))
    return {"x": x, "eps": eps, "v": _velocity(x, eps, alpha, sigma, process)}[kind]


def check_process(process: str) -> None:
    """Raises ValueError unless the process is one of `PROCESSES`."""
    if process not in PROCESSES:
        raise ValueError(f"unknown {process=}; choose from {', '.join(PROCESSES)}")


def check_kind(kind: str) -> None:
    """Raises ValueError unless the kind of prediction is one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"unknown {kind=} of prediction; choose from {', '.join(KINDS)}")


def _velocity(x: Array, eps: Array, alpha: Array, sigma: Array, process: str) -> Array:
    return alpha * eps - sigma * x if process == "vp" else eps - x
