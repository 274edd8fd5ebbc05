"""The models of the package load by name, sample, and say what they are."""

import importlib
import pathlib
import re
import shlex

import jax
import numpy as np
import pytest

import lgs_jax
from lgs_jax import __main__ as front
from lgs_jax import settings
from lgs_jax.cli import plan, sample
from lgs_jax.inference import pretrained
from lgs_jax.tasks import vae
from lgs_jax.training import checkpoint


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
    assert not pretrained.recognised_classes(name)  # of another model, perhaps


def test_a_misspelt_name_is_answered_with_the_models_that_there_are():
    with pytest.raises(checkpoint.CheckpointError) as error:
        lgs_jax.load("objects-smal")
    assert "did you mean 'objects-small'?" in str(error.value)
    assert all(name in str(error.value) for name in pretrained.names())


def test_what_is_no_model_is_said(tmp_path):
    (notes := tmp_path / "README.md").write_text("# Notes\n")
    with pytest.raises(checkpoint.CheckpointError, match=r"README\.md is no model: .*pack-model"):
        lgs_jax.load(notes)
    (splats := tmp_path / "out.glb").write_bytes(b"glTF")
    with pytest.raises(checkpoint.CheckpointError, match=r"splats is read by .*formats\.load"):
        lgs_jax.load(splats)


def test_a_folder_of_runs_is_answered_with_its_runs(tmp_path):
    for name in ("vae", "diffusion"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    runs = f"{tmp_path}/diffusion, {tmp_path}/vae"
    with pytest.raises(checkpoint.CheckpointError, match=f"folder of runs; give one of {runs}"):
        lgs_jax.load(tmp_path)


def test_recognised_classes_are_classes_of_the_model():
    model = lgs_jax.load("objects-small")
    drawn = {model.class_names[label] for label in model.path_classes}
    assert 4 <= len(pretrained.recognised_classes("objects-small")) < len(drawn)
    assert set(pretrained.recognised_classes("objects-small")) <= drawn
    assert pretrained.recognised_classes("runs/objects-small") == ()


def commands_of(name):
    """Every command that a card prints, in blocks and in sentences, as words."""
    text = pretrained.card(name).read_text().replace("\\\n", " ")
    printed = re.findall(r"python -m (lgs_jax[ .][^`\n]+)", text)
    return [shlex.split(command, comments=True) for command in printed]


def flags_of(words):
    return dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)


@pytest.mark.parametrize("name", pretrained.names())
def test_folders_of_a_card_fit_together(name):
    """What a command reads, one before it has written."""
    written = set()
    for words in commands_of(name):
        flags = flags_of(words)
        made = {flags.pop(flag, "") for flag in ("workdir", "output")}
        own = re.compile(r"runs/.*|.*\.safetensors(\.xz)?")
        for value in filter(own.fullmatch, flags.values()):
            assert any(pathlib.PurePath(value).is_relative_to(each) for each in written), value
        assert not made & written
        written |= made - {""}
    assert any(each.endswith(".safetensors.xz") for each in written)


@pytest.mark.parametrize("name", pretrained.names())
def test_commands_of_a_card_have_known_flags(name):
    trained = 0
    for module, *words in commands_of(name):
        if module == "lgs_jax.main":
            trained += 1
            assert all(word.startswith(("--config", "--workdir=")) for word in words), words
            continue
        command, *arguments = words
        assert command in front.commands()
        parser = importlib.import_module(f"lgs_jax.cli.{command.replace('-', '_')}")._parser()
        parser.parse_args(front.with_hyphens(arguments))  # ends the program if one is not known
    assert trained >= 4


# As ml_collections loads configuration files.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("name", pretrained.names())
def test_trainings_of_a_card_have_known_keys(name, monkeypatch):
    """The configurations can be read, and settings, task and network accept all of their keys."""
    monkeypatch.chdir(pathlib.Path(__file__).parents[2])
    first = None
    for module, *words in commands_of(name):
        if module != "lgs_jax.main":
            continue
        flags = flags_of(words)
        overrides = [word for word in words if word.startswith("--config.")]
        config = plan.read_config(flags["config"], overrides)
        if config["data"]["source"] != "procedural":
            assert config["data"]["root"] == "ROOMS"
        if config["task"] == "vae":
            settings.build(vae.LossSettings, config["loss"], "config.loss")
            config["loss"]["perceptual"] = "none"  # its weights are not part of the repository
            first = first or config
        else:
            assert flags["config.autoencoder"]
            assert flags["config.latents"]
        plan.make_case(config, first if config["task"] == "diffusion" else None, {})
