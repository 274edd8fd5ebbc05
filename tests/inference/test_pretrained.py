"""The models of the package load by name, sample, and say what they are."""

import jax
import numpy as np
import pytest

import lgs_jax
from lgs_jax.cli import sample
from lgs_jax.inference import pretrained


def test_the_default_of_the_command_is_there_and_all_are_small():
    assert sample.DEFAULT_MODEL in pretrained.names()
    files = [pretrained.find(name) for name in pretrained.names()]
    assert sum(path.stat().st_size for path in files) < 25e6


@pytest.mark.parametrize("name", pretrained.names())
def test_a_model_samples_and_has_a_card(name):
    model = lgs_jax.load(name)
    kind = model.class_names[model.path_classes[0]] if model.class_names else None
    scene = model.sample(jax.random.key(0), model.paths[0], class_label=kind, steps=2)[0]
    assert scene.num_gaussians == model.num_views * np.prod(model.image_size)
    assert np.isfinite(np.asarray(scene.means)).all()
    card = pretrained.card(name).read_text()
    assert card.startswith(f"# {name}\n")
    for part in ("data", "licence", "hardware", "Scores", "Limits"):
        assert part in card


def test_a_path_of_the_same_name_comes_first(tmp_path, monkeypatch):
    name = pretrained.names()[0]
    monkeypatch.chdir(tmp_path)
    assert pretrained.find(name) != name
    (tmp_path / name).mkdir()
    assert pretrained.find(name) == name
    assert pretrained.find("runs/vae") == "runs/vae"
