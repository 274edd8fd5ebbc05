"""Captured splats as posed photographs: rendered along made-up arcs, for `prepare-data`.

Each file gives some scenes, each an arc of cameras around what is in it. They are as sharp as the
capture, and their poses are exact.

Letters: F frames, N Gaussians.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data.example import Example
from lgs_jax.data.report import DataError, Finding, Report
from lgs_jax.data.split import hash_fraction
from lgs_jax.inference.export import formats, usd
from lgs_jax.rendering.api import render

# Without USD: a damaged file can bring OpenUSD down, and with it the whole preparation.
LOADERS = {
    suffix: entry.load for suffix, entry in formats.FORMATS.items() if suffix not in usd.SUFFIXES
}
UPS = {
    f"{sign}{axis}": tuple(float(f"{sign}1") * (axis == name) for name in "xyz")
    for sign in ("+", "-")
    for axis in "xyz"
}

_FOV_DEG = 50.0
_ARC_DEG = (60.0, 160.0)
_ELEVATION_DEG = (0.0, 35.0)
_DISTANCE = (1.05, 1.5)  # in distances at which the subject just fills the picture
_BODY = 0.98  # share of the opacity that counts as the subject
_JITTER = 0.03
_SUPERSAMPLE = 2


class SplatViews:
    """Scenes rendered from splat files; satisfies `data.example.Source`.

    Scene k of a file depends on the file's name, k and the numbers below alone.

    Args:
      root: a folder of files of the formats in `LOADERS`, or one file.
      num_frames: F, of each scene.
      size: height and width of the pictures.
      draws: scenes of each file.
      up: where up is in the files, such as "-y"; a name in `UPS`.
      background: colour behind the splats, 0 to 1.
      on_bad: "skip" leaves out and reports files that cannot be read, "error" raises at the first.

    Raises:
      DataError: if there is no such file, none can be read, or at the first that cannot where
        `on_bad` is "error".
    """

    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        root: str | Path,
        *,
        num_frames: int,
        size: int,
        draws: int = 1,
        up: str = "-y",
        background: float = 0.0,
        on_bad: str = "skip",
    ):
        if up not in UPS:
            raise ValueError(f"{up=} must be one of {', '.join(UPS)}")
        if num_frames < 1 or size < 1 or draws < 1:
            raise ValueError(f"{num_frames=}, {size=} and {draws=} must be at least 1")
        root = Path(root).expanduser()
        files = [root] if root.is_file() else sorted(root.glob("*")) if root.is_dir() else []
        files = [file for file in files if file.suffix.lower() in LOADERS]
        if not files:
            raise DataError(f"{root} is or holds no splat file; expected {', '.join(LOADERS)}")
        self.report = Report(f"splats at {root}", len(files) * draws)
        self._num_frames, self._size, self._draws = num_frames, size, draws
        self._up, self._background = np.array(UPS[up]), background
        self._files = []
        for file in files:
            try:
                load(file)
                self._files.append(file)
            except ValueError as error:
                if on_bad == "error":
                    raise DataError(f"{error} (on_bad='skip' would leave it out)") from error
                self.report.findings.append(Finding(file.name, str(error)))
        if not self._files:
            raise DataError(f"no splat file can be read.\n{self.report.summary()}")
        self.report.scenes_kept = len(self)
        self.report.frames_found = self.report.frames_kept = len(self) * num_frames

    def __len__(self) -> int:
        return len(self._files) * self._draws

    def __getitem__(self, index: int) -> Example:
        file = self._files[index // self._draws]
        key = f"{file.name}/{index % self._draws}"
        cameras = arc(load(file), key, self._num_frames, self._size, self._up)
        frames = self._num_frames
        return Example(
            key=key,
            images=_Pictures(file, cameras, self._size, self._background),
            world_from_cam=np.asarray(cameras.world_from_cam, np.float64),
            intrinsics=np.asarray(cameras.intrinsics, np.float64),
            sizes=np.full((frames, 2), self._size),
            timestamps=np.arange(frames, dtype=np.float64),
            frame_names=tuple(f"{frame:03d}" for frame in range(frames)),
        )


@functools.lru_cache(maxsize=2)
def load(file: Path) -> Gaussians:
    """The scene of a file.

    Raises:
      ValueError: naming the file and what is wrong with it.
    """
    return LOADERS[file.suffix.lower()](file)


class _Pictures(Sequence):
    """The F pictures of a scene, rendered on access; uint8 [H, H, 3]."""

    def __init__(self, file: Path, cameras: Cameras, size: int, background: float):
        self._file, self._cameras = file, cameras
        self._size, self._background = size, background
        self._made: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._cameras)

    def prefetch(self, frames: Iterable[int]) -> None:
        """Renders those of the frames that have not been rendered yet."""
        scene = load(self._file)
        for frame in sorted({int(frame) for frame in frames} - self._made.keys()):
            pixels = _draw(scene, self._cameras[frame], self._background, size=self._size)
            self._made[frame] = np.asarray(pixels)

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        self.prefetch([index % len(self)])
        return self._made[index % len(self)]


@functools.partial(jax.jit, static_argnames="size")
def _draw(scene: Gaussians, camera: Cameras, background: float, *, size: int) -> jax.Array:
    """One picture uint8 [size, size, 3], averaged from one of twice the size."""
    n = _SUPERSAMPLE
    large = camera_lib.resize(camera, scale_x=n, scale_y=n)
    rgb = render(
        scene, large, height=n * size, width=n * size, background=background, depth_mode=None
    ).rgb
    mean = rgb.reshape(size, n, size, n, 3).mean(axis=(1, 3))
    return jnp.round(255 * jnp.clip(mean, 0, 1)).astype(jnp.uint8)


def arc(scene: Gaussians, key: str, num_frames: int, size: int, up: np.ndarray) -> Cameras:
    """Cameras [F] on an arc around the subject, looking nearly at its middle.

    Args:
      scene: what they look at.
      key: any text; another one gives another arc.
      num_frames: F.
      size: height and width of their pictures.
      up: unit vector along an axis, such as those in `UPS` [3].
    """
    rng = np.random.default_rng(int(hash_fraction(key) * 2**53))
    center, radius = _subject(scene)
    distance = rng.uniform(*_DISTANCE) * radius / np.sin(np.deg2rad(_FOV_DEG / 2))
    sweep = np.deg2rad(rng.uniform(*_ARC_DEG))
    angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, sweep, num_frames)
    rises = np.deg2rad(np.linspace(*rng.uniform(*_ELEVATION_DEG, size=2), num_frames))
    side = np.array(np.roll(up, 1))  # across `up`, as axes are
    ahead = np.cross(up, side)
    around = np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * ahead
    offsets = np.cos(rises)[:, None] * around + np.sin(rises)[:, None] * up
    target = center + _JITTER * radius * rng.normal(size=3)
    poses = camera_lib.look_at(
        *(jnp.asarray(x, jnp.float32) for x in (center + distance * offsets, target, up))
    )
    focal = 0.5 * size / np.tan(np.deg2rad(_FOV_DEG / 2))
    intrinsics = np.tile([focal, focal, size / 2, size / 2], (num_frames, 1))
    return Cameras(poses, jnp.asarray(intrinsics, jnp.float32))


def _subject(scene: Gaussians) -> tuple[np.ndarray, float]:
    """Middle and radius of the ball that holds most of the opacity."""
    means = np.asarray(scene.means, np.float64)
    weights = np.asarray(scene.opacities, np.float64)
    order = np.argsort(means, axis=0)
    halves = np.cumsum(weights[order], axis=0) >= 0.5 * weights.sum()
    center = means[order[np.argmax(halves, axis=0), range(3)], range(3)]
    extents = 2 * np.asarray(scene.scales, np.float64).max(axis=-1)
    distances = np.linalg.norm(means - center, axis=-1) + extents
    outwards = np.argsort(distances)
    inside = np.cumsum(weights[outwards]) <= _BODY * weights.sum()
    return center, max(float(distances[outwards][inside].max(initial=0.0)), 1e-6)
