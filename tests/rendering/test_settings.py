"""The group `rendering` of a configuration: what it refuses, and what it asks of `render`."""

import pytest

from lgs_jax import settings
from lgs_jax.rendering.settings import RenderingSettings


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ({}, {}),
        ({"implementation": "", "tile_size": 0, "slots_per_splat": 0}, {}),
        ({"slots_per_splat": 8}, {"slots_per_splat": 8}),
        (
            {"implementation": "pallas_tpu", "tile_size": 32},
            {"implementation": "pallas_tpu", "tile_size": 32},
        ),
        ({"implementation": "reference"}, {"implementation": "reference"}),
    ],
)
def test_only_what_is_not_left_to_the_defaults_is_asked_for(values, options):
    assert settings.build(RenderingSettings, values, "config.rendering").options == options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"implementation": "cuda"}, "implementation='cuda' must be one of xla, pallas_gpu"),
        ({"tile_size": -8}, "tile_size=-8 must be positive, or 0 for the default"),
        ({"slots_per_splat": -1}, "slots_per_splat=-1 must be positive"),
        ({"slots_per_splat": 1.5}, r"config\.rendering\.slots_per_splat must be an int, got 1\.5"),
        ({"tile": 8}, r"config\.rendering\.tile; did you mean 'tile_size'"),
        (
            {"implementation": "reference", "slots_per_splat": 4},
            "implementation='reference' has no tiles: leave slots_per_splat=4 at 0",
        ),
        (
            {"implementation": "pallas_gpu", "tile_size": 12},
            "tile_size=12: implementation='pallas_gpu' takes tiles with a power of two",
        ),
        (
            {"implementation": "pallas_tpu", "tile_size": 8},
            "tile_size=8: implementation='pallas_tpu' takes tiles of 16x16 or 32x32",
        ),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(settings.SettingsError, match=message):
        settings.build(RenderingSettings, values, "config.rendering")
