"""Videos: H.264 in .mp4, or animated .gif and .webp. Letters: T frames."""

import pathlib
import subprocess

import imageio_ffmpeg
import numpy as np
from PIL import Image

from lgs_jax import files

_SUFFIXES = (".mp4", ".gif", ".webp")
# Frames per second that all formats can hold.
_MIN_FPS, _MAX_FPS = 0.01, 1000.0
# Smaller frames are hard to watch.
MIN_SIDE = 256
_WEBP_QUALITY = 90


def save_video(
    path: str | pathlib.Path,
    frames: np.ndarray,
    fps: float = 24,
    *,
    min_side: int = MIN_SIDE,
    lossless: bool = False,
) -> pathlib.Path:
    """Writes frames uint8 [T, H, W, 3] as a video and returns its path.

    The suffix decides: .mp4 is H.264 with 4:2:0 colours, which every browser and player shows (an
    odd side grows by one repeated row or column, since the codec asks for even sides); .gif has 256
    colours; .webp has quality 90, or with `lossless` exactly the frames, in several times the
    bytes. All loop where the format can say so. Frames whose shorter side is below `min_side`
    pixels are enlarged by a whole number without smoothing, so that small renders can be watched;
    `min_side=1` writes them as they are. The file appears only when complete.

    Raises:
      ValueError: if the frames or the suffix are none of these, `check_fps` refuses the rate, or
        another format than .webp should be lossless.
      OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    check_fps(fps)
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(
            f"{path}: a video needs uint8 frames [T, H, W, 3], got {frames.dtype} {frames.shape}"
        )
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"{path}: unknown suffix {suffix!r}; use one of {', '.join(_SUFFIXES)}")
    if lossless and suffix != ".webp":
        raise ValueError(f"{path}: only .webp videos can be lossless; leave out lossless")
    frames = enlarge(frames, -(-min_side // min(frames.shape[1:3])))
    with files.replacing(path) as partial:
        if suffix == ".mp4":
            _write_mp4(partial, frames, fps)
        else:
            first, *rest = (Image.fromarray(frame) for frame in frames)
            options = {"lossless": lossless, "quality": 100 if lossless else _WEBP_QUALITY}
            options = options if suffix == ".webp" else {}
            duration = round(1000 / fps)
            first.save(
                partial, save_all=True, append_images=rest, duration=duration, loop=0, **options
            )
    return path


def even_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size H, W of an .mp4 video of frames of a size H, W."""
    height, width = (side + side % 2 for side in size)
    return height, width


def check_fps(fps: float) -> None:
    """Refuses rates that not every format can hold.

    Raises:
      ValueError: if it is outside of 0.01 to 1,000 frames per second.
    """
    if not _MIN_FPS <= fps <= _MAX_FPS:
        raise ValueError(f"{fps=} must lie between {_MIN_FPS:g} and {_MAX_FPS:g} frames per second")


def enlarge(images: np.ndarray, factor: int) -> np.ndarray:
    """Repeats every pixel of [..., H, W, C] `factor` times in both directions."""
    if factor <= 1:
        return images
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def _write_mp4(path: pathlib.Path, frames: np.ndarray, fps: float) -> None:
    """Pipes the frames through FFmpeg's own program.

    imageio's writer would start it by fork with a Python function in the child, which can deadlock
    in a process that runs JAX's threads (JAX warns of it).
    """
    odd = [(0, 0), *((0, side % 2) for side in frames.shape[1:3]), (0, 0)]
    frames = np.pad(frames, odd, mode="edge")
    height, width = frames.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps)]
    command += ["-i", "-", "-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p"]
    command += ["-movflags", "+faststart", str(path)]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise OSError(f"{path}: FFmpeg failed with {done.returncode}: {message}")
