"""Samplers: from noise to data along a grid of log-SNRs, in one `lax.scan`.

A `Sampler` is a function (denoise_fn, z_init, log_snr_grid, key) -> x:
  denoise_fn: (z [B, ...], log_snr [B]) -> Prediction; the conditioning is closed over.
  z_init: noise at the first level of the grid [B, ...]; see `initial_noise`.
  log_snr_grid: S + 1 rising log-SNRs, a NumPy array, so that all coefficients of the solver are
    made in float64 (see `grids`). The grid is a constant of the compiled program.
  key: a typed key, from which scene i of the batch gets fold_in(key, i), or an array of keys [B],
    one per scene: scene i of a batch equals scene i alone with key `scene_keys(key, B)[i : i + 1]`.
  returns x [B, ...] in float32 (or wider, if z_init is).

The end: a grid stops at a finite log-SNR, where a little noise is left in z. After S solver steps
the denoiser is asked once more, and its x prediction at the last level is returned: S + 1
evaluations for S + 1 grid values (Heun's method: 2 S + 1). This is the step of Karras et al. 2022,
algorithm 1, from their sigma_min to 0, and it keeps each solver's order. The x prediction of the
level before would skip the last level; z / alpha would leave noise of exp(-max / 2) in the result.

Every solver here is linear: z <- a z + b x + c (x of the evaluation before) + d noise, one row of
coefficients per evaluation, the last one being z <- x. So the compiled program holds one copy of
the denoiser and one of the loop, whatever the solver and the number of steps. With a, b, c, d made
from alpha and sigma, all of them serve both processes; `ddim` on "flow" is Euler's method in sigma.

Letters: S steps; s, t the levels before and after a step; h half the rise of log-SNR in a step.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax import settings
from lgs_jax.core import streams
from lgs_jax.diffusion import parameterization
from lgs_jax.diffusion.parameterization import Prediction

Array = jax.Array
DenoiseFn = Callable[[Array, Array], Prediction]
Clip = Callable[[Array], Array]
Sampler = Callable[[DenoiseFn, Array, np.ndarray, Array], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Rows:
    """What to do at each evaluation of the denoiser; arrays [evaluations]."""

    log_snr: Any
    z: Any
    x: Any
    previous: Any = 0.0
    noise: Any = 0.0


def ddim(process: str, *, eta: float = 0.0, clip: Clip | None = None) -> Sampler:
    """DDIM, first order: z_t = alpha_t x + sqrt(sigma_t^2 - d^2) eps + d noise.

    d = eta sigma_t sqrt(1 - SNR_s / SNR_t) is eq. 16 of Song et al. 2020 ("Denoising diffusion
    implicit models") written for any alpha and sigma; the rest is their eq. 12, with eps =
    (z - alpha_s x) / sigma_s.

    Args:
      process: "vp" or "flow", that of the denoiser.
      eta: 0 for the deterministic sampler, 1 for DDPM's noise.
      clip: maps each x prediction to an allowed one, before it is used.

    Raises:
      ValueError: for an unknown process or an eta outside [0, 1].
    """
    parameterization.check_process(process)
    if not 0 <= eta <= 1:
        raise ValueError(f"{eta=} must be in [0, 1]; beyond 1 the variance left for eps is < 0")

    def rows(grid: np.ndarray) -> _Rows:
        alpha, sigma = parameterization.alpha_sigma(grid, process)
        fresh = -(eta**2) * np.expm1(-np.diff(grid))  # part of sigma_t^2 that is new noise
        keep = sigma[1:] / sigma[:-1] * np.sqrt(1 - fresh)
        return _Rows(
            log_snr=grid[:-1],
            z=keep,
            x=alpha[1:] - alpha[:-1] * keep,
            noise=sigma[1:] * np.sqrt(fresh),
        )

    return _sampler(rows, clip, noisy=eta > 0)


def ddpm(process: str, *, clip: Clip | None = None) -> Sampler:
    """Ancestral sampling: z_t ~ q(z_t | z_s, x) with x the prediction, and its exact variance.

    With r = SNR_s / SNR_t: mean (alpha_s / alpha_t) (sigma_t / sigma_s)^2 z + alpha_t (1 - r) x,
    variance sigma_t^2 (1 - r). Ho et al. 2020, eqs. 6 and 7, in the form of Kingma et al. 2021,
    appendix A, which holds for any alpha and sigma.

    Args:
      process: "vp" or "flow", that of the denoiser.
      clip: maps each x prediction to an allowed one, before it is used.

    Raises:
      ValueError: for an unknown process.
    """
    parameterization.check_process(process)

    def rows(grid: np.ndarray) -> _Rows:
        log_alpha, log_sigma = parameterization.log_alpha_sigma(grid, process)
        fresh = -np.expm1(-np.diff(grid))
        return _Rows(
            log_snr=grid[:-1],
            z=np.exp(-np.diff(log_alpha) + 2 * np.diff(log_sigma)),
            x=np.exp(log_alpha[1:]) * fresh,
            noise=np.exp(log_sigma[1:]) * np.sqrt(fresh),
        )

    return _sampler(rows, clip, noisy=True)


def dpm_solver_pp_2m(process: str, *, clip: Clip | None = None) -> Sampler:
    """DPM-Solver++(2M), second order with one evaluation per step.

    z_t = (sigma_t / sigma_s) z - alpha_t (exp(-h) - 1) ((1 + 1 / 2r) x - (1 / 2r) x_before) with
    r = h_before / h. Lu et al. 2022 ("DPM-Solver++"), algorithm 2. The first step and, as in the
    authors' code, the last one are of first order: the grid's steps often widen at the end, where
    the extrapolation would be a long one, and a single such step does not lower the order.

    Args:
      process: "vp" or "flow", that of the denoiser.
      clip: maps each x prediction to an allowed one, before it is used.

    Raises:
      ValueError: for an unknown process.
    """
    parameterization.check_process(process)

    def rows(grid: np.ndarray) -> _Rows:
        keep, gain = _exponential_step(grid, process)
        h = np.diff(grid) / 2
        extrapolation = np.zeros_like(h)
        extrapolation[1:-1] = h[1:-1] / (2 * h[:-2])
        return _Rows(
            log_snr=grid[:-1],
            z=keep,
            x=gain * (1 + extrapolation),
            previous=-gain * extrapolation,
        )

    return _sampler(rows, clip)


def heun(process: str, *, clip: Clip | None = None) -> Sampler:
    """Heun's method on x, second order with two evaluations per step.

    Predictor: the first-order step with x_s; corrector: the same integral with x linear in log-SNR
    between x_s and the prediction x_t at the predicted point, z_t = (sigma_t / sigma_s) z + alpha_t
    ((1 - exp(-h)) x_s + (1 - (1 - exp(-h)) / h) (x_t - x_s)): the exponential form of Heun's method
    (Hochbruck & Ostermann 2010, section 2). Karras et al. 2022, algorithm 1, average eps in sigma /
    alpha instead: on evenly spaced times from log-SNR -15, whose steps are long at the noise end,
    that was measured to be 10 times less accurate than this.

    Args:
      process: "vp" or "flow", that of the denoiser.
      clip: maps each x prediction to an allowed one, before it is used.

    Raises:
      ValueError: for an unknown process.
    """
    parameterization.check_process(process)

    def rows(grid: np.ndarray) -> _Rows:
        keep, gain = _exponential_step(grid, process)
        alpha, _ = parameterization.alpha_sigma(grid[1:], process)
        h = np.diff(grid) / 2
        correction = alpha * (1 + np.expm1(-h) / h)
        one, zero = np.ones_like(h), np.zeros_like(h)
        # The corrector starts from the predicted point, so that it only adds the difference.
        return _Rows(
            log_snr=_interleave(grid[:-1], grid[1:]),
            z=_interleave(keep, one),
            x=_interleave(gain, correction),
            previous=_interleave(zero, -correction),
        )

    return _sampler(rows, clip)


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
    "heun": heun,
}


def make(name: str, process: str, **options: Any) -> Sampler:
    """The sampler of a name in `SAMPLERS` for a process, with the options of its function.

    Raises:
      ValueError: for an unknown name, an unknown option, or a value that makes no sense.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; choose from {', '.join(SAMPLERS)}")
    factory = SAMPLERS[name]
    known = list(inspect.signature(factory).parameters)[1:]
    settings.check_keys(options, known, f"sampler {name}")
    return factory(process, **options)


def scene_keys(key: Array, count: int) -> Array:
    """One key per scene [count]: fold_in(key, i); an array of keys [count] is returned as it is.

    Raises:
      ValueError: for something else than a typed key, or keys of any other shape.
    """
    if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(
            "key must be a typed key, as jax.random.key(0) makes and jax.random.PRNGKey(0) does "
            f"not; got {getattr(key, 'dtype', type(key).__name__)}"
        )
    if key.shape == ():
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
    if key.shape != (count,):
        raise ValueError(f"expected one key or {count} keys, one per scene, got {key.shape}")
    return key


def initial_noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Unit normal noise of `shape` [B, ...] to start from; scene i depends on its own key only.

    The stream differs from those that the samplers draw from the same key.
    """
    return _noise(scene_keys(key, shape[0]), "initial_noise", 0, shape, dtype)


def _noise(keys: Array, stream: str, step: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    def one(key: Array) -> Array:
        return jax.random.normal(streams.stream_key(key, stream, step), shape[1:], dtype)

    return jax.vmap(one)(keys)


def _sampler(
    rows: Callable[[np.ndarray], _Rows], clip: Clip | None, *, noisy: bool = False
) -> Sampler:
    """The sampler whose steps have the given coefficients."""

    def sample(denoise_fn: DenoiseFn, z_init: Array, log_snr_grid: np.ndarray, key: Array) -> Array:
        grid = _check_grid(log_snr_grid)
        z = z_init.astype(jnp.promote_types(z_init.dtype, jnp.float32))
        keys = scene_keys(key, z.shape[0]) if noisy else None
        # The last evaluation: x takes z's place.
        last = _Rows(log_snr=grid[-1], z=0.0, x=1.0)
        table = jax.tree.map(
            lambda row, end: jnp.asarray(np.append(row, end), z.dtype), _fill(rows(grid)), last
        )

        def body(carry: tuple[Array, Array], scanned: tuple[Array, _Rows]) -> tuple[Any, None]:
            (z, previous), (index, row) = carry, scanned
            x = denoise_fn(z, jnp.full(z.shape[:1], row.log_snr)).x.astype(z.dtype)
            x = x if clip is None else clip(x)
            z = row.z * z + row.x * x + row.previous * previous
            if noisy:
                z += row.noise * _noise(keys, "sampler_noise", index, z.shape, z.dtype)
            return (z, x), None

        indices = jnp.arange(len(table.log_snr))
        (z, _), _ = jax.lax.scan(body, (z, jnp.zeros_like(z)), (indices, table))
        return z

    return sample


def _fill(rows: _Rows) -> _Rows:
    """The rows with all columns at full length."""
    return jax.tree.map(lambda column: np.broadcast_to(column, rows.log_snr.shape), rows)


def _exponential_step(grid: np.ndarray, process: str) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [S] of z and x in the exact step for an x that does not change."""
    log_alpha, log_sigma = parameterization.log_alpha_sigma(grid, process)
    return np.exp(np.diff(log_sigma)), -np.exp(log_alpha[1:]) * np.expm1(-np.diff(grid) / 2)


def _interleave(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=1).reshape(-1)


def _check_grid(log_snr_grid: np.ndarray) -> np.ndarray:
    """The grid in float64."""
    if isinstance(log_snr_grid, jax.core.Tracer):
        raise TypeError(
            "log_snr_grid is traced; make it with NumPy outside of jit and close over it, so that "
            "the solver's coefficients are computed in float64"
        )
    grid = np.asarray(log_snr_grid, np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not np.all(np.isfinite(grid)):
        raise ValueError(f"log_snr_grid must be finite values [S + 1], S >= 1, got {grid}")
    if not np.all(np.diff(grid) > 0):
        raise ValueError(f"log_snr_grid must rise strictly, from noise to data, got {grid}")
    return grid
