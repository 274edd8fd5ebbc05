"""A model in one file samples what the run would, and holds nothing else."""

import json
import pathlib

import jax
import numpy as np
import pytest
import safetensors
import tiny_autoencoder as tiny

import lgs_jax
from lgs_jax import __main__ as commands
from lgs_jax import settings, tasks
from lgs_jax.cli import plan, unpack_model
from lgs_jax.data import pipeline
from lgs_jax.inference import model_file, scene_model
from lgs_jax.training import checkpoint, optimizer, state

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODEL = tiny.DENOISER


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a diffusion run, its autoencoder beside it."""
    folder = tmp_path_factory.mktemp("runs")
    tiny.save(folder / "vae", 3)
    config = {
        "task": "diffusion",
        "seed": 0,
        "autoencoder": str(folder / "vae"),
        "data": tiny.CONFIG["data"],
        "model": MODEL,
        "training": {"num_steps": 5},
        "latent_stats": tiny.STATS.to_json(),
    }
    task = tasks.make_task("diffusion", config, tiny.make())
    params = tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))
    saved = state.create(params, optimizer.make(optimizer.OptimizerSettings()))
    with checkpoint.Checkpoints(folder / "diffusion" / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(5, saved, config, {"seconds": 0.0})
        checkpoints.wait()
    return folder / "diffusion"


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "tiny.safetensors"
    status = commands.main(["pack-model", f"--model={run}", f"--output={path}", "--paths=1"])
    assert status == 0
    return path


def test_a_file_is_not_replaced_unless_told(file, capsys):
    before = file.read_bytes()
    arguments = ["pack-model", "--model=/nowhere", f"--output={file}"]
    assert commands.main(arguments) == 1
    assert f"{file} exists; choose another name, or --overwrite" in capsys.readouterr().err
    assert commands.main([*arguments, "--overwrite"]) == 1
    assert "no checkpoint in /nowhere" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_samples_are_those_of_the_run(run, file):
    packed, whole = lgs_jax.load(file), lgs_jax.load(run)
    assert packed.paths.batch_shape == (1, tiny.VIEWS)
    cameras = packed.paths[0]
    ours, theirs = (model.sample(jax.random.key(1), cameras, steps=2) for model in (packed, whole))
    # Parameters are rounded to 11 bits.
    for name in ("means", "scales", "opacities", "colors"):
        a, b = np.asarray(getattr(ours, name)), np.asarray(getattr(theirs, name))
        assert np.abs(a - b).mean() < 5e-3 * np.abs(b).mean(), name


def test_the_file_names_no_folder_and_holds_no_more_than_it_needs(run, file):
    with safetensors.safe_open(file, "np") as opened:
        about = json.loads(opened.metadata()["lgs_jax"])
        kinds = {name.split("/")[0] for name in opened.keys()}  # noqa: SIM118
    assert kinds == {"autoencoder", "denoiser", "paths"}
    assert str(run.parent) not in json.dumps(about)
    assert set(about["denoiser"]) == {"task", "data", "model", "latent_stats"}
    assert about["class_names"] == []


def test_the_data_of_a_file_name_nothing_on_the_machine():
    names = ("root", "drop_frames", "view_index")
    places = {name: f"/home/anna/{name}" for name in names}
    data = {"source": "colmap", **places, "mix": [{"weight": 2.0, **places}, {"root": ""}]}
    kept = model_file._kept({"data": data})["data"]
    assert "anna" not in json.dumps(kept)
    assert kept["source"] == "colmap"
    assert kept["mix"][0]["weight"] == 2.0
    assert kept["mix"][1] == {"root": ""}
    assert kept["root"] == kept["mix"][0]["root"] == "(give --data-root)"


def test_an_unpacked_model_is_the_packed_one(run, file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    output = tmp_path / "runs" / "tiny"
    arguments = ["unpack-model", f"--model={file}", f"--output={output}"]
    assert commands.main(arguments) == 0
    assert capsys.readouterr().out == (
        f"autoencoder: {output / 'vae'}\ndenoiser:    {output / 'diffusion'}\n"
        f"sample with python -m lgs_jax sample --model={output / 'diffusion'}\n"
    )
    unpacked, packed = lgs_jax.load(output / "diffusion"), lgs_jax.load(file)
    ours, theirs = (
        np.asarray(model.sample(jax.random.key(1), packed.paths[0], steps=2).means)
        for model in (unpacked, packed)
    )
    np.testing.assert_array_equal(ours, theirs)
    steps = [checkpoint.locate(output / name)[1] for name in ("vae", "diffusion")]
    assert steps == [checkpoint.locate(where)[1] for where in (run.parent / "vae", run)]
    again = model_file.save("~/again.safetensors", output / "diffusion", data_root="", num_paths=1)
    assert again == tmp_path / "again.safetensors"
    assert again.read_bytes() == file.read_bytes()
    assert commands.main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert sorted(path.name for path in output.parent.iterdir()) == ["tiny"]


def test_an_interrupted_unpacking_leaves_nothing(file, tmp_path, monkeypatch):
    def stopped(folder, *_):
        (folder / "half").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_params", stopped)
    with pytest.raises(KeyboardInterrupt):
        model_file.unpack(file, tmp_path / "runs")
    assert not list(tmp_path.iterdir())


def test_no_training_continues_in_an_unpacked_workdir(file, tmp_path):
    vae, _ = model_file.unpack(file, tmp_path / "runs")
    _, step = checkpoint.locate(vae)
    wanted = state.create(tiny.make().params, optimizer.make(optimizer.OptimizerSettings()))
    with (
        checkpoint.Checkpoints(vae / "checkpoints", keep=1) as checkpoints,
        pytest.raises(checkpoint.CheckpointError, match=r"parameters alone.*init_from"),
    ):
        checkpoints.restore(step, wanted)


def test_sampler_settings_of_a_file_are_the_default(run, tmp_path):
    chosen = {"steps": 3, "guidance": 2.0}
    path = model_file.save(tmp_path / "a.safetensors", run, num_paths=1, sampler=chosen)
    model = lgs_jax.load(path)
    assert (model.task.sampler.steps, model.task.sampler.guidance) == (3, 2.0)
    default, asked, other = (
        np.asarray(model.sample(jax.random.key(0), model.paths[0], **arguments).means)
        for arguments in ({}, {"steps": 3, "guidance_scale": 2.0}, {"steps": 2})
    )
    np.testing.assert_array_equal(default, asked)
    assert np.abs(default - other).max() > 1e-4
    known = model_file.save(
        tmp_path / "c.safetensors", run, num_paths=1, sampler=chosen | {"guidance_known": 1.0}
    )
    assert lgs_jax.load(known).task.sampler.scales == (2.0, 1.0)
    assert model.task.sampler.scales == (2.0, 2.0)
    with pytest.raises(settings.SettingsError, match="stepz"):
        model_file.save(tmp_path / "b.safetensors", run, sampler={"stepz": 3})


def write_autoencoder(folder, change, config=tiny.CONFIG):
    """A workdir of the tiny autoencoder with parts of its parameters changed."""
    params = {
        part: jax.tree.map(lambda x, part=part: x + change.get(part, 0.0), leaves)
        for part, leaves in tiny.make_params().items()
    }
    checkpoint.write_params(folder / "checkpoints", 7, config, params)
    return folder


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_command_of_the_help_takes_a_folder_of_data(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    config, *overrides = unpack_model.__doc__.partition("lgs_jax.main --config=")[2].split()
    values = plan.read_config(config, overrides)
    data = settings.build(pipeline.DataSettings, values["data"], "config.data")
    assert data.source != "procedural"


def test_a_decoder_that_went_on_learning_takes_the_place_of_the_first(run, file, tmp_path, capsys):
    other = write_autoencoder(tmp_path / "other", {"decoder": 0.25})
    path = tmp_path / "better.safetensors"
    arguments = ["pack-model", f"--model={run}", f"--output={path}", "--paths=1"]
    assert commands.main([*arguments, f"--decoder={other}"]) == 0, capsys.readouterr().err
    first, better = (model_file.load(each) for each in (file, path))
    for ours, theirs in ((better.params, first.params), (better.frozen.mean, first.frozen.mean)):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    jax.tree.map(
        np.testing.assert_array_equal,
        better.frozen.params["encoder"],
        first.frozen.params["encoder"],
    )
    jax.tree.map(
        lambda new, old: np.testing.assert_allclose(new - old, 0.25, atol=2e-3),
        better.frozen.params["decoder"],
        first.frozen.params["decoder"],
    )


def test_a_decoder_of_other_latents_is_refused(run, tmp_path):
    path = tmp_path / "a.safetensors"
    other = write_autoencoder(tmp_path / "encoder", {"encoder": 0.01})
    with pytest.raises(settings.SettingsError, match=r"encoder of .* is not that of"):
        model_file.save(path, run, decoder=other, num_paths=1)
    deeper = tiny.CONFIG | {"model": tiny.CONFIG["model"] | {"num_heads": 2}}
    other = write_autoencoder(tmp_path / "network", {}, deeper)
    with pytest.raises(settings.SettingsError, match="has other settings"):
        model_file.save(path, run, decoder=other, num_paths=1)
    assert not path.exists()


def test_sampling_from_a_file_needs_no_data(file, tmp_path, capsys):
    arguments = [f"--model={file}", f"--output={tmp_path / 'out'}", "--steps=1", "--num-samples=1"]
    assert commands.main(["sample", *arguments]) == 0, capsys.readouterr().err
    assert (tmp_path / "out" / "sample_0.ply").exists()
    assert commands.main(["sample", *arguments, "--overwrite", "--scene=7"]) == 1
    assert "--scene=7: the paths are 0 to 0" in capsys.readouterr().err
    # What is made from a seed can be shown anywhere.
    assert commands.main(["sample", *arguments, "--overwrite", "--split=train", "--known=0"]) == 0
    assert "PSNR at the given views" in capsys.readouterr().out
    assert commands.main(["sample", *arguments, "--overwrite", "--autoencoder=x"]) == 1
    assert "holds its own autoencoder" in capsys.readouterr().err


def test_what_cannot_be_packed_is_refused(run, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        model_file.save(tmp_path / "a.bin", run)
    vae = run.parent / "vae"
    output = f"--output={tmp_path / 'a.safetensors'}"
    assert commands.main(["pack-model", f"--model={vae}", output]) == 1
    assert "is a run of the task 'vae'" in capsys.readouterr().err
    tiny.save(tmp_path / "other", 4)
    assert (
        commands.main(
            ["pack-model", f"--model={run}", output, f"--autoencoder={tmp_path / 'other'}"]
        )
        == 1
    )
    assert "is not the one that the diffusion model was trained on" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"big/x has values that dtype='float16' cannot hold"):
        model_file._flat("big", {"x": np.float32([1e6])}, "float16")


def test_damaged_files_are_named(file, tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="there is no file"):
        scene_model.load(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(checkpoint.CheckpointError, match=r"broken\.safetensors cannot be read"):
        scene_model.load(broken)
    with safetensors.safe_open(file, "np") as opened:
        about = opened.metadata()
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    other = tmp_path / "other.safetensors"
    first = next(name for name in arrays if name.startswith("denoiser/"))
    safetensors.numpy.save_file({k: v for k, v in arrays.items() if k != first}, other, about)
    with pytest.raises(checkpoint.CheckpointError, match="1 parameters of the denoiser are not"):
        scene_model.load(other)
    safetensors.numpy.save_file(
        arrays, other, {"lgs_jax": '{"format": 1, "denoiser": {"latent_stats": 3}}'}
    )
    with pytest.raises(checkpoint.CheckpointError, match="does not fit together"):
        scene_model.load(other)
    safetensors.numpy.save_file(arrays, other, {"lgs_jax": '{"format": 9}'})
    with pytest.raises(checkpoint.CheckpointError, match="of another version than 1"):
        scene_model.load(other)


def test_settings_of_a_file_are_checked(file):
    parts = model_file.load(file)
    assert parts.data == settings.build(type(parts.data), tiny.CONFIG["data"], "data")
