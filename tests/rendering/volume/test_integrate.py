"""Sums along rays against closed forms and a loop over samples in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.rendering.volume import integrate
from lgs_jax.rendering.volume.integrate import Samples


def _samples(near=1.0, far=4.0, **options):
    return Samples(jnp.asarray(near), jnp.asarray(far), **options)


def _rays(num=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    directions = np.concatenate([rng.uniform(-0.5, 0.5, (num, 2)), np.ones((num, 1))], -1)
    return jnp.asarray(rng.normal(size=(num, 3)), dtype), jnp.asarray(directions, dtype)


@pytest.mark.parametrize("spacing", integrate.SPACINGS)
def test_a_slab_of_one_density_follows_beer_and_lambert(spacing):
    density, near, far = 0.7, 1.0, 4.0
    origins, directions = _rays()
    depths, widths = integrate.bins(_samples(near, far, count=400, spacing=spacing))

    def slab(points):
        return jnp.full(len(points), density), jnp.full((len(points), 2), 0.25)

    got = integrate.integrate(slab, origins, directions, depths, widths)
    rate = density * np.linalg.norm(np.asarray(directions, np.float64), axis=-1)
    alpha = 1 - np.exp(-rate * (far - near))
    # 400 float32 terms, and float32 depths.
    np.testing.assert_allclose(got.alpha, alpha, rtol=1e-5)
    np.testing.assert_allclose(got.colors, 0.25 * alpha[:, None] * np.ones(2), rtol=1e-5)
    depth = near + 1 / rate - np.exp(-rate * (far - near)) * (far + 1 / rate)
    np.testing.assert_allclose(got.depth, depth, rtol=1e-3)  # a bin is 1/400 of the range


def test_the_sum_over_samples_as_a_loop():
    rng = np.random.default_rng(1)
    num_rays, count = 3, 7
    origins, directions = _rays(num_rays)
    density = rng.uniform(0, 3, (num_rays, count))
    colors = rng.uniform(size=(num_rays, count, 2))
    depths = np.sort(rng.uniform(1, 5, (num_rays, count)))
    widths = rng.uniform(0.1, 0.9, (num_rays, count))
    got = integrate.integrate(
        lambda _: (jnp.asarray(density.reshape(-1)), jnp.asarray(colors.reshape(-1, 2))),
        origins,
        directions,
        *(jnp.asarray(x, jnp.float32) for x in (depths, widths)),
    )
    length = np.linalg.norm(np.asarray(directions, np.float64), axis=-1)
    for ray in range(num_rays):
        transmittance, color, depth = 1.0, np.zeros(2), 0.0
        for i in range(count):
            alpha = 1 - np.exp(-density[ray, i] * widths[ray, i] * length[ray])
            color = color + transmittance * alpha * colors[ray, i]
            depth += transmittance * alpha * depths[ray, i]
            transmittance *= 1 - alpha
        np.testing.assert_allclose(got.colors[ray], color, rtol=1e-5)
        np.testing.assert_allclose(got.depth[ray], depth, rtol=1e-5)
        np.testing.assert_allclose(got.alpha[ray], 1 - transmittance, rtol=1e-5)


def test_points_are_looked_at_where_the_depths_say():
    origins, directions = _rays(2)
    depths, widths = integrate.bins(_samples(count=3))
    seen = []

    def field(points):
        seen.append(points)
        return jnp.zeros(len(points)), jnp.zeros((len(points), 1))

    integrate.integrate(field, origins, directions, depths, widths)
    expected = origins[:, None] + depths[:, None] * directions[:, None]
    np.testing.assert_allclose(seen[0].reshape(2, 3, 3), expected, rtol=1e-6)


def test_opacity_converges_with_the_square_of_the_width_of_the_bins():
    with jax.enable_x64(True):
        origins = jnp.zeros((1, 3), jnp.float64)
        directions = jnp.array([[0.0, 0.0, 1.0]], jnp.float64)

        def alpha(count):
            depths, widths = integrate.bins(_samples(count=count, spacing="depth"))

            def bump(points):
                return jnp.exp(-((points[:, 2] - 2.0) ** 2)), jnp.zeros((len(points), 1))

            return float(integrate.integrate(bump, origins, directions, depths, widths).alpha[0])

        errors = [abs(alpha(count) - alpha(4096)) for count in (16, 32)]
        assert 3.8 < errors[0] / errors[1] < 4.2


def test_an_endless_last_bin_leaves_the_others_alone():
    origins, directions = _rays(1)
    depths, widths = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 1.0, 1e12])

    def field(points):
        return jnp.array([0.5, 0.5, 1.0]), jnp.array([[1.0], [0.0], [0.0]])

    got = integrate.integrate(field, origins, directions, depths, widths)
    first = 1 - np.exp(-0.5 * np.linalg.norm(directions[0]))
    np.testing.assert_allclose(got.colors[0, 0], first, rtol=1e-5)
    np.testing.assert_allclose(got.alpha, 1.0)


@pytest.mark.parametrize("spacing", integrate.SPACINGS)
def test_bins_cover_the_range_and_samples_lie_in_them(spacing):
    samples = _samples(0.5, 50.0, count=5, spacing=spacing)
    depths, widths = integrate.bins(samples)
    np.testing.assert_allclose(jnp.sum(widths), 49.5, rtol=1e-5)
    warped = 1 / depths if spacing == "disparity" else depths
    np.testing.assert_allclose(jnp.diff(warped), float(warped[1] - warped[0]), rtol=1e-3)
    jitter = jax.random.uniform(jax.random.key(0), (4, 5))
    placed, _ = integrate.bins(samples, jitter)
    edges = 0.5 + jnp.cumsum(jnp.pad(widths, (1, 0)))
    assert bool(((placed >= edges[:-1] - 1e-4) & (placed <= edges[1:] + 1e-3)).all())
    np.testing.assert_allclose(integrate.bins(samples, jnp.full(5, 0.5))[0], depths)


def test_ranges_are_clipped_and_may_become_empty():
    clipped = _samples(1.0, 4.0).clipped(2.0, 3.0)
    assert (float(clipped.near), float(clipped.far)) == (2.0, 3.0)
    depths, widths = integrate.bins(_samples(1.0, 4.0, count=3).clipped(5.0, 6.0))
    np.testing.assert_array_equal(widths, 0.0)
    assert bool(jnp.isfinite(depths).all())
