"""Which views a protocol scores."""

import dataclasses

import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import scene_model
from lgs_jax.inference.evaluation import protocols


def make_model(**data):
    """An autoencoder trained on such data."""
    trained_on = settings.build(DataSettings, tiny.CONFIG["data"] | data, "data")
    return scene_model.SceneModel(tiny.make(), data=trained_on)


@pytest.mark.parametrize(
    ("data", "asked", "count", "text"),
    [
        ({}, None, 2, "2 held-out views of each scene, these between the encoded ones"),
        ({"gap_max": 2}, None, 1, "1 held-out views of each scene, these between"),
        ({"gap_max": 2}, 3, 3, "1 frames lie between the encoded views, so others lie beyond them"),
        ({"num_frames": 3}, None, 1, "1 held-out views of each scene, these between"),
        ({"mix": ({"num_frames": 3, "weight": 0.5},)}, None, 1, "these between"),
    ],
)
def test_held_out_views_are_as_many_as_encoded_ones_where_there_is_room(data, asked, count, text):
    other = make_model(**data)
    found = protocols.data_settings("reconstruction", other, {}, asked)
    assert found.target_views == count
    assert text in protocols.describe_views(found)
    assert dataclasses.replace(found, target_views=1) == other.data


def test_a_view_index_says_how_many_views_there_are():
    other = make_model(source="transforms", root="x", view_index="v.json", num_scenes=None)
    found = protocols.data_settings("reconstruction", other, {})
    assert found.target_views == tiny.CONFIG["data"]["target_views"]
    assert "as v.json chooses them" in protocols.describe_views(found)
    with pytest.raises(ValueError, match=r"target_views=2, but the protocol .* has 3"):
        protocols.target_views(protocols.PROTOCOLS["re10k_2view"], other.data, 2)


def test_an_index_of_evaluation_names_no_scenes_of_training():
    large = make_model(height=256, width=256)
    with pytest.raises(ValueError, match="leave out split='train', or take another protocol"):
        protocols.data_settings("re10k_2view", large, {}, split="train")
    other = make_model(source="transforms", root="x", view_index="v.json", num_scenes=None)
    found = protocols.data_settings("reconstruction", other, {}, split="train")
    assert found.view_index == ""
    assert "2 other views of each scene, these between" in protocols.describe_views(found, "train")
