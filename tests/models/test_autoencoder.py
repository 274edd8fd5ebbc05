import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lgs_jax import settings as settings_lib
from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models import autoencoder, encoder, parameters

SIZE = (16, 32)
FOUR_LEVELS = {"widths": (8, 12, 16, 20), "attention_levels": (3,)}
TINY = {
    "compression": 4,
    "patch_size": 2,
    "widths": (8, 16),
    "blocks_per_level": 1,
    "middle_blocks": 1,
    "attention_levels": (1,),
    "num_heads": 2,
    "scene_head": {"near": 0.5, "far": 50.0, "initial_depth": 2.0},
}


def _cameras(batch=2, views=3, size=SIZE):
    angles = jnp.linspace(-0.4, 0.4, views) + 0.1 * jnp.arange(batch)[:, None]
    centers = 2 * jnp.stack([jnp.sin(angles), 0.1 * angles, -jnp.cos(angles)], axis=-1)
    poses = cameras_lib.look_at(centers, jnp.zeros(3), jnp.array([0.0, -1.0, 0.0]))
    height, width = size
    intrinsics = jnp.array([width, width, width / 2, height / 2], jnp.float32)
    return cameras_lib.Cameras(poses, jnp.broadcast_to(intrinsics, (batch, views, 4)))


def _images(batch=2, views=3, size=SIZE):
    return jax.random.uniform(jax.random.key(0), (batch, views, *size, 3))


def _perturb(params, amount=0.05):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + amount * rng.standard_normal(x.shape, "f4"), params)


@pytest.fixture(scope="module")
def initial():
    """Parameters of the tiny model at the start of training."""
    model = autoencoder.Autoencoder(**TINY)
    return jax.jit(model.init)(jax.random.key(1), _images(), _cameras())["params"]


@functools.cache
def _apply(dtype="float32"):
    """The tiny model, compiled once: (params, images, cameras, key, mask) -> (scene, posterior)."""
    model = autoencoder.Autoencoder(**TINY, dtype=dtype)
    return jax.jit(lambda params, *args: model.apply({"params": params}, *args))


@functools.cache
def _gradient():
    """Compiled gradient, for the parameters, of a random projection of all outputs."""
    model = autoencoder.Autoencoder(**TINY)

    def projection(params):
        outputs = model.apply({"params": params}, _images(), _cameras(), jax.random.key(2))
        rng = np.random.default_rng(0)
        leaves = jax.tree.leaves(outputs)
        return sum(jnp.vdot(x, rng.standard_normal(x.shape, "f4")) for x in leaves)

    return jax.jit(jax.grad(projection))


@pytest.mark.parametrize(
    ("compression", "patch_size", "views"), [(4, 1, 1), (8, 1, 3), (16, 2, 2), (8, 4, 6)]
)
def test_shapes(compression, patch_size, views):
    levels = {"compression": compression, "patch_size": patch_size, **FOUR_LEVELS}
    model = autoencoder.Autoencoder(**{**TINY, **levels}, latent_channels=4)
    size = (32, 64)
    scene, posterior = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0), _images(2, views, size), _cameras(2, views, size)
        )
    )[0]
    latents = (2, views, 32 // compression, 64 // compression, 4)
    assert posterior.mean.shape == posterior.log_var.shape == latents
    scene.check()
    assert scene.opacities.shape == (2, views * 32 * 64)
    assert {x.dtype for x in jax.tree.leaves((scene, posterior))} == {jnp.dtype("float32")}


def test_default_model_has_the_shapes_of_a_full_run():
    model, size = autoencoder.Autoencoder(dtype="bfloat16", remat="full"), (96, 96)
    images, cameras = _images(1, 6, size), _cameras(1, 6, size)
    (scene, posterior), variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images, cameras, jax.random.key(1))
    )
    assert posterior.mean.shape == (1, 6, 12, 12, 6)
    assert scene.means.shape == (1, 6 * 96 * 96, 3)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
    assert 1e8 < parameters.count(variables["params"]) < 4e8


def test_starts_with_a_shell_of_splats_and_little_noise(initial):
    scene, posterior = _apply()(initial, _images(), _cameras())
    in_pixels = scene.scales.reshape(2, 3, -1, 3) * SIZE[1]
    depths = jnp.linalg.norm(
        scene.means.reshape(2, 3, -1, 3) - _cameras().centers[:, :, None], axis=-1
    )
    assert 1.4 < float(depths.min()) < float(depths.max()) < 3.5
    assert 0.5 < float(jnp.median(in_pixels / depths[..., None])) < 1.1
    assert 0.65 < float(scene.opacities.min()) < float(scene.opacities.max()) < 0.9
    np.testing.assert_allclose(posterior.log_var.mean(), encoder.INITIAL_LOG_VAR, atol=0.5)
    assert 0.1 < float(posterior.mean.std()) < 3.0
    gradient = _gradient()(initial)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))


def test_gradient_reaches_every_parameter(initial):
    gradient = _gradient()(_perturb(initial))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


def test_bfloat16_stays_close_to_float32(initial):
    params = _perturb(initial, 0.02)
    scene, posterior = _apply()(params, _images(), _cameras())
    low_scene, low_posterior = _apply("bfloat16")(params, _images(), _cameras())
    error = jnp.abs(low_posterior.mean - posterior.mean).max()
    # 8 bits of mantissa through about 20 layers; equality would mean that the switch does nothing.
    assert 0 < float(error) < 0.1 * float(jnp.abs(posterior.mean).max())
    np.testing.assert_allclose(low_scene.means, scene.means, atol=0.1)
    np.testing.assert_allclose(low_scene.colors, scene.colors, atol=0.05)


def test_views_left_out_reach_neither_the_latents_nor_the_splats_of_the_others(initial):
    params, images, cameras = _perturb(initial), _images(), _cameras()
    mask = jnp.array([[True, False, True]] * 2)
    changed = images.at[:, 1].set(1.0 - images[:, 1])

    def kept(images):
        scene, posterior = _apply()(params, images, cameras, None, mask)
        scene = jax.tree.map(lambda x: x.reshape(2, 3, -1), scene)
        assert float(scene.opacities[:, 1].max()) == 0.0
        return jax.tree.map(lambda x: x[:, ::2], (scene, posterior))

    jax.tree.map(np.testing.assert_array_equal, kept(images), kept(changed))


def test_sample_has_the_moments_of_the_posterior():
    mean = jnp.broadcast_to(jnp.array([1.0, -2.0]), (1, 1, 100, 100, 2))
    log_var = jnp.broadcast_to(jnp.log(jnp.array([0.25, 4.0])), mean.shape)
    z = autoencoder.sample(autoencoder.Posterior(mean, log_var), jax.random.key(0))
    # 10,000 draws: a standard error of the mean of 0.02 for the wider channel, taken five times.
    np.testing.assert_allclose(z.mean((0, 1, 2, 3)), [1.0, -2.0], atol=0.1)
    np.testing.assert_allclose(z.std((0, 1, 2, 3)), [0.5, 2.0], rtol=0.05)


def test_a_second_batch_does_not_retrace(initial):
    model, traces = autoencoder.Autoencoder(**TINY), []

    @jax.jit
    def encode(params, images, cameras):
        traces.append(1)
        return model.apply({"params": params}, images, cameras, method=model.encode)

    first = encode(initial, _images(), _cameras())
    second = encode(_perturb(initial), 0.5 * _images(), _cameras()[:, ::-1])
    assert len(traces) == 1
    assert float(jnp.abs(first.mean - second.mean).max()) > 0


def test_nested_configuration_is_accepted_and_a_misspelt_key_is_not():
    config = ml_collections.ConfigDict(TINY)
    config.decoder_unet = ml_collections.ConfigDict({"blocks_per_level": 2})
    model = autoencoder.Autoencoder(**config)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), _images(), _cameras()))
    assert "up_0_block_1" in variables["params"]["decoder"]["unet_trunk"]
    assert "up_1_block_1" not in variables["params"]["encoder"]["unet_trunk"]
    for wrong, key in (
        ({"width": 3}, r"config\.model\.width; did you mean 'widths'"),
        ({"scene_head": {"nera": 1}}, r"scene_head\.nera; did you mean 'near'"),
        ({"encoder_unet": {"width": (8,)}}, r"encoder_unet\.width; did you mean 'widths'"),
    ):
        with pytest.raises(settings_lib.SettingsError, match=key):
            settings_lib.build(autoencoder.Autoencoder, {**TINY, **wrong}, "config.model")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compression": 6}, "compression=6"),
        ({"latent_channels": 0}, "latent_channels=0"),
        ({"patch_size": 3}, "patch_size=3"),
        ({"compression": 2, "patch_size": 4}, "patch_size=4 .*compression=2"),
        ({"compression": 16}, "compression=16 with patch_size=2 needs at least 4 widths"),
        ({"num_heads": 5}, "num_heads=5"),
        ({"scene": "mesh"}, r"scene='mesh': .* scene_head\.kind"),
        ({"scene_head": {"kind": "mesh"}}, r"scene_head\.kind='mesh' must be one of gaussians"),
        ({"refine": -1}, "refine=-1"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        autoencoder.Autoencoder(**{**TINY, **settings})


def test_inputs_that_do_not_fit_are_named(initial):
    model = autoencoder.Autoencoder(**TINY)

    def apply(method, *args):
        return model.apply({"params": initial}, *args, method=method)

    with pytest.raises(ValueError, match=r"image_size=\(14, 32\) must be multiples of 4"):
        apply(model.encode, jnp.zeros((1, 1, 14, 32, 3)), _cameras(1, 1))
    with pytest.raises(ValueError, match=r"images must be \[B, V, H, W, 3\]"):
        apply(model.encode, jnp.zeros((1, 16, 32, 3)), _cameras(1, 1))
    with pytest.raises(ValueError, match=r"expected \[B, V, 4, 8, 6\]"):
        apply(model.decode, jnp.zeros((1, 1, 2, 2, 6)), _cameras(1, 1), SIZE)


def test_the_shortcut_starts_with_the_colours_of_the_images():
    """Untrained, each splat has nearly the colour of its pixel, as far as the latents can say."""
    model = autoencoder.Autoencoder(**{**TINY, "latent_channels": 48})
    y, x = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]), indexing="ij")
    image = 0.5 + 0.2 * np.stack([np.sin(3 * x), np.cos(2 * y), x * y], axis=-1)
    images = jnp.asarray(np.broadcast_to(image, (*_images().shape[:2], *image.shape)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images, _cameras())
    apply = jax.jit(model.apply)
    scene, _ = apply(variables, images, _cameras())
    error = np.abs(np.asarray(scene.colors).reshape(images.shape) - images)
    assert error.mean() < 0.04  # a sigmoid for a line, and the U-Nets' small random outputs
    flipped, _ = apply(variables, 1.0 - images, _cameras())
    assert np.abs(np.asarray(flipped.colors).reshape(images.shape) - images).max() > 0.3
    without = autoencoder.Autoencoder(**{**TINY, "shortcut": False})
    names = jax.eval_shape(without.init, jax.random.key(0), _images(), _cameras())["params"]
    assert "shortcut" not in names["encoder"]
    assert "shortcut" not in names["decoder"]


def test_refinement_starts_as_nothing_and_then_joins_neighbouring_patches(initial):
    model = autoencoder.Autoencoder(**{**TINY, "refine": 4})
    latents = jax.random.normal(jax.random.key(3), (2, 3, 4, 8, 6))

    def decoder_of(module):
        def decode(params):
            return module.apply({"params": params}, latents, _cameras(), SIZE, method="decode")

        return jax.jit(decode)

    shapes = jax.eval_shape(model.init, jax.random.key(0), _images(), _cameras())["params"]
    added = shapes["decoder"].keys() - initial["decoder"].keys()
    assert added == {"refine_in", "refine_out"}
    assert shapes["decoder"]["refine_in"]["kernel"].shape == (3, 3, 12, 4)
    rng = np.random.default_rng(0)
    layers = {
        name: jax.tree.map(lambda x: rng.standard_normal(x.shape, "f4"), shapes["decoder"][name])
        for name in added
    }
    without = decoder_of(autoencoder.Autoencoder(**TINY))(initial)
    decode = decoder_of(model)
    for scale, same in ((0.0, True), (0.1, False)):
        last = jax.tree.map(lambda x, s=scale: s * x, layers["refine_out"])
        decoder = {**initial["decoder"], **layers, "refine_out": last}
        refined = decode({**initial, "decoder": decoder})
        assert np.array_equal(refined.means, without.means) is same
