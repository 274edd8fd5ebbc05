"""A workdir in an object store: with a folder in its place, and with Google's client if it is here.

The latter wants a server that speaks the language of Google Cloud Storage:

    pip install gcsfs gcp-storage-emulator
    gcp-storage-emulator start --port=9023 --in-memory --default-bucket=bucket
    STORAGE_EMULATOR_HOST=http://localhost:9023 TENSORSTORE_GCS_HTTP_URL=http://localhost:9023 \\
      FSSPEC_GS_TOKEN=anon GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false GOOGLE_CLOUD_PROJECT=any \\
      python -m pytest tests/training/test_mirror.py
"""

import contextlib
import os
import pathlib

import pytest
import toy
from etils import epath

from lgs_jax.training import checkpoint, mirror, preemption, workdir

OPTIONS = {
    "num_steps": 8,
    "log_every": 1,
    "eval_every": 3,
    "save_every": 4,
    "tensorboard": False,
    "optimizer": {"learning_rate": 0.03},
}


def test_copies_what_has_changed_and_nothing_else(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "visuals" / "step_1").mkdir(parents=True)
    (here / "metrics.jsonl").write_text("1\n")
    (here / "visuals" / "step_1" / "view.png").write_bytes(b"picture")
    copies = mirror.Mirror(here, there)
    copies.push()
    assert (there / "visuals" / "step_1" / "view.png").read_bytes() == b"picture"
    (there / "visuals" / "step_1" / "view.png").unlink()
    (here / "metrics.jsonl").write_text("1\n2\n")
    copies.push()
    assert (there / "metrics.jsonl").read_text() == "1\n2\n"
    assert not (there / "visuals" / "step_1" / "view.png").exists()  # not copied a second time


def test_fetches_what_is_there(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / "train.log").write_text("before\n")
    mirror.Mirror(here, there).pull(("metrics.jsonl", "train.log"))
    assert [path.name for path in here.iterdir()] == ["train.log"]


def test_a_folder_on_this_machine_needs_no_copies(tmp_path):
    with contextlib.ExitStack() as stack:
        files, publish = mirror.open_files(tmp_path, stack, primary=True)
        publish()
    assert files == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder that the trainer takes for one in an object store."""
    folder = tmp_path / "store"
    monkeypatch.setattr(workdir, "in_store", lambda path: str(path).startswith(str(folder)))
    return folder / "run"


def stop_at(step, folder):
    """Asks a run to stop once it has logged a step."""

    class Stop(preemption.StopSignal):
        @property
        def requested(self):
            text = next(folder.glob("lgs_jax_*/metrics.jsonl")).read_text()
            return f'"step": {step}' in text

    return Stop()


def test_a_run_in_a_store_equals_one_on_a_disk(store, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(mirror.tempfile, "tempdir", str(temporary))
    with pytest.raises(preemption.Preempted):
        toy.train(store, OPTIONS, stop=stop_at(5, temporary))
    assert list(temporary.iterdir()) == []
    assert (store / "metrics.jsonl").read_text().count("\n") == 7  # 6 steps, one evaluation
    toy.train(store, OPTIONS)
    plain = tmp_path / "plain"
    toy.train(plain, OPTIONS)
    assert (store / "metrics.jsonl").read_text() == (plain / "metrics.jsonl").read_text()
    names = [
        {p.relative_to(w) for p in w.rglob("*.*") if "checkpoints" not in p.parts}
        for w in (store, plain)
    ]
    assert names[1] - names[0] == {pathlib.Path(".lock")}  # an object store has no locks
    toy.assert_same_state(store, plain, OPTIONS)
    assert "continues from step 6" in (store / "train.log").read_text()


def test_what_is_written_before_a_save_is_there_after_a_kill(store, monkeypatch):
    """The process dies right after its first save: the lines up to it are in the store."""

    class Killed(BaseException):
        pass

    def save_and_die(self, *arguments):
        original(self, *arguments)
        self.wait()
        monkeypatch.setattr(mirror.Mirror, "push", lambda self: None)
        raise Killed

    original = checkpoint.Checkpoints.save
    monkeypatch.setattr(checkpoint.Checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        toy.train(store, OPTIONS)
    assert checkpoint.steps_in(store / "checkpoints") == [4]
    assert (store / "metrics.jsonl").read_text().count('"kind": "train"') == 4


def test_addresses():
    assert workdir.as_path("gs://bucket/runs/a") == epath.Path("gs://bucket/runs/a")
    assert workdir.in_store(workdir.as_path("gs://bucket/runs/a") / "checkpoints")
    assert workdir.as_path("a") == pathlib.Path.cwd() / "a"
    assert not workdir.in_store(workdir.as_path("a"))
    with pytest.raises(workdir.WorkdirError, match=r"s3://b/a is neither a folder nor in Google"):
        workdir.as_path("s3://b/a")


@pytest.mark.skipif(
    "STORAGE_EMULATOR_HOST" not in os.environ, reason="no server; see the top of this file"
)
def test_google_cloud_storage(tmp_path):
    pytest.importorskip("gcsfs")
    place = f"gs://bucket/runs/{tmp_path.name}-{os.getpid()}"
    stop = preemption.StopSignal()
    stop.reason = "SIGTERM"
    with pytest.raises(preemption.Preempted, match="saved in gs://bucket"):
        toy.train(place, OPTIONS, stop=stop)
    toy.train(place, OPTIONS)
    toy.train(tmp_path, OPTIONS)
    text = (epath.Path(place) / "metrics.jsonl").read_text()
    assert text == (tmp_path / "metrics.jsonl").read_text()
    toy.assert_same_state(place, tmp_path, OPTIONS)
