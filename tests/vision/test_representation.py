"""Representations are whitened, blind to colour and exposure, and survive being written."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.vision import lpips, representation, trunks


@pytest.fixture(scope="module")
def looker():
    """AlexNet with invented weights: what whitening does depends on no weights."""
    net = lpips.LpipsNet("alex")
    shapes = trunks.weight_shapes("alex")
    rng = np.random.default_rng(0)
    flat = {
        name: rng.standard_normal(shape, "f4") / np.sqrt(max(1, np.prod(shape[:-1])))
        for name, shape in shapes.items()
    }
    return representation.Looker("invented", flax.traverse_util.unflatten_dict(flat, sep="."), net)


def pictures(count, seed=0):
    """Smooth random pictures [N, 24, 32, 3]."""
    coarse = jax.random.uniform(jax.random.key(seed), (count, 6, 8, 3))
    return jax.image.resize(coarse, (count, 24, 32, 3), "linear")


def test_training_pictures_become_white(looker):
    seen = [looker(pictures(40, seed)) for seed in range(3)]
    project = representation.fit(seen)
    found = np.concatenate([project(parts) for parts in seen])
    assert found.shape == (120, representation.SIZE)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    # float32 features, of which the last components are some thousandths of the first.
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(len(found.T)), atol=5e-3)


def test_colour_and_exposure_do_not_matter_but_the_side_does(looker):
    images = pictures(4)
    grey = jnp.broadcast_to(images.mean(axis=-1, keepdims=True), images.shape)
    # Contrast is measured with a small constant, so that grey walls are not blown up.
    darker = 0.1 + 0.7 * images
    mirrored = images[:, :, ::-1]
    for name, expected in looker(images).items():
        grey_, darker_, mirrored_ = (
            float(jnp.abs(looker(changed)[name] - expected).mean())
            for changed in (grey, darker, mirrored)
        )
        assert grey_ < 1e-4 * jnp.abs(expected).mean(), name
        assert darker_ < 0.2 * mirrored_, name


def test_layout_is_the_brightness_of_cells(looker):
    """Against means of blocks, which the triangle of antialiasing blurs; shifted: below 0.3."""
    images = jnp.repeat(jnp.repeat(jax.random.uniform(jax.random.key(0), (2, 8, 8, 1)), 4, 1), 4, 2)
    cells = images.reshape(2, 8, 4, 8, 4).mean(axis=(2, 4))
    cells = np.asarray(cells - cells.mean(axis=(1, 2), keepdims=True)).reshape(2, -1)
    found = np.asarray(looker(jnp.repeat(images, 3, axis=-1))["layout"])
    for expected, layout in zip(cells, found, strict=True):
        assert np.corrcoef(expected, layout)[0, 1] > 0.9


def test_a_projection_is_read_as_it_was_written(looker, tmp_path):
    parts = looker(pictures(80))
    project = representation.fit([parts])
    project.save(tmp_path / "p.safetensors")
    read = representation.load_projection(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(read(parts), project(parts))
    (tmp_path / "p.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="holds no projection"):
        representation.load_projection(tmp_path / "p.safetensors")


def test_too_few_pictures_are_refused(looker):
    with pytest.raises(ValueError, match="10 training pictures do not differ in 24 ways"):
        representation.fit([looker(pictures(10))])
