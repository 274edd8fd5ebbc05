"""Samplers against known solutions: Gaussians, mixtures, plain loops."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lgs_jax import settings
from lgs_jax.diffusion import grids, parameterization, samplers, schedules

families = pytest.mark.parametrize("family", parameterization.PROCESSES)
names = pytest.mark.parametrize("name", samplers.SAMPLERS)
KEY = jax.random.key(0)

MEAN, STD = 0.8, 0.5
MIXTURE = (np.array([0.35, 0.65]), np.array([-1.0, 1.5]), np.array([0.3, 0.5]))


def run(sampler, denoise, z, grid, key=KEY):
    return jax.jit(lambda z, key: sampler(denoise, z, grid, key))(z, key)


def mixture_denoiser(family, parts=MIXTURE):
    """The exact posterior mean of data [B, ...] with independent elements from a mixture."""
    weights, means, stds = (jnp.asarray(p, jnp.float32) for p in parts)

    def denoise(z, log_snr):
        shape = log_snr.shape + (1,) * (z.ndim - 1) + (1,)
        alpha, sigma = (a.reshape(shape) for a in parameterization.alpha_sigma(log_snr, family))
        variance = (alpha * stds) ** 2 + sigma**2
        offset = z[..., None] - alpha * means
        logits = jnp.log(weights) - 0.5 * jnp.log(variance) - 0.5 * offset**2 / variance
        posterior = jax.nn.softmax(logits, axis=-1)
        x = jnp.sum(posterior * (means + alpha * stds**2 / variance * offset), axis=-1)
        return parameterization.predict("x", x, z, log_snr, family)

    return denoise


def mixture_cdf(x, parts=MIXTURE):
    return sum(w * stats.norm.cdf(x, m, s) for w, m, s in zip(*parts))


def gaussian_error(sampler, family, steps):
    """Largest distance to the exact solution for Gaussian data.

    The probability flow of a Gaussian keeps the standardised z. In log-SNR from -6 to 6, then x.
    """
    grid = np.linspace(-6.0, 6.0, steps + 1)
    alpha, sigma = parameterization.alpha_sigma(grid[[0, -1]], family)
    z_std = np.sqrt((alpha * STD) ** 2 + sigma**2)
    start = np.linspace(-2.0, 2.0, 9)[:, None]
    z = alpha[0] * MEAN + z_std[0] * start
    expected = MEAN + alpha[1] * STD**2 / z_std[1] * start
    denoise = mixture_denoiser(family, (np.ones(1), np.array([MEAN]), np.array([STD])))
    got = run(sampler, denoise, jnp.asarray(z, jnp.float32), grid)
    return np.abs(np.asarray(got) - expected).max()


@families
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm_solver_pp_2m", 2), ("heun", 2)])
def test_order_of_convergence(name, order, family):
    sampler = samplers.make(name, family)
    errors = [gaussian_error(sampler, family, steps) for steps in (24, 48, 96)]
    slopes = np.log2(np.divide(errors[:-1], errors[1:]))
    # The next term of the error shifts the slope by about 1 / steps; rounding is near 1e-6.
    np.testing.assert_allclose(slopes, order, atol=0.2)
    assert errors[-1] < {1: 2e-2, 2: 1e-3}[order]


@families
@pytest.mark.parametrize(
    ("name", "steps", "tolerance"),
    # the distances measured are about 2/3 of these, and fall with more steps
    [("ddim", 64, 0.01), ("dpm_solver_pp_2m", 24, 0.003), ("heun", 24, 0.0045)],
)
def test_deterministic_samplers_carry_quantiles_to_quantiles(name, steps, tolerance, family):
    # In one dimension the probability flow is monotone: the noise's quantiles become the data's.
    levels = (np.arange(512) + 0.5) / 512
    z = jnp.asarray(stats.norm.ppf(levels)[:, None], jnp.float32)
    grid = grids.time_uniform(schedules.Cosine(), steps)
    x = run(samplers.make(name, family), mixture_denoiser(family), z, grid)
    assert np.abs(mixture_cdf(np.asarray(x[:, 0])) - levels).max() < tolerance


@families
@pytest.mark.parametrize(("name", "options"), [("ddpm", {}), ("ddim", {"eta": 0.5})])
def test_stochastic_samplers_draw_from_the_data(name, options, family):
    count = 4000
    grid = grids.time_uniform(schedules.Cosine(), 128)
    sampler = samplers.make(name, family, **options)
    z = samplers.initial_noise(KEY, (count, 1))
    x = np.asarray(run(sampler, mixture_denoiser(family), z, grid))[:, 0]
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in 1000 draws; 0.01 for the finite steps.
    assert stats.kstest(x, mixture_cdf).statistic < 1.95 / np.sqrt(count) + 0.01
    weights, means, stds = MIXTURE
    mean = weights @ means
    std = np.sqrt(weights @ (stds**2 + means**2) - mean**2)
    assert abs(x.mean() - mean) < 4 * std / np.sqrt(count) + 0.01
    assert abs(x.std() - std) < 4 * std / np.sqrt(2 * count) + 0.02


@families
def test_ddim_with_full_noise_is_ancestral_sampling(family):
    grid = grids.time_uniform(schedules.Cosine(), 12)
    z = samplers.initial_noise(KEY, (3, 4))
    denoise = mixture_denoiser(family)
    one = run(samplers.ddim(family, eta=1.0), denoise, z, grid)
    other = run(samplers.ddpm(family), denoise, z, grid)
    # two formulas for one step, the same noise; z grows with 1 / alpha before it settles
    np.testing.assert_allclose(one, other, atol=2e-4)


def test_ancestral_variance_is_that_of_ddpm():
    # A denoiser that says 0 leaves the noise of the last step alone, and x = z shows it.
    alpha_bar = np.cumprod(1 - np.array([0.05, 0.2]))[::-1]
    grid = np.log(alpha_bar / (1 - alpha_bar))

    def denoise(z, log_snr):
        last = (log_snr > grid[1] - 1e-3)[:, None]
        return parameterization.Prediction(x=jnp.where(last, z, 0.0), eps=0 * z, v=0 * z)

    beta_tilde = (1 - 0.95) / (1 - 0.95 * 0.8) * 0.2  # Ho et al. 2020, eq. 7
    z = jnp.zeros((2, 10_000))
    for name, options in (("ddim", {"eta": 1.0}), ("ddpm", {})):
        x = run(samplers.make(name, "vp", **options), denoise, z, grid)
        # 5 standard errors of a standard deviation from 20000 draws
        np.testing.assert_allclose(np.std(x), np.sqrt(beta_tilde), rtol=5 / np.sqrt(40_000))
    x = run(samplers.ddim("vp", eta=0.5), denoise, z, grid)
    np.testing.assert_allclose(np.std(x), 0.5 * np.sqrt(beta_tilde), rtol=5 / np.sqrt(40_000))


def loop_euler_flow(denoise, z, grid):
    """dz = v dsigma, in steps."""
    sigma = 1 / (1 + np.exp(grid / 2))
    for s, t, level in zip(sigma[:-1], sigma[1:], grid[:-1]):
        z = z + (t - s) * denoise(z, level).v
    return denoise(z, grid[-1]).x


def loop_dpm_solver_pp_2m(denoise, z, grid, family):
    """Lu et al. 2022, algorithm 2, line by line; the last step of first order."""
    lam = grid / 2
    alpha, sigma = parameterization.alpha_sigma(grid, family)
    buffer = []
    for i in range(1, len(grid)):
        h = lam[i] - lam[i - 1]
        buffer.append(denoise(z, grid[i - 1]).x)
        direction = buffer[-1]
        if 1 < i < len(grid) - 1:
            r = (lam[i - 1] - lam[i - 2]) / h
            direction = (1 + 1 / (2 * r)) * buffer[-1] - 1 / (2 * r) * buffer[-2]
        z = sigma[i] / sigma[i - 1] * z - alpha[i] * (np.exp(-h) - 1) * direction
    return denoise(z, grid[-1]).x


@families
def test_solvers_equal_plain_loops(family):
    grid = grids.time_uniform(schedules.Flow(min=-8, max=8), 7)
    z = samplers.initial_noise(KEY, (3, 2))
    denoise = mixture_denoiser(family)

    @jax.jit
    def at(z, level):
        return denoise(z, jnp.full((3,), level, jnp.float32))

    expected = loop_dpm_solver_pp_2m(at, z, grid, family)
    got = run(samplers.dpm_solver_pp_2m(family), denoise, z, grid)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    if family == "flow":
        got = run(samplers.ddim("flow"), denoise, z, grid)
        np.testing.assert_allclose(got, loop_euler_flow(at, z, grid), atol=1e-5)


@names
def test_a_scene_does_not_depend_on_its_batch(name):
    grid = grids.time_uniform(schedules.Cosine(), 4)
    sample = jax.jit(lambda z, key: samplers.make(name, "vp")(mixture_denoiser("vp"), z, grid, key))
    z = samplers.initial_noise(KEY, (3, 2, 4))
    keys = samplers.scene_keys(KEY, 3)
    np.testing.assert_array_equal(z, samplers.initial_noise(keys, (3, 2, 4)))
    np.testing.assert_array_equal(z[2:], samplers.initial_noise(keys[2:], (1, 2, 4)))
    np.testing.assert_array_equal(z[:2], samplers.initial_noise(KEY, (2, 2, 4)))
    together = sample(z, KEY)
    # another batch size is another program: rounding may differ, the noise may not
    np.testing.assert_allclose(sample(z[2:], keys[2:]), together[2:], atol=1e-5)
    np.testing.assert_allclose(sample(z[:2], KEY), together[:2], atol=1e-5)


def test_only_typed_keys():
    for wrong, found in ((0, "int"), (np.zeros(2, np.uint32), "uint32"), (None, "NoneType")):
        with pytest.raises(ValueError, match=rf"jax\.random\.key\(0\) makes .*; got {found}$"):
            samplers.scene_keys(wrong, 1)
    with pytest.raises(ValueError, match=r"expected one key or 2 keys, .*, got \(3,\)"):
        samplers.scene_keys(jax.random.split(KEY, 3), 2)


def test_scenes_steps_and_the_start_have_noise_of_their_own():
    def denoise(z, log_snr):  # x = 0 until the end, so that ancestral steps add noise to a z
        last = (log_snr > 0.5)[:, None]
        return parameterization.Prediction(x=jnp.where(last, z, 0.0), eps=0 * z, v=0 * z)

    def correlation(a, b):
        return abs(np.corrcoef(a, b)[0, 1])

    # With x = 0 the last z is c n1 + d n2: n2 from a zero c (a long last step), n1 by itself.
    z = jnp.zeros((2, 500))
    first = np.asarray(run(samplers.ddpm("vp"), denoise, z, np.array([-1.0, 1.0])))
    second = np.asarray(run(samplers.ddpm("vp"), denoise, z, np.array([-40.0, -39.0, 1.0])))
    other = np.asarray(
        run(samplers.ddpm("vp"), denoise, z, np.array([-1.0, 1.0]), jax.random.key(1))
    )
    start = np.asarray(samplers.initial_noise(KEY, (2, 500)))
    limit = 4.5 / np.sqrt(500)  # standard errors of a correlation
    assert correlation(first[0], first[1]) < limit  # scenes
    assert correlation(first[0], second[0]) < limit  # steps
    assert correlation(first[0], start[0]) < limit  # streams
    assert correlation(first[0], other[0]) < limit  # keys


@names
def test_runs_in_jit_with_traced_parameters_and_traces_once(name):
    sampler = samplers.make(name, "flow")
    calls = []

    def run(scale, z, steps):
        def denoise(z, log_snr):
            calls.append(log_snr.shape)
            return parameterization.predict("v", jnp.tanh(scale * z), z, log_snr, "flow")

        grid = grids.time_uniform(schedules.Flow(), steps)
        return sampler(denoise, z, grid, KEY)

    z = samplers.initial_noise(KEY, (2, 3))
    counts = []
    for steps in (4, 40):
        calls.clear()
        jax.eval_shape(functools.partial(run, steps=steps), jnp.float32(0.7), z)
        counts.append(len(calls))
    assert counts[0] == counts[1] <= 2  # one copy of the denoiser, however many steps
    assert set(calls) == {(2,)}
    compiled = jax.jit(functools.partial(run, steps=4))(jnp.float32(0.7), z)
    np.testing.assert_allclose(compiled, run(jnp.float32(0.7), z, 4), atol=1e-4)


@names
@families
def test_extreme_levels_in_half_precision_input_stay_finite(name, family):
    # From -20 to 20: sigma / alpha falls by nine orders of magnitude.
    sampler = samplers.make(name, family)
    z = samplers.initial_noise(KEY, (64, 1)).astype(jnp.bfloat16)
    grid = grids.time_uniform(schedules.Cosine(min=-20, max=20), 10)
    x = run(sampler, mixture_denoiser(family), z, grid)
    assert x.dtype == jnp.float32
    assert np.all(np.abs(x) < 4)  # data lie within -2 and 3.5


@names
def test_clip_bounds_every_prediction(name):
    seen = []

    def clip(x):
        seen.append(x.shape)
        return jnp.clip(x, -0.5, 0.5)

    grid = grids.time_uniform(schedules.Cosine(), 6)
    z = 3.0 * samplers.initial_noise(KEY, (8, 4))
    x = run(samplers.make(name, "vp", clip=clip), mixture_denoiser("vp"), z, grid)
    assert np.all(np.abs(x) <= 0.5)
    assert seen
    idle = run(samplers.make(name, "vp", clip=lambda x: x), mixture_denoiser("vp"), z, grid)
    plain = run(samplers.make(name, "vp"), mixture_denoiser("vp"), z, grid)
    np.testing.assert_allclose(idle, plain, atol=1e-4)


def test_misuse_is_refused():
    z = jnp.zeros((2, 3))
    denoise = mixture_denoiser("vp")
    sampler = samplers.ddim("vp")
    with pytest.raises(ValueError, match="rise strictly"):
        sampler(denoise, z, np.linspace(5, -5, 4), KEY)
    with pytest.raises(ValueError, match="finite"):
        sampler(denoise, z, np.array([-5.0, np.inf]), KEY)
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda grid: sampler(denoise, z, grid, KEY))(np.linspace(-5, 5, 4))
    with pytest.raises(ValueError, match="2 keys"):
        samplers.ddpm("vp")(denoise, z, np.linspace(-5, 5, 4), jax.random.split(KEY, 3))
    with pytest.raises(ValueError, match="eta"):
        samplers.ddim("vp", eta=1.5)
    with pytest.raises(ValueError, match="ddim, ddpm"):
        samplers.make("euler", "flow")
    with pytest.raises(settings.SettingsError, match="did you mean 'eta'"):
        samplers.make("ddim", "vp", etta=1.0)
    for name in samplers.SAMPLERS:
        with pytest.raises(ValueError, match="vp, flow"):
            samplers.make(name, "edm")


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_arguments_may_be_given_by_name(name):
    parameters = inspect.signature(samplers.make(name, "vp")).parameters
    assert list(parameters) == ["denoise_fn", "z_init", "log_snr_grid", "key"]
