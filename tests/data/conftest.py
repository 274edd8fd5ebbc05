"""Writers of the real data formats, for small scenes whose content is known exactly.

A scene is a set of coloured dots at known 3D points; every frame shows each dot where the camera
projects it, so that any error of a camera shows in the pixels.
"""

import dataclasses
import json
import pathlib
import struct
import sys
import tempfile
import typing
import zipfile

import numpy as np
import pytest
from PIL import Image

# Makes the writer of torch's files importable by the tests beside it.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


@dataclasses.dataclass(frozen=True)
class DotScene:
    """Cameras on a line that look at three dots: red, green and blue in this order.

    world_from_cam [F, 4, 4], intrinsics fx fy cx cy [4], size (height, width), points [3, 3].
    """

    world_from_cam: np.ndarray
    intrinsics: np.ndarray
    size: tuple[int, int]
    points: np.ndarray

    def project(self, frame: int) -> np.ndarray:
        """Pixels [3, 2] of the dots."""
        cam_from_world = np.linalg.inv(self.world_from_cam[frame])
        in_cam = self.points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
        assert (in_cam[:, 2] > 0).all()
        fx, fy, cx, cy = self.intrinsics
        return np.stack(
            [fx * in_cam[:, 0] / in_cam[:, 2] + cx, fy * in_cam[:, 1] / in_cam[:, 2] + cy], -1
        )

    def image(self, frame: int, pixels: np.ndarray | None = None) -> np.ndarray:
        """The frame as uint8 [H, W, 3]; dots stand at `pixels` [3, 2] if given."""
        return draw_dots(self.project(frame) if pixels is None else pixels, self.size)


def draw_dots(pixels: np.ndarray, size: tuple[int, int], sigma: float = 2.0) -> np.ndarray:
    """Gaussian blobs on black, one per colour channel, uint8 [H, W, 3]."""
    columns, rows = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    blobs = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)) for x, y in pixels]
    return np.rint(250 * np.stack(blobs, -1)).astype(np.uint8)


def find_dots(image: np.ndarray) -> np.ndarray:
    """Centres of mass of the colour channels [3, 2] in pixels."""
    weights = image.astype(np.float64)
    columns, rows = np.meshgrid(np.arange(image.shape[1]) + 0.5, np.arange(image.shape[0]) + 0.5)
    total = weights.sum(axis=(0, 1))
    return np.stack(
        [
            (weights * columns[..., None]).sum(axis=(0, 1)) / total,
            (weights * rows[..., None]).sum(axis=(0, 1)) / total,
        ],
        -1,
    )


def make_dot_scene(num_frames=8, size=(60, 80), seed=0) -> DotScene:
    rng = np.random.default_rng(seed)
    poses = []
    for i in range(num_frames):
        yaw, pitch = 0.075 - 0.025 * i, 0.02 * np.sin(i)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        nod = np.array(
            [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
        )
        pose = np.eye(4)
        pose[:3, :3] = turn @ nod
        pose[:3, 3] = [0.1 * i - 0.3, 0.03 * np.cos(i), -4.0 + 0.02 * i]
        poses.append(pose)
    points = np.array([[-0.4, -0.3, 0.0], [0.35, -0.1, 0.2], [0.0, 0.4, -0.2]])
    points = points + rng.uniform(-0.03, 0.03, (3, 3))
    height, width = size
    intrinsics = np.array([1.3 * height, 1.25 * height, 0.51 * width, 0.48 * height])
    return DotScene(np.stack(poses), intrinsics, size, points)


def save_image(path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def write_realestate10k(root, scene: DotScene, name: str, split: str = "train", suffix=".png"):
    """<root>/<split>/<name>.txt and its frames; returns the text file."""
    height, width = scene.size
    fractions = scene.intrinsics / [width, height, width, height]
    lines = [f"https://example.org/{name}"]
    for i, pose in enumerate(scene.world_from_cam):
        stamp = 1000000 + 33333 * i
        matrix = np.linalg.inv(pose)[:3].reshape(-1)
        numbers = " ".join(f"{value:.9f}" for value in matrix)
        lines.append(f"{stamp} " + " ".join(f"{v:.9f}" for v in fractions) + " 0.0 0.0 " + numbers)
        save_image(root / "frames" / split / name / f"{stamp}{suffix}", scene.image(i))
    path = root / split / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def quat_from_rotation(matrix: np.ndarray) -> np.ndarray:
    """wxyz, by the eigenvector formula of Bar-Itzhack (2000): no case distinctions."""
    m = matrix
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    _, vectors = np.linalg.eigh(k)
    x, y, z, w = vectors[:, -1]
    return np.array([w, x, y, z])


# COLMAP's number and name of the models under test.
COLMAP_MODELS = {
    "SIMPLE_PINHOLE": 0,
    "PINHOLE": 1,
    "SIMPLE_RADIAL": 2,
    "RADIAL": 3,
    "OPENCV": 4,
    "OPENCV_FISHEYE": 5,
}


def write_colmap(folder, poses, size, camera, *, names, binary=True, index="0"):
    """<folder>/sparse/<index>; `camera` is (model name, parameters)."""
    model, params = camera
    place = folder / "sparse" / index
    place.mkdir(parents=True, exist_ok=True)
    height, width = size
    quats, shifts = [], []
    for pose in poses:
        inverse = np.linalg.inv(pose)
        quats.append(quat_from_rotation(inverse[:3, :3]))
        shifts.append(inverse[:3, 3])
    if binary:
        data = struct.pack("<QIiQQ", 1, 7, COLMAP_MODELS[model], width, height)
        (place / "cameras.bin").write_bytes(data + struct.pack(f"<{len(params)}d", *params))
        data = struct.pack("<Q", len(names))
        for i, name in enumerate(names):
            data += struct.pack("<I7dI", i + 1, *quats[i], *shifts[i], 7) + name.encode() + b"\0"
            # Two observations, which a reader has to step over.
            data += struct.pack("<Qddqddq", 2, 1.0, 2.0, -1, 3.0, 4.0, 5)
        (place / "images.bin").write_bytes(data)
        return
    numbers = " ".join(repr(float(value)) for value in params)
    (place / "cameras.txt").write_text(f"# comment\n7 {model} {width} {height} {numbers}\n")
    lines = ["# comment", "# another"]
    for i, name in enumerate(names):
        values = " ".join(repr(float(v)) for v in (*quats[i], *shifts[i]))
        lines += [f"{i + 1} {values} 7 {name}", "" if i % 2 else "1.0 2.0 -1 3.0 4.0 5"]
    (place / "images.txt").write_text("\n".join(lines) + "\n")


def write_colmap_scene(folder, scene: DotScene, *, binary=True):
    """<folder>/{sparse/0, images} with the pinhole camera of the scene."""
    names = [f"{i}.png" for i in range(len(scene.world_from_cam))]
    camera = ("PINHOLE", scene.intrinsics.tolist())
    write_colmap(folder, scene.world_from_cam, scene.size, camera, names=names, binary=binary)
    for i, name in enumerate(names):
        save_image(folder / "images" / name, scene.image(i))


def write_mvimgnet_zip(folder, scene: DotScene, compression=zipfile.ZIP_STORED):
    """<folder>/part.zip with the instance 3/abc."""
    with tempfile.TemporaryDirectory() as scratch:
        write_colmap_scene(pathlib.Path(scratch), scene)
        with zipfile.ZipFile(folder / "part.zip", "w", compression) as archive:
            for path in sorted(pathlib.Path(scratch).rglob("*.*")):
                archive.write(path, f"3/abc/{path.relative_to(scratch)}")


def write_transforms(folder, scene: DotScene, *, top=None, per_frame=None, suffix=".png"):
    """<folder>/transforms.json with its images; OpenGL axes. Returns the file."""
    height, width = scene.size
    fx, fy, cx, cy = (float(value) for value in scene.intrinsics)
    content = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height, "frames": []}
    content |= top or {}
    content = {name: value for name, value in content.items() if value is not None}
    for i, pose in enumerate(scene.world_from_cam):
        name = f"images/{i:03d}{suffix}"
        save_image(folder / name, scene.image(i))
        matrix = pose @ np.diag([1.0, -1.0, -1.0, 1.0])
        frame = {"file_path": name, "transform_matrix": matrix.tolist()}
        content["frames"].append(frame | (per_frame(i) if per_frame else {}))
    path = folder / "transforms.json"
    path.write_text(json.dumps(content))
    return path


def write_llff(folder, scene: DotScene):
    """<folder>/poses_bounds.npy and images/; of the intrinsics only fx is stored."""
    rows = []
    for i, pose in enumerate(scene.world_from_cam):
        save_image(folder / "images" / f"{i:03d}.png", scene.image(i))
        right, down, forward = pose[:3, :3].T
        columns = [down, right, -forward, pose[:3, 3], [*scene.size, scene.intrinsics[0]]]
        rows.append([*np.stack(columns, axis=1).reshape(-1), 1.0, 10.0])
    np.save(folder / "poses_bounds.npy", np.array(rows))
    return folder


@pytest.fixture(scope="session")
def formats():
    """The writers above, as one namespace."""
    import types

    names = (
        "DotScene draw_dots find_dots make_dot_scene save_image write_realestate10k write_colmap "
        "write_colmap_scene write_mvimgnet_zip write_transforms write_llff"
    )
    return types.SimpleNamespace(**{name: globals()[name] for name in names.split()})


@pytest.fixture(scope="session")
def memory_store():
    """Lets s3:// be memory, as `etils.epath` and fsspec see it; both remember file systems."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Store(MemoryFileSystem):
        protocol = "s3"
        store: typing.ClassVar = {}
        pseudo_dirs: typing.ClassVar = [""]

        def __init__(self, **kwargs):
            kwargs.pop("finalize_on_close", None)
            super().__init__(**kwargs)

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).replace("s3://", "memory://", 1))

    fsspec.register_implementation("s3", Store, clobber=True)
    return Store


@pytest.fixture
def store(memory_store, monkeypatch, tmp_path):
    """An empty object store at s3://, and an empty cache."""
    from lgs_jax.data import archives, images, places

    memory_store.store.clear()
    memory_store.pseudo_dirs[:] = [""]
    monkeypatch.setenv(places.CACHE_VARIABLE, str(tmp_path / "cache"))
    for cached in (images._fetched, archives._open, archives._names):
        cached.cache_clear()  # files in a store are taken not to change
