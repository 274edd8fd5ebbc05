"""The workdir: writable, free, and of the same configuration."""

import json
import pathlib

import pytest
import toy

from lgs_jax.training import workdir

CONFIG = {
    "task": "vae",
    "data": {"height": 32, "root": "/a", "holdout": ("x", "y")},
    "training": {"num_steps": 10, "batch_size": 8},
    "optimizer": {"learning_rate": 1e-3},
    "loss": {},
}


def stored(config):
    """As it comes back from a checkpoint."""
    return json.loads(json.dumps(config))


def changed(**groups):
    return CONFIG | {name: CONFIG[name] | values for name, values in groups.items()}


def test_the_same_configuration_fits():
    assert workdir.check_config(stored(CONFIG), CONFIG, "runs/a") == []


def test_length_cadence_and_place_may_change():
    wanted = changed(training={"num_steps": 20, "log_every": 3}, data={"root": "/b"})
    assert workdir.check_config(stored(CONFIG), wanted, "runs/a") == [
        "data.root: '/a' -> '/b'",
        "training.log_every: '(absent)' -> 3",
        "training.num_steps: 10 -> 20",
    ]


def test_every_other_difference_is_listed_with_the_remedy():
    wanted = changed(
        data={"height": 64}, optimizer={"learning_rate": 1e-4, "b1": 0.5}, training={"num_steps": 1}
    )
    with pytest.raises(workdir.WorkdirError) as caught:
        workdir.check_config(stored(CONFIG), wanted, "runs/a")
    text = str(caught.value)
    assert "runs/a belongs to a run with another configuration" in text
    assert "data.height: 32 -> 64" in text
    assert "optimizer.learning_rate: 0.001 -> 0.0001" in text
    assert "optimizer.b1: '(absent)' -> 0.5" in text
    assert "Choose another --workdir" in text
    assert "training.num_steps" in text.split("Free to change")[1]
    assert "num_steps: 10" not in text


def test_a_flag_is_not_a_number():
    with pytest.raises(workdir.WorkdirError, match=r"data\.height: 1 -> True"):
        workdir.check_config({"data": {"height": 1}}, {"data": {"height": True}}, "w")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    task = toy.Toy()
    with pytest.raises(workdir.WorkdirError, match=r"file/run cannot be written \(Not a directory"):
        toy.train(tmp_path / "file" / "run", {"num_steps": 1}, task=task)
    assert task.traces == 0  # found before any time was spent


def test_two_runs_cannot_share_a_workdir(tmp_path):
    folder = workdir.prepare(tmp_path / "run")
    with (
        workdir.lock(folder),
        pytest.raises(workdir.WorkdirError, match="another run is training in"),
    ):
        toy.train(folder, {"num_steps": 1})
    workdir.lock(folder).close()  # free again


def test_resuming_with_another_configuration_touches_nothing(tmp_path):
    options = {"num_steps": 2, "log_every": 1, "tensorboard": False, "visualize": False}
    toy.train(tmp_path, options)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name != ".lock"}
    with pytest.raises(workdir.WorkdirError, match=r"training.seed: '\(absent\)' -> 1"):
        toy.train(tmp_path, options | {"seed": 1})
    with pytest.raises(workdir.WorkdirError, match="is at step 2, beyond num_steps=1"):
        toy.train(tmp_path, options | {"num_steps": 1})
    for path, time in before.items():
        if path != tmp_path:  # the probe for writing comes and goes in the workdir itself
            assert path.stat().st_mtime_ns == time
    longer = toy.train(tmp_path, options | {"num_steps": 3})
    assert longer["step"] == 3
    assert (
        "changed since the checkpoint: training.num_steps: 2 -> 3"
        in (tmp_path / "train.log").read_text()
    )


def test_default_is_named_by_the_configuration():
    assert workdir.default("configs/vae.py") == str(pathlib.Path("runs/vae"))
    assert workdir.default("a/b/vae.py:big") == str(pathlib.Path("runs/vae-big"))
