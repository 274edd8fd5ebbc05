"""What is asked of a denoiser must be what it was trained for."""

import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.data.settings import DataSettings
from lgs_jax.tasks import denoising


def make(**diffusion):
    data = settings.build(DataSettings, tiny.CONFIG["data"], "data")
    return denoising.from_config({"diffusion": diffusion, "sampler": {"steps": 3}}, data)


@pytest.mark.parametrize(
    ("trained", "asked", "message"),
    [
        ({"max_known": 1}, (2, 1.0, True), "2 known views are more than the 1"),
        ({"unconditional": 1.0}, (1, 1.0, True), "never been shown one"),
        ({"unconditional": 0.0}, (0, 1.0, True), "always been shown a view"),
        ({"unconditional": 0.0}, (1, 2.0, True), r"guidance_scale=2 needs .*unconditional > 0"),
        ({"class_drop": 0.0}, (1, 0.5, True), r"guidance_scale=0\.5 needs .*class_drop > 0"),
        ({"class_drop": 0.0}, (1, 1.0, False), "always been told the class"),
    ],
)
def test_what_was_never_met_in_training_is_not_drawn(trained, asked, message):
    known, scale, told = asked
    with pytest.raises(settings.SettingsError, match=message):
        make(**trained).check_request(known, scale, class_told=told)
    make().check_request(known, scale, class_told=told)
    if "class" in message:  # a network without classes misses none
        make(**trained).check_request(known, scale, class_told=None)
