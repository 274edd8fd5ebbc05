"""The denoiser: zeros at the start, any views in any order, and what conditioning reaches it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax import settings
from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models import denoiser

SIZE = (16, 32)
TINY = {
    "latent_channels": 3,
    "compression": 4,
    "num_classes": 2,
    "embedding_size": 16,
    "widths": (8, 16),
    "blocks_per_level": 1,
    "middle_blocks": 1,
    "attention_levels": (1,),
    "num_heads": 2,
    "cross_view": ("resnet", "full"),
}


def make_inputs(batch=2, views=3):
    rng = np.random.default_rng(views)
    angles = jnp.linspace(-0.4, 0.4, views) + 0.1 * jnp.arange(batch)[:, None]
    centers = 2 * jnp.stack([jnp.sin(angles), 0.1 * angles, -jnp.cos(angles)], axis=-1)
    poses = cameras_lib.look_at(centers, jnp.zeros(3), jnp.array([0.0, -1.0, 0.0]))
    intrinsics = jnp.broadcast_to(jnp.float32([32, 32, 16, 8]), (batch, views, 4))
    latents = rng.standard_normal((2, batch, views, 4, 8, 3), "f4")
    return {
        "z": jnp.asarray(latents[0]),
        "log_snr": jnp.linspace(-3.0, 2.0, batch),
        "cameras": cameras_lib.Cameras(poses, intrinsics),
        "known": jnp.asarray(latents[1]),
        "known_mask": jnp.arange(views) < jnp.full((batch, 1), 1),
        "class_label": jnp.zeros(batch, jnp.int32),
    }


@functools.cache
def compiled():
    model = denoiser.Denoiser(**TINY)
    return jax.jit(
        lambda params, inputs: model.apply({"params": params}, image_size=SIZE, **inputs)
    )


@pytest.fixture(scope="module")
def initial():
    model = denoiser.Denoiser(**TINY)
    make = jax.jit(lambda key, inputs: model.init(key, image_size=SIZE, **inputs))
    return make(jax.random.key(0), make_inputs())["params"]


@pytest.fixture(scope="module")
def trained(initial):
    """Every zero of the initial parameters moved, so that all paths carry signals."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape, "f4"), initial)


def test_starts_with_zeros(initial):
    output = compiled()(initial, make_inputs())
    assert output.shape == (2, 3, 4, 8, 3)
    assert output.dtype == jnp.float32
    assert not np.any(output)


def test_order_of_the_views_does_not_matter(trained):
    inputs, order = make_inputs(), jnp.array([2, 0, 1])
    per_view = ("z", "cameras", "known", "known_mask")
    shuffled = inputs | {k: jax.tree.map(lambda x: x[:, order], inputs[k]) for k in per_view}
    output, again = compiled()(trained, inputs), compiled()(trained, shuffled)
    # Sums over views and tokens in another order: some float32 roundings in activations of O(10).
    np.testing.assert_allclose(again, output[:, order], rtol=1e-3, atol=1e-4)
    assert np.abs(again - output).max() > 0.1


@pytest.mark.parametrize("views", [1, 5])
def test_takes_any_number_of_views(trained, views):
    output = compiled()(trained, make_inputs(views=views))
    assert output.shape == (2, views, 4, 8, 3)
    assert np.isfinite(output).all()


def change(trained, **changes):
    """Largest change of the output per view [V] of scene 0 when inputs change."""
    inputs = make_inputs()
    changed = inputs | {name: function(inputs[name]) for name, function in changes.items()}
    difference = compiled()(trained, changed) - compiled()(trained, inputs)
    return np.abs(difference[0]).max(axis=(1, 2, 3))


def test_a_known_view_reaches_the_others_and_an_unknown_one_is_not_looked_at(trained):
    assert (change(trained, known=lambda x: x.at[:, 0].add(1.0)) > 1e-3).all()
    assert not change(trained, known=lambda x: x.at[:, 1:].add(1.0)).any()
    assert not change(trained, known=lambda x: x.at[:, 1:].set(jnp.nan)).any()
    assert (change(trained, known_mask=jnp.zeros_like) > 1e-3).all()
    # The mask says more than zeros in the latents would.
    blank = make_inputs() | {"known": jnp.zeros_like(make_inputs()["known"])}
    hidden = blank | {"known_mask": jnp.zeros_like(blank["known_mask"])}
    assert np.abs(compiled()(trained, blank) - compiled()(trained, hidden)).max() > 1e-3


def test_noise_level_cameras_and_class_matter(trained):
    assert (change(trained, log_snr=lambda x: x + 0.1) > 1e-4).all()
    assert (change(trained, class_label=lambda x: x + 1) > 1e-3).all()

    def moved(cameras):
        return cameras_lib.Cameras(
            cameras.world_from_cam.at[:, 2, 0, 3].add(0.5), jnp.asarray(cameras.intrinsics)
        )

    assert (change(trained, cameras=moved) > 1e-4).all()


def test_labels_outside_the_range_mean_no_class(trained):
    inputs = make_inputs()
    without = compiled()(trained, inputs | {"class_label": None})
    for label in (-1, 2, 7):
        same = compiled()(trained, inputs | {"class_label": jnp.full(2, label)})
        np.testing.assert_array_equal(same, without)
    assert np.abs(compiled()(trained, inputs) - without).max() > 1e-3


def test_without_classes_there_is_no_embedding():
    model = denoiser.Denoiser(**TINY | {"num_classes": 0})
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image_size=SIZE, **make_inputs())["params"]
    )
    assert set(shapes) == {"log_snr_in", "log_snr_out", "unet_trunk"}


def test_representations_count_where_they_are_told():
    model = denoiser.Denoiser(**TINY | {"representation_size": 5})
    inputs = make_inputs()
    inputs |= {"representation": jnp.ones((2, 5)), "represented": jnp.array([True, False])}
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image_size=SIZE, **inputs)["params"]
    )
    assert shapes["representation_in"]["kernel"].shape == (6, 16)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, "f4"), shapes)
    run = jax.jit(lambda inputs: model.apply({"params": params}, image_size=SIZE, **inputs))
    told, other = (
        np.asarray(run(inputs | {"representation": jnp.full((2, 5), value)}))
        for value in (1.0, -2.0)
    )
    assert np.abs(told[0] - other[0]).max() > 1e-3
    np.testing.assert_array_equal(told[1], other[1])
    nothing = run(inputs | {"representation": None, "represented": None})
    np.testing.assert_allclose(nothing[1], told[1], atol=1e-6)
    # None told is not the same as told that it is zero, an ordinary one.
    zero = run(inputs | {"representation": jnp.zeros((2, 5))})
    assert np.abs(zero[0] - nothing[0]).max() > 1e-3


def test_fourier_features_tell_close_levels_apart():
    levels = np.linspace(-20.0, 20.0, 401)  # a tenth apart
    features = np.asarray(denoiser.fourier_features(levels, 32), np.float64)
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1)
    assert distances[~np.eye(401, dtype=bool)].min() > 0.5
    # The first pair has the slowest frequency.
    np.testing.assert_allclose(features[:, 0], np.sin(0.15 * levels), atol=1e-6)
    np.testing.assert_allclose(features[:, 16], np.cos(0.15 * levels), atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"latent_channels": 0}, "latent_channels=0 must be at least 1"),
        ({"representation_size": -1}, "representation_size=-1 must be at least 0"),
        ({"embedding_size": 15}, "embedding_size=15 must be a positive even"),
        ({"widths": (8, 9)}, "9 must be a positive multiple of 4"),
        ({"wdths": (8,)}, "did you mean 'widths'"),
    ],
)
def test_attributes_that_do_not_fit_are_named(overrides, message):
    with pytest.raises(settings.SettingsError, match=message):
        settings.build(denoiser.Denoiser, TINY | overrides, "config.model")


def test_latents_that_do_not_fit_are_named(initial):
    model, inputs = denoiser.Denoiser(**TINY), make_inputs()
    with pytest.raises(ValueError, match=r"multiples of 8 .*compression=4"):
        model.apply({"params": initial}, image_size=(16, 36), **inputs)
    with pytest.raises(ValueError, match=r"must both be \[B, V, 4, 4, 3\]"):
        model.apply({"params": initial}, image_size=(16, 16), **inputs)
