"""Made-up cameras see all of what a scene is of, whatever else the file holds."""

import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.viewer import framing


def of_points(points):
    count = len(points)
    return Gaussians(
        means=jnp.asarray(points, jnp.float32),
        quats=jnp.tile(jnp.array([1.0, 0.0, 0.0, 0.0]), (count, 1)),
        scales=jnp.full((count, 3), 0.005),
        opacities=jnp.full(count, 0.9),
        colors=jnp.full((count, 3), 0.5),
    )


@pytest.fixture
def plant():
    """A wide pot that holds most of the splats, and a thin high stem (up is -y)."""
    rng = np.random.default_rng(0)
    pot = rng.uniform([-0.3, 0.0, -0.3], [0.3, 0.4, 0.3], (4000, 3))
    stem = rng.uniform([-0.02, -0.6, -0.02], [0.02, 0.0, 0.02], (600, 3))
    return np.concatenate([pot, stem])


def places(points, cameras):
    """Where points [N, 3] lie in the images of cameras [V]: [V, N, 2], in pixels."""
    local = np.linalg.inv(np.asarray(cameras.world_from_cam, np.float64))
    at = np.einsum("vij,nj->vni", local[:, :3, :3], points) + local[:, None, :3, 3]
    fx, fy, cx, cy = np.asarray(cameras.intrinsics, np.float64).T[:, :, None]
    return np.stack([fx * at[..., 0] / at[..., 2] + cx, fy * at[..., 1] / at[..., 2] + cy], -1)


@pytest.mark.parametrize("up", [(0.0, -1.0, 0.0), (0.0, 0.0, 1.0)])
def test_all_of_it_is_seen_and_fills_the_picture(plant, up):
    cameras, (height, width) = framing.around(of_points(plant), up)
    seen = places(plant, cameras)
    assert np.all(seen > 0)
    assert np.all(seen < [width, height])
    assert np.ptp(seen[..., 1], axis=1).max() > 0.5 * height


def test_background_and_floaters_are_no_part_of_it(plant):
    center, radius = framing.extent(of_points(plant))
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(800, 3))  # of a sixth of the splats
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    walls = directions * rng.uniform(5, 50, (800, 1))
    floaters = rng.uniform(-1, 1, (10, 3))
    among, grown = framing.extent(of_points(np.concatenate([plant, walls, floaters])))
    np.testing.assert_allclose(among, center, atol=0.05)
    assert grown == pytest.approx(radius, rel=0.1)


def test_a_single_splat_has_an_extent():
    center, radius = framing.extent(of_points(np.array([[1.0, 2.0, 3.0]])))
    np.testing.assert_allclose(center, [1, 2, 3])
    assert radius == pytest.approx(0.01, rel=1e-3)  # two standard deviations
