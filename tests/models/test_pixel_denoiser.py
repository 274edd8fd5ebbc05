"""The denoiser of pixels: colours start from the pixels, and sizes that do not fit are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.models import pixel_denoiser

TINY = {
    "patch_size": 4,
    "embedding_size": 8,
    "widths": (8,),
    "blocks_per_level": 1,
    "middle_blocks": 0,
    "attention_levels": (),
    "num_heads": 1,
    "scene_head": {"near": 1.0, "far": 8.0},
}


def make_inputs():
    images, cameras = tiny.make_views()
    z = np.random.default_rng(0).standard_normal(images.shape, "f4")
    mask = jnp.array([[True, False], [False, False]])
    return jnp.asarray(z), jnp.array([-2.0, 3.0]), cameras, 2 * images - 1, mask


def at_start(**changes) -> Gaussians:
    """The scene of a network whose parameters are all zero, and so its output."""
    model = settings.build(pixel_denoiser.PixelDenoiser, TINY | changes, "model")
    inputs = make_inputs()
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    known = jnp.where(inputs[4][..., None, None, None], inputs[3], jnp.nan)  # not looked at
    inputs = (*inputs[:3], known, inputs[4])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    return jax.jit(model.apply)(zeros, *inputs)


def test_colours_start_from_the_pixels():
    z, log_snr, _, known, _ = make_inputs()
    trust = 1 / (1 + np.exp(-np.asarray(log_snr, np.float64)))
    shown = trust[:, None, None, None, None] * np.asarray(z)
    shown[0, 0] = known[0, 0]
    expected = (1 / (1 + np.exp(-2 * shown))).reshape(2, -1, 3)
    scene = at_start()
    assert scene.means.shape == (2, tiny.VIEWS * tiny.SIZE**2, 3)
    np.testing.assert_allclose(scene.colors, expected, atol=1e-6)
    # Grey without the shortcut; everything else is the head's shell either way.
    plain = at_start(shortcut=False, patch_size=2)
    np.testing.assert_array_equal(plain.colors, 0.5)
    np.testing.assert_array_equal(plain.means, scene.means)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 3}, "patch_size=3 must be one of"),
        ({"scene": "fog"}, r"scene='fog': .* scene_head\.kind"),
        ({"scene_head": {"kind": "fog"}}, r"scene_head\.kind='fog' must be one of"),
        ({"scene_head": {"naer": 1.0}}, "did you mean 'near'"),
        ({"embedding_size": 3}, "embedding_size=3"),
        ({"widths": (6,)}, "6 must be a positive multiple of 4"),
    ],
)
def test_attributes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(settings.SettingsError, match=message):
        settings.build(pixel_denoiser.PixelDenoiser, TINY | changes, "config.model")


def test_images_that_do_not_fit_are_named():
    model = pixel_denoiser.PixelDenoiser(**TINY)
    z, log_snr, cameras, known, mask = make_inputs()
    with pytest.raises(ValueError, match=r"must both be \[B, V, H, W, 3\]"):
        model.init(jax.random.key(0), z[..., :2], log_snr, cameras, known, mask)
    cut = (z[:, :, :14], log_snr, cameras, known[:, :, :14], mask)
    with pytest.raises(ValueError, match="14 x 16 must have sides that are multiples of 4"):
        model.init(jax.random.key(0), *cut)
