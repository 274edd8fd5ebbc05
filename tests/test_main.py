"""The training command: what it refuses at once, where it writes, and one run to the end."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from PIL import Image

from lgs_jax import main, settings, tasks
from lgs_jax.inference import training_parts
from lgs_jax.metrics.mean import Mean
from lgs_jax.training import preemption

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
TINY = """
import ml_collections

def get_config(variant=None):
    config = ml_collections.ConfigDict()
    config.task = "vae"
    config.seed = 0
    config.data = ml_collections.ConfigDict({
        "source": "procedural", "num_scenes": 6, "holdout": 0.34, "num_frames": 5,
        "height": 16, "width": 16, "context_views": 2, "target_views": 1,
    })
    config.model = ml_collections.ConfigDict({
        "compression": 8, "latent_channels": 2, "patch_size": 2, "widths": (8, 8, 8),
        "attention_levels": (), "num_heads": 1, "blocks_per_level": 1,
    })
    config.loss = ml_collections.ConfigDict({"l2": 1.0})
    config.metrics = ml_collections.ConfigDict({"lpips": "none"})
    config.optimizer = ml_collections.ConfigDict({"learning_rate": 1e-3})
    config.training = ml_collections.ConfigDict({
        "num_steps": 4, "batch_size": 2, "log_every": 1, "eval_every": 2, "eval_scenes": 3,
        "save_every": 2,
    })
    config.mesh = ml_collections.ConfigDict({"data": 1})
    return config
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return path


@pytest.fixture
def config(config_file):
    namespace = {}
    exec(config_file.read_text(), namespace)
    return namespace["get_config"]().to_dict()


@pytest.mark.parametrize(
    ("group", "key", "message"),
    [
        ("training", "num_stpes", r"config\.training\.num_stpes; did you mean 'num_steps'"),
        ("data", "hieght", r"config\.data\.hieght; did you mean 'height'"),
        ("optimizer", "learning_rat", r"config\.optimizer\.learning_rat; did you mean 'learning_"),
        ("mesh", "dta", r"config\.mesh\.dta; did you mean 'data'"),
        ("training", "optimizer", r"config\.training\.optimizer belongs to config\.optimizer"),
    ],
)
def test_an_unknown_key_ends_the_run_at_once(config, tmp_path, group, key, message):
    config[group][key] = 1
    with pytest.raises(settings.SettingsError, match=message):
        main.run(config, str(tmp_path / "run"), preemption.StopSignal())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, r"config\.seed=-1 must be a whole number from 0 to 4294967295"),
        ({"seed": 99999999999999999999}, r"config\.seed=99999999999999999999 must be a whole"),
        ({"seed": 1.0}, r"config\.seed=1\.0 must be a whole number"),
        ({"mesh": {"data": 1, "view": 3}}, r"config\.mesh\.view=3 must divide .* there are \[2\]"),
        ({"mesh": {"data": 0}}, "config.mesh: data=0 must be positive, or -1 for all"),
    ],
)
def test_a_value_that_cannot_be_ends_the_run_at_once(config, tmp_path, changes, message):
    with pytest.raises(settings.SettingsError, match=message):
        main.run(config | changes, str(tmp_path / "run"), preemption.StopSignal())
    assert not (tmp_path / "run").exists()


def test_an_unknown_or_missing_group_ends_the_run_at_once(config, tmp_path):
    with pytest.raises(settings.SettingsError, match=r"config\.trainig; did you mean 'training'"):
        main.run(config | {"trainig": {}}, str(tmp_path), preemption.StopSignal())
    del config["data"]
    with pytest.raises(settings.SettingsError, match="config lacks data"):
        main.run(config, str(tmp_path), preemption.StopSignal())


class MeanColor:
    """The cheapest task that takes a real batch: one colour for every pixel."""

    def init(self, key):
        return {"color": jax.random.uniform(key, (3,))}

    def errors(self, params, batch):
        images = batch["target"]["images"] / 255.0
        return jnp.mean((images - params["color"]) ** 2, axis=(1, 2, 3, 4))

    def loss(self, params, batch, key):
        return jnp.mean(self.errors(params, batch)), {}

    def evaluate(self, params, batch, key):
        return {"mse": Mean.of(self.errors(params, batch), batch["weight"])}

    def visualize(self, params, batch, key):
        return {"view": batch["target"]["images"][0, 0]}

    def describe(self, params):
        return "one colour"


def test_joins_settings_data_task_and_pictures(config, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setenv("LGS_JAX_CACHE", "off")
    monkeypatch.setattr(tasks, "make_task", lambda *args: asked.append(args) or MeanColor())
    main.run(config, str(tmp_path / "run"), preemption.StopSignal())
    assert (
        "evaluations score 2 scenes, all that are held out; config.training.eval_scenes=3 asks"
        in capsys.readouterr().out
    )
    assert asked == [("vae", config)]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["step"] == 4
    assert results["seed"] == 0
    assert 0 < results["eval"]["mse"] < 1
    assert results["config"] == json.loads(json.dumps(config))
    with Image.open(tmp_path / "run" / "visuals" / "step_00000004" / "view.png") as picture:
        assert picture.size == (16, 16)
    main.run(config, str(tmp_path / "run"), preemption.StopSignal())  # nothing left to do


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"perceptual": "lpips_alex", "perceptual_weights": "nosuch"}}, "file nosuch"),
        ({"metrics": {"lpips": "alex", "lpips_weights": "a.png"}}, r"a\.png"),
    ],
)
def test_a_task_that_lacks_something_here_ends_the_run_with_a_sentence(
    config, tmp_path, monkeypatch, changes, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(settings.SettingsError, match=message):
        training_parts.make_task(config | changes, ())


def test_an_unknown_rasterizer_ends_the_run_at_once(config, monkeypatch):
    monkeypatch.setenv("LGS_JAX_RASTERIZER", "bogus")
    with pytest.raises(settings.SettingsError, match="LGS_JAX_RASTERIZER='bogus' must be one of"):
        training_parts.make_task(config, ())


def launch(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "lgs_jax.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_the_command_explains_without_a_traceback(config_file, tmp_path):
    """New keys pass absl, so that defaults can be overridden, and die at the settings."""
    done = launch(f"--config={config_file}", "--config.training.log_evry=3", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: unknown key config.training.log_evry; did you mean 'log_every'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_missing_group_or_file_is_explained_without_a_traceback(config_file, tmp_path):
    done = launch(f"--config={config_file}", "--config.trainin.num_steps=3", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert 'Did you mean "training" instead of "trainin"' in done.stderr
    done = launch("--config=nowhere.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: there is no file 'nowhere.py', here or in the package; expected" in done.stderr
    assert "configs/vae.py" in done.stderr
    (tmp_path / "notes.md").write_text("Not a configuration.\n")
    for config, message in (
        ("notes.md", "error: --config is no configuration in Python: invalid syntax (notes.md"),
        (f"{CONFIGS / 'vae.py'}:typo", "error: variant='typo' is not known"),
    ):
        done = launch(f"--config={config}", cwd=tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_trains_and_continues(config_file, tmp_path):
    """The real task through the real command, and again with a key that the file does not name."""
    done = launch(f"--config={config_file}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "compilation cache:" in done.stdout
    workdir = tmp_path / "runs" / "tiny"
    assert json.loads((workdir / "results.json").read_text())["step"] == 4
    assert list((workdir / "visuals" / "step_00000004").iterdir())
    done = launch(f"--config={config_file}", "--config.training.save_every_seconds=9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continues from step 4" in done.stdout
    assert "training.save_every_seconds: '(absent)' -> 9" in done.stdout
    assert "compiled" not in done.stdout  # nothing was left to do
    done = launch(f"--config={config_file}", "--config.optimizer.b1=0.5", cwd=tmp_path)
    assert done.returncode == 1
    assert "optimizer.b1: '(absent)' -> 0.5" in done.stderr
    assert "Traceback" not in done.stderr
