"""Videos, read back with FFmpeg and Pillow."""

import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from lgs_jax.inference import video


def frames(count: int, height: int, width: int) -> np.ndarray:
    """Smooth colours that change over time, which a lossy codec keeps well."""
    t, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in (count, height, width)), indexing="ij")
    return np.rint(np.stack([x, y, (t + x) / 2], axis=-1) * 255).astype(np.uint8)


def read_mp4(path) -> tuple[np.ndarray, str]:
    """The frames [T, H, W, 3] and FFmpeg's description of the video stream."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24"]
    done = subprocess.run([*command, "-"], capture_output=True, check=True)
    stream = re.search(r"Video: .*", done.stderr.decode()).group()
    width, height = map(int, re.search(r", (\d+)x(\d+)", stream).groups())
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), stream


@pytest.mark.parametrize("size", [(64, 96), (33, 35)])
def test_mp4_holds_the_frames(tmp_path, size):
    given = frames(5, *size)
    path = video.save_video(tmp_path / "new" / "video.mp4", given, fps=10, min_side=1)
    read, stream = read_mp4(path)
    height, width = size
    assert read.shape == (5, height + height % 2, width + width % 2, 3)
    errors = np.abs(read[:, :height, :width].astype(int) - given)
    # 4:2:0 halves the resolution of colours, so single pixels may be far off; the mean may not.
    assert errors.mean() < 5
    assert stream.startswith("Video: h264")
    assert "yuv420p" in stream
    assert "10 fps" in stream


def test_small_frames_are_enlarged_by_a_whole_number(tmp_path):
    path = video.save_video(tmp_path / "video.webp", frames(3, 40, 64))
    with Image.open(path) as read:
        assert read.size == (64 * 7, 40 * 7)  # 7 x 40 is the first multiple from 256 on


@pytest.mark.parametrize("lossless", [False, True])
def test_webp_keeps_every_frame(tmp_path, lossless):
    given = frames(4, 48, 64)
    path = tmp_path / "video.webp"
    video.save_video(path, given, fps=20, min_side=1, lossless=lossless)
    read = []
    with Image.open(path) as file:
        for i in range(file.n_frames):
            file.seek(i)
            read.append(np.asarray(file.convert("RGB")))
            assert file.info["duration"] == 50
    errors = np.abs(np.asarray(read).astype(int) - given)
    # Quality 90 with halved colours, as of mp4.
    assert errors.max() == 0 if lossless else 0 < errors.mean() < 3


def test_webp_is_small_unless_it_should_be_lossless(tmp_path):
    rng = np.random.default_rng(0)
    noisy = np.clip(frames(4, 64, 64) + rng.normal(0, 8, (4, 64, 64, 3)), 0, 255).astype(np.uint8)
    sizes = [
        video.save_video(tmp_path / f"{lossless}.webp", noisy, min_side=1, lossless=lossless)
        .stat()
        .st_size
        for lossless in (False, True)
    ]
    assert 2 * sizes[0] < sizes[1]
    with pytest.raises(ValueError, match=r"only \.webp videos can be lossless"):
        video.save_video(tmp_path / "video.gif", noisy, lossless=True)


def test_gif_has_the_frames_in_order(tmp_path):
    given = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 128, 255)])
    path = video.save_video(tmp_path / "video.gif", given, min_side=1)
    with Image.open(path) as file:
        assert file.n_frames == 3
        for i in range(3):
            file.seek(i)
            assert np.abs(np.asarray(file.convert("RGB")).astype(int) - given[i]).max() <= 4


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)],
)
def test_wrong_frames_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"uint8 frames \[T, H, W, 3\], got"):
        video.save_video(tmp_path / "video.mp4", wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [np.nan, np.inf, 0.0, 1e-9, 1e9])
def test_wrong_rates_are_refused(tmp_path, fps):
    with pytest.raises(ValueError, match=r"fps=.* must lie between 0\.01 and 1000 frames"):
        video.save_video(tmp_path / "video.gif", frames(2, 8, 8), fps)


@pytest.mark.parametrize("fps", [0.01, 1000.0])
@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp"])
def test_the_slowest_and_fastest_rate_can_be_written(tmp_path, suffix, fps):
    assert video.save_video(tmp_path / f"video.{suffix}", frames(2, 8, 8), fps).stat().st_size


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown suffix '.avi'; use one of .mp4"):
        video.save_video(tmp_path / "video.avi", frames(2, 8, 8))
