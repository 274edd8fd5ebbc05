"""Frames out of videos: the right ones, and a list of what could not be had."""

import json
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from lgs_jax.cli import extract_frames
from lgs_jax.data import clips, pipeline
from lgs_jax.data.report import DataError

FPS = 10


def write_video(path, count=60, size=(48, 64)):
    """Frame n is grey of level 4 n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.repeat(np.arange(count, dtype=np.uint8) * 4, size[0] * size[1] * 3)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{size[1]}x{size[0]}", "-r", str(FPS), "-i", "-"]
    command += ["-c:v", "libx264", "-crf", "1", "-g", "25", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, input=frames.tobytes(), check=True)


def write_text(path, video, frames, jitter=0):
    """A clip of some frames of a video; timestamps in microseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"https://www.youtube.com/watch?v={video}"]
    for n in frames:
        pose = np.eye(4)[:3].copy()
        pose[0, 3] = 0.1 * n
        numbers = " ".join(map(str, [0.9, 1.2, 0.5, 0.5, 0, 0, *pose.ravel()]))
        lines.append(f"{round(n * 1e6 / FPS) + jitter} {numbers}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path):
    write_video(tmp_path / "videos" / "abc-1_X.mp4")
    write_text(tmp_path / "texts" / "train" / "a.txt", "abc-1_X", (3, 7, 8, 30), jitter=20_000)
    write_text(tmp_path / "texts" / "train" / "b.txt", "abc-1_X", (50, 55, 59, 64, 70))
    write_text(tmp_path / "texts" / "test" / "c.txt", "gone", (1, 2, 3))
    write_text(tmp_path / "texts" / "test" / "d.txt", "abc-1_X", range(26, 46))
    return tmp_path


def run(root, **options):
    said = []
    outcome = clips.extract(
        root / "texts", root / "videos", root / "out", say=said.append, **options
    )
    assert said[-1].startswith("4 of 4 clips")
    return outcome


def test_frames_are_those_of_their_timestamps(root):
    outcome = run(root)
    assert (outcome.clips, outcome.complete) == (4, 2)
    assert outcome.missing_videos == {"gone": ["test/c"]}
    assert outcome.shortened == {"train/b": [3, 5]}
    assert not outcome.failed
    for clip, frames, jitter in (("train/a", (3, 7, 8, 30), 20_000), ("train/b", (50, 55, 59), 0)):
        for n in frames:
            path = root / "out" / "frames" / clip / f"{n * 100_000 + jitter}.jpg"
            with Image.open(path) as image:
                assert abs(np.asarray(image).mean() - 4 * n) < 1.5, path
    assert len(list((root / "out" / "frames" / "test" / "d").iterdir())) == 20
    assert json.loads((root / "out" / clips.MANIFEST).read_text())["complete"] == 2
    assert "1 lack their video (1 videos)" in outcome.summary()
    assert "1 reach beyond their video" in outcome.summary()


def test_the_reader_takes_them(root):
    run(root)
    settings = pipeline.DataSettings(
        source="realestate10k",
        root=str(root / "out"),
        height=16,
        width=16,
        context_views=2,
        target_views=1,
        holdout=0.0,
    )
    source = pipeline.make_source(settings, "train")
    assert [example.key for example in source] == ["test/d", "train/a", "train/b"]
    assert [len(example) for example in source] == [20, 4, 3]
    assert len(source.report.bad_frames) == 2  # of the clip that reaches beyond its video


def test_the_same_call_keeps_what_is_there_and_finds_new_videos(root):
    run(root)
    kept = root / "out" / "frames" / "train" / "a"
    before = kept.stat().st_mtime_ns
    write_video(root / "videos" / "gone.mp4", count=5)
    outcome = run(root, num_workers=2)
    assert kept.stat().st_mtime_ns == before
    assert outcome.complete == 3
    assert not outcome.missing_videos
    assert not [path for path in (root / "out" / "frames").rglob(".*")]


def test_frames_are_reduced(root):
    run(root, short_side=24)
    path = next((root / "out" / "frames" / "train" / "a").iterdir())
    with Image.open(path) as image:
        assert image.size == (32, 24)


def test_broken_videos_are_reported(root):
    (root / "videos" / "gone.mp4").write_bytes(b"no video")
    outcome = run(root)
    assert list(outcome.failed) == ["test/c"]
    assert "gone.mp4 cannot be decoded" in outcome.failed["test/c"]
    assert not (root / "out" / "frames" / "test" / "c").exists()


def test_missing_folders(tmp_path):
    with pytest.raises(DataError, match=r"holds no <split>/<id>\.txt"):
        clips.extract(tmp_path, tmp_path, tmp_path)
    write_text(tmp_path / "train" / "a.txt", "x", (1, 2))
    with pytest.raises(DataError, match="there is no folder"):
        clips.extract(tmp_path, tmp_path / "videos", tmp_path / "out")


def test_the_command(root, capsys):
    command = [f"--{name}={root / name}" for name in ("texts", "videos")]
    assert extract_frames.main([*command, f"--output={root / 'out'}", "--workers=1"]) == 0
    text = capsys.readouterr().out
    assert "2 of 4 clips are complete" in text
    assert "videos.json" in text
    assert extract_frames.main([*command, f"--output={root / 'out'}", "--short-side=4"]) == 1
    assert "--short-side=4 must be at least 16" in capsys.readouterr().err


def test_frames_of_other_options_are_not_mixed(root):
    run(root, short_side=24)
    with pytest.raises(DataError, match=r"written with short_side=24, now it is None; give"):
        clips.extract(root / "texts", root / "videos", root / "out")
    assert run(root, short_side=24).complete == 2


def test_a_broken_address_is_reported(root):
    path = root / "texts" / "train" / "a.txt"
    path.write_text(path.read_text().replace("https://www", "https://[www", 1))
    outcome = run(root)
    assert list(outcome.failed) == ["train/a"]
    assert f"{path} begins with 'https://[www" in outcome.failed["train/a"]
    assert outcome.complete == 1
