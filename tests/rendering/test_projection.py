"""Splats whose covariance is hard to invert in float32: long, thin, seen edge-on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import dispatch

FOCAL, SIZE = 500.0, 32


def _needle(length, thickness, angle, dtype):
    """One splat in front of the camera, its standard deviations in pixels; float32 numbers."""
    half = angle / 2
    arrays = (
        [[0.002, 0.001, 1.0]],
        [[np.cos(half), 0.0, 0.0, np.sin(half)]],
        np.array([[length, thickness, thickness]]) / FOCAL,
        [0.8],
        [[1.0, 0.5, 0.2]],
    )
    return Gaussians(*(jnp.asarray(np.asarray(a, np.float32), dtype) for a in arrays))


def _camera(dtype, beside=(0.0, 0.0)):
    """Looks at a place so many pixels beside the axis, on which the splat lies."""
    center = np.float32(SIZE / 2 - np.asarray(beside))
    return Cameras(jnp.eye(4, dtype=dtype), jnp.array([FOCAL, FOCAL, *center], dtype))


@functools.partial(jax.jit, static_argnames=("antialiased", "implementation"))
def _draw(scene, cameras, antialiased=False, implementation="reference"):
    options = {"antialiased": antialiased, "implementation": implementation, "depth_mode": None}
    return render(scene, cameras, height=SIZE, width=SIZE, **options).rgb


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize(
    ("length", "thickness"),
    [
        (10, 0.5),
        (50, 0.5),
        (100, 0.05),
        (250, 0.5),
        (500, 0.5),
        (1000, 0.5),
        (2500, 0.5),
        (10000, 0.5),
        (1000, 5),
        (5000, 5),
    ],
)
def test_long_thin_splats_are_right_in_float32(length, thickness, antialiased):
    for angle in (0.3, 0.7, np.pi / 4):
        got = _draw(_needle(length, thickness, angle, np.float32), _camera(np.float32), antialiased)
        with jax.enable_x64(True):
            scene, camera = _needle(length, thickness, angle, np.float64), _camera(np.float64)
            want = np.asarray(_draw(scene, camera, antialiased))
        assert want.max() > (0.05 if antialiased else 0.5)
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-6)


@pytest.mark.parametrize("implementation", dispatch.IMPLEMENTATIONS)
def test_a_long_thin_splat_is_right_far_from_its_centre(implementation):
    """Where a difference of large numbers would leave holes in it."""
    angle, length = 0.3, 10000
    beside = 1000 * np.array([np.cos(angle), np.sin(angle)])
    scene, camera = _needle(length, 0.5, angle, np.float32), _camera(np.float32, beside)
    got = _draw(scene, camera, implementation=implementation)
    with jax.enable_x64(True):
        scene, camera = _needle(length, 0.5, angle, np.float64), _camera(np.float64, beside)
        want = np.asarray(_draw(scene, camera))
    assert want.max() > 0.7
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-4)


@functools.partial(jax.jit, static_argnames="implementation")
def _slopes(scene, cameras, implementation):
    def loss(*variables):
        options = {"antialiased": True, "implementation": implementation}
        out = render(*variables, height=SIZE, width=SIZE, **options)
        weights = np.random.default_rng(0).normal(size=out.rgb.shape)
        return jnp.sum(out.rgb * jnp.asarray(weights, out.rgb.dtype))

    return jax.grad(loss, argnums=(0, 1))(scene, cameras)


@pytest.mark.parametrize("implementation", dispatch.IMPLEMENTATIONS)
def test_gradients_of_a_long_thin_splat_are_right_in_float32(implementation):
    """Far from its centre, through covariance and compensation."""
    angle, length = 0.3, 1000
    beside = 1000 * np.array([np.cos(angle), np.sin(angle)])
    scene, camera = _needle(length, 0.5, angle, np.float32), _camera(np.float32, beside)
    got = jax.tree.leaves(_slopes(scene, camera, implementation))
    with jax.enable_x64(True):
        scene, camera = _needle(length, 0.5, angle, np.float64), _camera(np.float64, beside)
        want = [np.asarray(w) for w in jax.tree.leaves(_slopes(scene, camera, "reference"))]
    for a, b in zip(got, want):
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(b)
