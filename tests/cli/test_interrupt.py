"""Ctrl-C while a command writes: status 130, no traceback, and whole files or none.

Every command is run to its end once, while the moments are counted at which it begins a file or
puts one in its place; then once more for each of them, and stopped there with half a file written.
What is computed between is kept from the first run.
"""

import builtins
import contextlib
import functools
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny
from PIL import Image

from lgs_jax import __main__ as commands
from lgs_jax import tasks
from lgs_jax.cli import benchmark_sampling
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data.checks import scene as scene_check
from lgs_jax.data.sources.procedural import ProceduralSource
from lgs_jax.inference import sample_files, scene_model, scene_video
from lgs_jax.inference.export import ply
from lgs_jax.training import checkpoint, optimizer, state

DENOISER = {
    "latent_channels": 2,
    "compression": 4,
    "embedding_size": 8,
    "widths": (8,),
    "blocks_per_level": 1,
    "middle_blocks": 0,
    "attention_levels": (),
    "num_heads": 1,
}
RUN = {
    "task": "diffusion",
    "seed": 0,
    "data": tiny.CONFIG["data"],
    "model": DENOISER,
    "training": {"num_steps": 5},
    "latent_stats": tiny.STATS.to_json(),
}
OLD, HALF = b"what was there before", b"half of a fi"


class Moments:
    """Counts the writes to a folder, and raises KeyboardInterrupt at one of them.

    Files that Python opens are stopped at with half of them written; those that other programs and
    libraries write (videos, arrays), when they are complete and about to be put in their place.
    """

    def __init__(self, folder, stop_at=None):
        self.folder, self.stop_at, self.count = folder, stop_at, 0
        self._open, self._replace = builtins.open, os.replace

    @contextlib.contextmanager
    def watched(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builtins, "open", self.open)
            patch.setattr(io, "open", self.open)
            patch.setattr(os, "replace", self.replace)
            yield self

    def open(self, file, mode="r", *arguments, **options):
        if set(mode) & set("wxa+") and self._is_inside(file) and self._is_now():
            with self._open(file, "wb") as half:
                half.write(HALF)
            raise KeyboardInterrupt
        return self._open(file, mode, *arguments, **options)

    def replace(self, source, target):
        if self._is_inside(target) and self._is_now():
            raise KeyboardInterrupt
        return self._replace(source, target)

    def _is_inside(self, file):
        return not isinstance(file, int) and self.folder in pathlib.Path(file).parents

    def _is_now(self):
        self.count += 1
        return self.count == self.stop_at


def run(arguments, folder, stop_at=None):
    """The exit status, and how many moments there were."""
    with Moments(folder, stop_at).watched() as moments:
        return commands.main(arguments), moments.count


def contents(folder):
    """Bytes by name of everything in a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Once:
    """A function that is called once, whatever its arguments."""

    def __init__(self, function):
        self._function, self._results = function, []

    def __call__(self, *arguments, **options):
        if not self._results:
            self._results.append(self._function(*arguments, **options))
        return self._results[0]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A file of splats, a capture with a repeated frame, and runs of both stages."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    scene = Gaussians(
        means=jnp.asarray(rng.normal(size=(20, 3)), jnp.float32),
        quats=jnp.asarray(rng.normal(size=(20, 4)), jnp.float32),
        scales=jnp.full((20, 3), 0.2),
        opacities=jnp.full(20, 0.8),
        colors=jnp.asarray(rng.uniform(size=(20, 3)), jnp.float32),
    )
    ply.save_ply(folder / "a.ply", scene)
    write_capture(folder / "capture")
    tiny.save(folder / "vae", tiny.STATS.step)
    task = tasks.make_task("diffusion", RUN, tiny.make())
    params = tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))
    saved = state.create(params, optimizer.make(optimizer.OptimizerSettings()))
    config = RUN | {"autoencoder": str(folder / "vae")}
    with checkpoint.Checkpoints(folder / "diffusion" / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(5, saved, config, {"seconds": 0.0})
        checkpoints.wait()
    return folder


def write_capture(folder):
    """Frames of a made-up scene as a transforms.json; the last one twice."""
    made = ProceduralSource(num_scenes=1, num_frames=4, height=48, width=64)[0]
    folder.mkdir()
    fx, fy, cx, cy = made.intrinsics[0].tolist()
    frames = []
    for number, i in enumerate((0, 1, 2, 3, 3)):
        Image.fromarray(made.images[i]).save(folder / f"{number}.png")
        matrix = made.world_from_cam[i] @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"{number}.png", "transform_matrix": matrix.tolist()})
    text = json.dumps({"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "frames": frames})
    (folder / "transforms.json").write_text(text)


def export(name, inputs, output, monkeypatch):
    return ["export", f"{inputs}/a.ply", f"{output}/{name}", "--overwrite"]


def render(name, inputs, output, monkeypatch):
    monkeypatch.setattr(scene_video, "draw", Once(scene_video.draw))
    size = [] if name.endswith(".png") else ["--frames=2"]
    return ["render", f"{inputs}/a.ply", f"{output}/{name}", "--height=16", "--overwrite", *size]


def view(inputs, output, monkeypatch):
    return ["view", f"{inputs}/a.ply", f"--html={output}/page.html", "--overwrite"]


def check_data(inputs, output, monkeypatch):
    monkeypatch.setattr(scene_check, "check", Once(scene_check.check))
    return ["check-data", f"{inputs}/capture", f"--output={output}", "--no-fit", "--overwrite"]


def pack_model(inputs, output, monkeypatch):
    target = f"--output={output}/m.safetensors"
    return ["pack-model", f"--model={inputs}/diffusion", target, "--paths=1", "--overwrite"]


def sample(inputs, output, monkeypatch):
    make = Once(sample_files.make)

    def made(*arguments, **options):
        visuals, pictures = make(*arguments, **options, video_frames=2)
        return dict(visuals), pictures  # the command changes them

    monkeypatch.setattr(scene_model, "load", Once(scene_model.load))
    monkeypatch.setattr(sample_files, "make", made)
    options = ["--num-samples=1", "--steps=2", "--known=0", "--upscale=1", "--overwrite"]
    return ["sample", f"--model={inputs}/diffusion", f"--output={output}", *options]


def benchmark(inputs, output, monkeypatch):
    for name in ("make_contenders", "measure_stages", "measure_whole"):
        result = ((), (), ["header"]) if name == "make_contenders" else []
        monkeypatch.setattr(benchmark_sampling, name, lambda *_, result=result: result)
    for name in ("_stage_table", "_whole_table"):
        monkeypatch.setattr(benchmark_sampling, name, lambda _: "")
    return ["benchmark", "sampling", f"--json={output}/times.json"]


def prepare_data(inputs, output, monkeypatch):
    fixed = ["--source=procedural", "--num-scenes=2", "--num-frames=3", "--size=8", "--workers=0"]
    return ["prepare-data", f"--output={output}", "--scenes-per-shard=1", *fixed]


def encode(inputs, output, monkeypatch):
    fixed = [f"--autoencoder={inputs}/vae", "--draws=1", "--batch-size=2", "--data", "num_scenes=2"]
    return ["encode-latents", f"--output={output}", *fixed]


WRITERS = {
    "export .ply": functools.partial(export, "b.ply"),
    "export .spz": functools.partial(export, "b.spz"),
    "export .splat": functools.partial(export, "b.splat"),
    "export .glb": functools.partial(export, "b.glb"),
    "render .png": functools.partial(render, "b.png"),
    "render .webp": functools.partial(render, "b.webp"),
    "render .mp4": functools.partial(render, "b.mp4"),
    "view --html": view,
    "check-data": check_data,
    "pack-model": pack_model,
    "sample": sample,
    "benchmark": benchmark,
}
CONTINUED = {"prepare-data": prepare_data, "encode-latents": encode}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LGS_JAX_CACHE", "off")
    return tmp_path / "out"


def started_afresh(folder, files):
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("name", WRITERS)
def test_files_are_whole_or_as_before(name, inputs, folder, monkeypatch, capsys):
    arguments = WRITERS[name](inputs, folder, monkeypatch)
    status, moments = run(arguments, folder)
    assert status in (0, 1), capsys.readouterr().err  # 1: check-data has found the fault
    whole = contents(folder)
    assert whole
    assert moments
    for before in ({}, dict.fromkeys(whole, OLD)):
        for moment in range(1, moments + 1):
            started_afresh(folder, before)
            capsys.readouterr()
            assert run(arguments, folder, moment) == (130, moment)
            assert capsys.readouterr().err.endswith("stopped\n")
            left = contents(folder)
            assert left.keys() <= whole.keys(), f"left over at moment {moment}"
            for path, data in left.items():
                assert data in (whole[path], before.get(path)), f"{path} at moment {moment}"
            assert before.keys() <= left.keys()


@pytest.mark.parametrize("name", CONTINUED)
def test_what_was_stopped_is_continued(name, inputs, folder, monkeypatch, capsys):
    arguments = CONTINUED[name](inputs, folder, monkeypatch)
    status, moments = run(arguments, folder)
    assert status == 0, capsys.readouterr().err
    whole = contents(folder)
    for moment in range(1, moments + 1):
        started_afresh(folder, {})
        assert run(arguments, folder, moment) == (130, moment)
        left = contents(folder)
        assert left.keys() <= whole.keys(), f"left over at moment {moment}"
        assert not any(HALF in data for data in left.values())
        assert run(arguments, folder)[0] == 0, capsys.readouterr().err
        assert contents(folder) == whole


@pytest.mark.parametrize("begun", ["manifest.json", "*.array_record"])
def test_workers_stop_quietly_with_the_command(begun, tmp_path):
    """A terminal sends Ctrl-C to the whole group of processes."""
    output = tmp_path / "out"
    command = [sys.executable, "-m", "lgs_jax", "prepare-data", "--source=procedural"]
    command += ["--num-scenes=1000", "--scenes-per-shard=2", "--workers=2", f"--output={output}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while process.poll() is None and not list(output.glob(begun)):
            time.sleep(0.05)
        time.sleep(0.3)  # workers import, or work
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130, errors
    assert errors == "stopped\n"
    assert not list(output.glob("*.part"))
    assert len(list(output.glob("*.array_record"))) < 100  # it has not gone on to the end


@pytest.mark.parametrize("program", [["lgs_jax.main"], ["lgs_jax", "train"]])
def test_a_training_is_stopped_quietly_while_it_is_imported(program, tmp_path):
    """In place of JAX a module is imported during which Ctrl-C is pressed."""
    text = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    (tmp_path / "jax.py").write_text(text)
    stopped = subprocess.run(
        [sys.executable, "-m", *program, "--config=configs/vae.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert stopped.returncode == -signal.SIGINT
    assert not stopped.stderr
