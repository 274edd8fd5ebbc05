"""What counts as the same scene."""

import dataclasses

import numpy as np
import pytest
import splat_scenes

from lgs_jax.inference.export import verify


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("means", lambda x: np.nextafter(x, np.float32(99))),
        ("quats", lambda x: x + np.float32(1e-3)),
        ("scales", lambda x: x * np.float32(1 + 1e-5)),
        ("opacities", lambda x: x * np.float32(0.9999)),
        ("colors", lambda x: x + np.float32(1e-5)),
    ],
)
def test_small_differences_are_found(field, change):
    scene = splat_scenes.make()
    other = dataclasses.replace(scene, **{field: change(getattr(scene, field))})
    assert verify.differing_fields(scene, other) == [field]
    assert verify.differing_fields(scene, scene) == []


def test_quaternions_of_any_length_and_sign_are_the_same():
    scene = splat_scenes.make()
    assert verify.differing_fields(scene, dataclasses.replace(scene, quats=-3 * scene.quats)) == []
    assert verify.differing_fields(scene, splat_scenes.make(49)) == ["49 instead of 50 Gaussians"]
    with pytest.raises(ValueError, match="up='y' must be one of"):
        verify.compare_pictures(scene, scene, up="y")
