"""A frozen autoencoder: normalised latents, the same scenes, an argument of compiled programs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.data.settings import DataSettings
from lgs_jax.models import autoencoder, frozen_autoencoder
from lgs_jax.models.latent_stats import LatentStats


@pytest.fixture(scope="module")
def plain():
    return frozen_autoencoder.from_run(tiny.CONFIG, tiny.make_params())


def test_describes_itself(plain):
    assert plain.latent_shape == (4, 4, 2)
    assert (plain.image_size, plain.num_views) == ((tiny.SIZE, tiny.SIZE), 2)
    assert plain.scene_frame == ("first", "cameras")


def test_latents_are_normalised_and_decoding_undoes_it(plain):
    images, cameras = tiny.make_views()
    encode = jax.jit(lambda frozen, mask: frozen.encode(images, cameras, mask))
    decode = jax.jit(lambda frozen, latents: frozen.decode(latents, cameras))
    frozen, everything = plain.with_stats(tiny.STATS), jnp.ones((2, 2), bool)
    raw, normalised = encode(plain, everything), encode(frozen, everything)
    mean, std = np.float32(tiny.STATS.mean), np.float32(tiny.STATS.std)
    np.testing.assert_allclose(normalised.mean * std + mean, raw.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        np.exp(normalised.log_var / 2) * std, np.exp(raw.log_var / 2), rtol=1e-5
    )
    assert np.abs(normalised.mean - raw.mean).max() > 0.1
    # Rounding of the normalised latents, amplified a little by the network.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        decode(frozen, normalised.mean),
        decode(plain, raw.mean),
    )
    alone = encode(frozen, jnp.array([[True, False]] * 2))
    assert np.abs(alone.mean[:, 0] - normalised.mean[:, 0]).max() > 1e-3
    # Other values of the same autoencoder are other arguments of the same program.
    assert encode._cache_size() == 1
    memory = encode.lower(plain, everything).compile().memory_analysis()
    size = sum(x.nbytes for x in jax.tree.leaves(plain.params["encoder"]))
    assert memory.argument_size_in_bytes > size


def test_refuses_data_that_it_was_not_trained_for(plain):
    plain.check_data(settings.build(DataSettings, tiny.CONFIG["data"], "data"))
    other = DataSettings(num_scenes=1, height=16, width=24, context_views=3, reference="middle")
    with pytest.raises(settings.SettingsError) as error:
        plain.check_data(other)
    assert str(error.value).splitlines()[:3] == [
        "config.data.width=24, but the autoencoder's is 16",
        "config.data.context_views=3, but the autoencoder's is 2",
        "config.data.reference='middle', but the autoencoder's is 'first'",
    ]


def test_refuses_what_does_not_belong_together(plain):
    with pytest.raises(settings.SettingsError, match=r"3 channels do not fit .*latent_channels=2"):
        plain.with_stats(LatentStats(1, 1, (0.0,) * 3, (1.0,) * 3))
    with pytest.raises(settings.SettingsError, match="its task is 'splat_fit'"):
        frozen_autoencoder.from_run(tiny.CONFIG | {"task": "splat_fit"}, plain.params)
    wider = tiny.CONFIG | {"model": tiny.CONFIG["model"] | {"widths": (12,)}}
    with pytest.raises(settings.SettingsError, match=r"parameters do not fit .*: \(8, 8\) there"):
        frozen_autoencoder.from_run(wider, plain.params)


def test_refuses_what_needs_gaussians_for_other_kinds_of_scenes(plain):
    plain.check_gaussians("a .ply")
    head = tiny.CONFIG["model"]["scene_head"] | {"kind": "voxels"}
    module = settings.build(
        autoencoder.Autoencoder, tiny.CONFIG["model"] | {"scene_head": head}, "model"
    )
    other = dataclasses.replace(plain, module=module)
    with pytest.raises(settings.SettingsError, match=r"a \.ply needs .* scene_head\.kind='voxels'"):
        other.check_gaussians("a .ply")
