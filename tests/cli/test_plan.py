"""plan from the shell: what it reads, what it says, and how it ends."""

import dataclasses
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_autoencoder

from lgs_jax import __main__ as front
from lgs_jax import settings
from lgs_jax.cli import plan
from lgs_jax.data import pipeline
from lgs_jax.training import planning

# As ml_collections loads configuration files.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

CONFIG = """
import ml_collections

def get_config(variant=None):
    if variant not in (None, "latent"):
        raise ValueError(f"{variant=} is not known")
    config = ml_collections.ConfigDict()
    config.task = "vae"
    config.seed = 0
    config.data = ml_collections.ConfigDict({
        "source": "realestate10k", "root": "", "height": 16, "width": 16, "context_views": 2,
        "target_views": 1,
    })
    config.model = ml_collections.ConfigDict({
        "compression": 4, "latent_channels": 2, "patch_size": 4, "widths": (8,),
        "attention_levels": (), "num_heads": 1, "blocks_per_level": 1, "middle_blocks": 0,
    })
    config.training = ml_collections.ConfigDict({"num_steps": 4, "batch_size": 4})
    if variant == "latent":
        config.task = "diffusion"
        config.model = ml_collections.ConfigDict({
            "compression": 4, "latent_channels": 2, "widths": (8,), "blocks_per_level": 1,
            "middle_blocks": 0, "attention_levels": (), "num_heads": 1, "embedding_size": 8,
        })
    return config
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def estimates(monkeypatch):
    """Invented estimates: 256 MiB for every scene of a microbatch, less with remat."""
    seen = []

    def estimate(case, target):
        seen.append(case)
        scenes = case.settings.microbatch_size
        temporaries = scenes * 2**28 // {"none": 1, "dots": 2, "full": 4}[case.remat]
        exact = planning.arguments_only(case, target)
        sent = {"kind": "all-reduce", "axes": "data", "count": 2, "sent_bytes": 2.0**29}
        return dataclasses.replace(
            exact,
            temporaries=temporaries,
            flops=8e12,
            communication=(sent | {"bounded": True}, sent | {"axes": "fsdp", "bounded": False}),
            seconds=2.0,
        )

    monkeypatch.setattr(planning, "estimate", estimate)
    return seen


def run(config_file, *arguments):
    return front.main(["plan", f"--config={config_file}", "--devices=1", *arguments])


def test_a_training_that_fits(config_file, estimates, capsys, tmp_path):
    written = tmp_path / "plan.json"
    assert run(config_file, "--memory=2GiB", f"--json={written}") == 0
    text = capsys.readouterr().out
    assert "fits: 1.00 GiB of 2.00 GiB (as given) on one device" in text
    assert "activations, gradients        1.00 GiB" in text
    assert "8e+12 FLOPs of matrix products a step, 2e+12 a scene" in text
    assert "sent by each device           1.00 GiB a step" in text
    assert "all-reduce over data                      0.50 GiB (2 of them)\n" in text
    assert "all-reduce over fsdp                      0.50 GiB (2 of them, at least)\n" in text
    assert "Compiled for a CPU" in text
    assert "looking for" not in text
    found = json.loads(written.read_text())
    assert found["as_configured"]["fits"] is True
    assert found["as_configured"]["temporaries"] == 2**30
    assert [row["axes"] for row in found["as_configured"]["communication"]] == ["data", "fsdp"]
    assert found["memory"] == 2 * 2**30
    assert found["config"]["training"] == {"num_steps": 4, "batch_size": 4}
    (case,) = estimates
    assert case.entry["context"]["images"].shape == (2, 16, 16, 3)


def test_a_training_that_does_not_fit_and_what_would(config_file, estimates, capsys, tmp_path):
    written = tmp_path / "plan.json"
    assert run(config_file, "--memory=600MiB", f"--json={written}") == 1
    text = capsys.readouterr().out
    assert "does not fit: 1.00 GiB of 0.59 GiB" in text
    assert "with\n  --config.training.accumulate_steps=2\n" in text
    last = json.loads(written.read_text())["tried"][-1]
    assert last["changes"] == {"training.accumulate_steps": 2}
    assert last["fits"] is True
    assert run(config_file, "--memory=600MiB", "--config.training.accumulate_steps=2") == 0


def test_recomputed_activations_are_suggested(config_file, estimates, capsys):
    assert run(config_file, "--memory=200MiB") == 1
    assert "with\n  --config.model.remat=" not in capsys.readouterr().out
    assert run(config_file, "--memory=200MiB", "--config.training.batch_size=1") == 1
    assert "with\n  --config.model.remat=dots\n" in capsys.readouterr().out
    assert run(config_file, "--memory=100MiB", "--config.training.batch_size=1") == 1
    assert "with\n  --config.model.remat=full\n" in capsys.readouterr().out
    assert run(config_file, "--memory=20MiB", "--config.training.batch_size=1") == 1
    assert "none was found that keeps the batch" in capsys.readouterr().out
    assert run(config_file, "--memory=20MiB", "--no-suggest") == 1
    assert "looking for" not in capsys.readouterr().out


def test_the_largest_batch(config_file, estimates, capsys):
    assert run(config_file, "--memory=1600MiB", "--largest-batch") == 0
    assert "that fits: --config.training.batch_size=6" in capsys.readouterr().out
    assert run(config_file, "--memory=1MiB", "--largest-batch", "--no-suggest") == 1
    assert "no batch fits" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{}, {"view_draws": 3}, {"selection": "overlap"}])
def test_batches_are_those_of_the_pipeline(changes):
    data = pipeline.DataSettings(
        num_scenes=4, num_frames=8, height=16, width=24, context_views=2, target_views=1, **changes
    )
    batches = pipeline.train_batches(
        pipeline.make_source(data, "train"), data, seed=0, batch_size=2
    )
    real = next(batches)
    batches.close()

    def shapes(tree, lead=()):
        return jax.tree.map(lambda x: ((*lead, *np.shape(x)), x.dtype), tree)

    assert shapes(plan.example_entry(data, None), lead=(2,)) == shapes(real)


def test_stage_2_needs_only_the_configuration_of_stage_1(config_file, estimates, capsys):
    latent = f"{config_file}:latent"
    assert run(latent, "--memory=2GiB", f"--autoencoder-config={config_file}") == 0
    assert "frozen autoencoder" in capsys.readouterr().out
    case = estimates[-1]
    (frozen,) = case.constants
    assert frozen.latent_shape == (4, 4, 2)
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(frozen.params))
    told = [f"--autoencoder-config={config_file}", "--config.model.representation_size=5"]
    assert run(latent, "--memory=2GiB", *told) == 2
    assert "give --config.latents=FOLDER" in capsys.readouterr().err
    flags = ["--config.latents=nowhere", "--config.data.view_draws=2"]
    assert run(latent, "--memory=2GiB", *told, *flags) == 0
    case = estimates[-1]
    assert case.entry["latents"]["mean"].shape == (2, 4, 4, 2)
    assert case.entry["representation"].shape == (5,)
    batch = jax.tree.map(lambda x: np.asarray(x)[None], case.entry)
    params = jax.eval_shape(case.task.init, jax.random.key(0))
    loss, _ = jax.eval_shape(case.task.loss, params, batch, jax.random.key(0), frozen)
    assert loss.shape == ()


def test_stage_2_of_a_run_of_stage_1(config_file, estimates, tmp_path):
    tiny_autoencoder.save(tmp_path / "vae", 3)
    flag = f"--config.autoencoder={tmp_path / 'vae'}"
    assert run(f"{config_file}:latent", "--memory=2GiB", flag) == 0
    found = jax.tree.map(lambda x: x.shape, estimates[-1].constants[0].params)
    assert found == jax.tree.map(lambda x: x.shape, tiny_autoencoder.make_params())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory=2GiB", "--config.training.batch_szie=4"], "did you mean 'batch_size'"),
        (["--memory=2GiB", "--config.trainin.batch_size=4"], 'mean "training"'),
        (["--memory=2GiB", "--config.model.remat=True"], "must be one of 'none', 'dots', 'full'"),
        (["--memory=2GiB", "--config.training.batch_size"], "batch_size=VALUE"),
        (["--memory=lots"], "--memory=lots must be a positive size with its unit"),
        (["--memory=80"], "such as 80GiB or 24GB"),
        ([], "--memory=80GiB"),
        (["--memory=2GiB", "--devices=h1000-8"], "did you mean h100-8"),
        (["--memory=2GiB", "--autoencoder-config=x.py"], "no effect on the task 'vae'"),
        (["--memory=2GiB", "--config.data.height=10"], "must be a multiple of"),
    ],
)
def test_what_makes_no_sense_is_status_2(config_file, estimates, capsys, arguments, message):
    assert run(config_file, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not estimates


def test_files_that_are_not_there(config_file, capsys):
    assert run("nowhere.py", "--memory=2GiB") == 2
    assert "nowhere.py" in capsys.readouterr().err
    assert run(f"{config_file}:papre", "--memory=2GiB") == 2
    assert "is not known" in capsys.readouterr().err
    (notes := config_file.with_name("notes.md")).write_text("Not a configuration.\n")
    assert run(notes, "--memory=2GiB") == 2
    assert "is no configuration in Python: invalid syntax (notes.md" in capsys.readouterr().err
    assert run(f"{config_file}:latent", "--memory=2GiB") == 2
    assert "--autoencoder-config=configs/vae.py:VARIANT" in capsys.readouterr().err


def test_sizes():
    assert plan.read_size("80GiB") == plan.read_size("80g") == 80 * 2**30
    assert plan.read_size("24 GB") == 24e9
    with pytest.raises(settings.SettingsError, match="positive"):
        plan.read_size("0GiB")


@pytest.mark.slow
def test_compiles_for_several_devices(config_file, tmp_path):
    """The whole command in a process of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lgs_jax", "plan", f"--config={config_file}"),
            *("--devices=4", "--memory=1GiB"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1.00 GiB (as given) on each of 4 devices" in done.stdout
    assert re.search(r"sent by each device .* a step\n    all-reduce over data ", done.stdout)
