"""Sets of Gaussians: shapes, covariances and rigid motion."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lgs_jax.core import gaussians
from lgs_jax.core.gaussians import Gaussians


def random_scene(seed: int, *shape: int) -> Gaussians:
    rng = np.random.default_rng(seed)
    return Gaussians(
        means=jnp.asarray(rng.normal(size=(*shape, 3)), jnp.float32),
        quats=jnp.asarray(rng.normal(size=(*shape, 4)), jnp.float32),
        scales=jnp.asarray(rng.uniform(0.1, 1.0, size=(*shape, 3)), jnp.float32),
        opacities=jnp.asarray(rng.uniform(size=shape), jnp.float32),
        colors=jnp.asarray(rng.uniform(size=(*shape, 3)), jnp.float32),
    )


def test_shapes_and_indexing():
    scene = random_scene(0, 2, 5).check()
    assert (scene.batch_shape, scene.num_gaussians, scene.num_channels) == ((2,), 5, 3)
    assert scene[1].batch_shape == ()
    np.testing.assert_array_equal(scene[1][2:4].means, scene.means[1, 2:4])
    assert [each.num_gaussians for each in scene] == [5, 5]
    with pytest.raises(IndexError, match="index 2 is out of range: the first dimension has 2"):
        scene[2]


@pytest.mark.parametrize("field", ["means", "quats", "scales", "colors"])
def test_check_names_the_wrong_field(field):
    scene = random_scene(0, 5)
    wrong = dataclasses.replace(scene, **{field: getattr(scene, field)[:4]})
    with pytest.raises(ValueError, match=rf"Gaussians\.{field} has shape \(4, "):
        wrong.check()


def test_check_refuses_what_is_no_array_of_floating_point_numbers():
    scene = random_scene(0, 5)
    colors = np.full((5, 3), 200, np.uint8)
    with pytest.raises(ValueError, match=r"Gaussians\.colors must be .* got uint8; .* by 255"):
        dataclasses.replace(scene, colors=colors).check()
    with pytest.raises(ValueError, match=r"Gaussians\.opacities must be an array .*, got list"):
        dataclasses.replace(scene, opacities=[0.5] * 5).check()
    jax.tree.map(lambda x: x.astype(np.float16), scene).check()


def test_covariance_matches_scipy():
    scene = random_scene(1, 2, 7)
    quats = np.asarray(scene.quats, np.float64).reshape(-1, 4)
    turns = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix()
    variances = np.asarray(scene.scales, np.float64).reshape(-1, 3) ** 2
    expected = np.einsum("nij,nj,nkj->nik", turns, variances, turns).reshape(2, 7, 3, 3)
    np.testing.assert_allclose(gaussians.covariances(scene), expected, atol=1e-6)


def test_similarity_moves_means_and_covariances():
    scene = random_scene(2, 2, 6)
    similarity = np.tile(np.eye(4), (2, 1, 1))
    turns = Rotation.random(2, random_state=3).as_matrix()
    similarity[:, :3, :3] = turns * np.array([0.5, 3.0])[:, None, None]
    similarity[:, :3, 3] = [[1, 2, 3], [-1, 0, 2]]
    moved = gaussians.transform(scene, jnp.asarray(similarity, jnp.float32))
    linear = similarity[:, None, :3, :3]
    means = np.einsum("bxij,bnj->bni", linear, scene.means) + similarity[:, None, :3, 3]
    np.testing.assert_allclose(moved.means, means, atol=1e-5)
    expected = linear @ np.asarray(gaussians.covariances(scene)) @ linear.swapaxes(-1, -2)
    np.testing.assert_allclose(gaussians.covariances(moved), expected, atol=1e-5)
    np.testing.assert_array_equal(moved.colors, scene.colors)
    np.testing.assert_array_equal(moved.opacities, scene.opacities)


def test_concatenate_keeps_order():
    a, b = random_scene(4, 3, 2), random_scene(5, 3, 4)
    both = gaussians.concatenate([a, b]).check()
    assert both.num_gaussians == 6
    jax.tree.map(np.testing.assert_array_equal, both[:, :2], a)
    jax.tree.map(np.testing.assert_array_equal, both[:, 2:], b)
