"""Photographs without poses: poses are found, kept, and what has none gets a reason."""

import dataclasses
import os
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial import transform

from lgs_jax.cli import prepare_data
from lgs_jax.data import detect, pipeline, places, scan, structure_from_motion
from lgs_jax.data.report import DataError
from lgs_jax.data.sources import photos

needs_pycolmap = pytest.mark.skipif(
    not structure_from_motion.available(), reason="pycolmap (extra `photos`) is not installed"
)

SIZE = (120, 160)
FOCAL = 150.0
# Walls of a corner: the axis that stands on each, and where it meets that axis.
WALLS = ((2, 4.0), (1, 1.0), (0, -1.5))


def make_poses(count):
    """world_from_cam [F, 4, 4] along an arc, all looking into the corner."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose, s in zip(poses, np.linspace(-1, 1, count), strict=True):
        pose[:3, 3] = [1.2 * s, 0.3 * s**2 - 0.4, 0.4 * s]
        turn = transform.Rotation.from_euler("yx", [-0.25 * s - 0.1, -0.1])
        pose[:3, :3] = turn.as_matrix()
    return poses


def render(pose):
    """The corner, papered with noise, as uint8 [H, W, 3]."""
    columns, rows = np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5)
    rays = np.stack([columns - SIZE[1] / 2, rows - SIZE[0] / 2, np.full(SIZE, FOCAL)], -1)
    rays = rays @ pose[:3, :3].T
    nearest, image = np.full(SIZE, np.inf), np.zeros(SIZE)
    for axis, place in WALLS:
        noise = np.random.default_rng(axis).uniform(0, 255, (64, 64))
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (place - pose[axis, 3]) / rays[..., axis]
        seen = (depth > 0) & (depth < nearest)
        points = np.delete(pose[:3, 3] + depth[seen, None] * rays[seen], axis, axis=1)
        image[seen] = ndimage.map_coordinates(noise, 12 * points.T, order=1, mode="grid-wrap")
        nearest[seen] = depth[seen]
    return np.repeat(np.rint(image).astype(np.uint8)[..., None], 3, axis=-1)


def write_video(path, pictures, fps):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{SIZE[1]}x{SIZE[0]}", "-r", str(fps), "-i", "-"]
    command += ["-c:v", "libx264", "-crf", "8", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, input=pictures.tobytes(), check=True)


def similarity_errors(found, truth):
    """Degrees [F], and distances [F] in units of the cameras' spread, after the best fit.

    The fit turns by the mean of the cameras' turns, as centres near a line would not decide.
    """
    u, _, v = np.linalg.svd(np.einsum("fij,fkj->ik", truth[:, :3, :3], found[:, :3, :3]))
    turn = u @ v
    rest = truth[:, :3, :3].transpose(0, 2, 1) @ (turn @ found[:, :3, :3])
    a, b = (poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0) for poses in (found, truth))
    a = a @ turn.T
    apart = np.linalg.norm((a * b).sum() / (a * a).sum() * a - b, axis=1)
    spread = np.linalg.norm(b, axis=1).mean()
    return np.rad2deg(transform.Rotation.from_matrix(rest).magnitude()), apart / spread


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder of computed poses, shared by the tests of this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.CACHE_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    """A folder of nine photographs: one is turned, one is no JPEG, the last is cut off."""
    folder = tmp_path_factory.mktemp("photos") / "my corner"
    folder.mkdir()
    for number, pose in enumerate(make_poses(9)):
        image = Image.fromarray(render(pose))
        if number == 2:  # stored lying on its side, as phones do
            exif = Image.Exif()
            exif[274] = 6
            image.transpose(Image.Transpose.ROTATE_90).save(
                folder / "view 2.jpg", quality=98, exif=exif
            )
        elif number == 4:
            image.save(folder / "view 4.webp", lossless=True)
        else:
            image.save(folder / f"view {number}.jpg", quality=98)
    last = folder / "view 8.jpg"
    last.write_bytes(last.read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def examined(cache, corner):
    said = []
    reader = photos.Photos(corner, say=said.append)
    result = scan.examine(reader, "my corner", scan.ScanOptions(min_frames=2))
    assert said == [
        "my corner: looking for points in 8 images",
        said[1],
        "my corner: 8 of 8 images have poses",
    ]
    assert said[1].startswith("my corner: 28 of 28 pairs of images compared")
    return result


@needs_pycolmap
def test_poses_are_the_true_ones_up_to_a_similarity(examined):
    degrees, apart = similarity_errors(examined.example.world_from_cam, make_poses(9)[:8])
    assert degrees.max() < 1.0
    assert apart.max() < 0.03
    np.testing.assert_allclose(examined.example.intrinsics[:, :2], FOCAL, rtol=0.05)


@needs_pycolmap
def test_images_are_upright_and_broken_ones_are_named(examined, corner):
    example = examined.example
    assert example.frame_names == tuple(f"view {n}.{'webp' if n == 4 else 'jpg'}" for n in range(8))
    for number, pose in enumerate(make_poses(9)[:8]):
        difference = np.abs(example.images[number].astype(float) - render(pose))
        assert difference.mean() < 12, number  # lens and JPEG
    assert [(f.frame, f.scene) for f in examined.findings] == [("view 8.jpg", "my corner")]
    assert f"{corner / 'view 8.jpg'} cannot be decoded" in examined.findings[0].reason


@needs_pycolmap
def test_poses_are_computed_once(examined, corner, monkeypatch):
    monkeypatch.setattr(structure_from_motion, "available", lambda: False)
    reader = photos.Photos(corner, say=pytest.fail)
    again = scan.examine(reader, "my corner", scan.ScanOptions(min_frames=2))
    np.testing.assert_array_equal(again.example.world_from_cam, examined.example.world_from_cam)
    assert again.findings == examined.findings
    stat = (corner / "view 0.jpg").stat()
    os.utime(corner / "view 0.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    try:
        with pytest.raises(DataError, match=r"pycolmap, which is not installed: pip install"):
            photos.Photos(corner)
    finally:
        os.utime(corner / "view 0.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns))


@needs_pycolmap
def test_the_same_images_give_the_same_poses(tmp_path):
    files = []
    for number, pose in enumerate(make_poses(4)):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(render(pose)).save(files[-1])
    models = []
    for name in "ab":
        (tmp_path / name).mkdir()
        assert structure_from_motion.compute_poses(files, tmp_path / name, say=str) == {}
        assert [path.name for path in (tmp_path / name).iterdir()] == ["sparse"]
        models.append((tmp_path / name / "sparse" / "0" / "images.bin").read_bytes())
    assert models[0] == models[1]


@needs_pycolmap
def test_packed_from_the_same_images(examined, corner, tmp_path):
    arguments = ["--source=photos", f"--root={corner}", f"--output={tmp_path / 'packed'}"]
    assert prepare_data.main([*arguments, "--workers=0"]) == 0
    settings = pipeline.DataSettings(
        source="packed",
        root=str(tmp_path / "packed"),
        context_views=2,
        target_views=1,
        holdout=0.0,
    )
    (example,) = pipeline.make_source(settings, "train")
    np.testing.assert_array_equal(example.world_from_cam, examined.example.world_from_cam)
    assert prepare_data.main([*arguments, "--exif=ignore"]) == 1


@needs_pycolmap
def test_a_video(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "LEAST_FRAMES", 8)
    truth = make_poses(40)
    pictures = np.stack([render(pose) for pose in truth])
    write_video(tmp_path / "walk.MP4", pictures, fps=20)
    assert detect.detect(tmp_path / "walk.MP4") == detect.Detected(
        "photos", str(tmp_path / "walk.MP4")
    )
    reader = photos.Photos(tmp_path, say=str)
    assert reader.keys == ["walk.MP4"]
    result = scan.examine(reader, "walk.MP4", scan.ScanOptions())
    assert not result.findings
    assert len(result.example) in (8, 9)
    # The number of the frame that looks most alike.
    numbers = np.array(
        [
            np.abs(pictures - image.astype(np.float32)).mean(axis=(1, 2, 3)).argmin()
            for image in result.example.images
        ]
    )
    assert set(np.diff(numbers)) <= {4, 5, 6}
    degrees, apart = similarity_errors(result.example.world_from_cam, truth[numbers])
    assert degrees.max() < 1.5
    assert apart.max() < 0.05


@needs_pycolmap
def test_images_with_nothing_in_common(cache, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.uniform(0, 255, (30, 40)).repeat(4, 0).repeat(4, 1)
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / f"{number}.png")
    message = r"0 of 3 images have points in common with another.*\(to try again, delete "
    for say in (str, pytest.fail):  # the failure is kept too
        with pytest.raises(DataError, match=message):
            photos.Photos(tmp_path, say=say).read(tmp_path.name)


@needs_pycolmap
def test_too_few_images(cache, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"from 0 images; give at least 3.*a\.jpg cannot be dec"):
        photos.Photos(tmp_path, say=str).read(tmp_path.name)


@needs_pycolmap
def test_a_video_that_is_none(cache, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"a\.mp4 cannot be decoded"):
        photos.Photos(tmp_path / "a.mp4", say=str).read("a.mp4")


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_what_is_a_scene(tmp_path):
    touch(tmp_path / "house" / "2.jpg", tmp_path / "house" / "10.jpg", tmp_path / "walk.mov")
    touch(tmp_path / "yard" / "images" / "a.PNG", tmp_path / "yard" / "notes.txt")
    touch(tmp_path / ".hidden" / "a.jpg", tmp_path / "texts" / "a.txt")
    found = photos.find_scenes(tmp_path)
    assert list(found) == ["house", "walk.mov", "yard"]
    assert [file.name for file in photos.find_images(found["house"])] == ["2.jpg", "10.jpg"]
    assert [file.name for file in photos.find_images(found["yard"])] == ["a.PNG"]
    assert list(photos.find_scenes(tmp_path / "yard")) == ["yard"]


@pytest.mark.parametrize(
    ("names", "root", "message"),
    [
        (["a.txt"], "", "holds no photographs; expected a video, a folder of images"),
        (["a.txt"], "a.txt", "holds no photographs"),
        (["a.jpg", "b.mp4"], "", r"holds images and videos \(b\.mp4\) side by side"),
        ([], "nothing", "there is no "),
    ],
)
def test_roots_without_photographs(tmp_path, names, root, message):
    touch(*(tmp_path / name for name in names))
    with pytest.raises(DataError, match=message):
        photos.Photos(tmp_path / root)


def test_object_stores_are_refused():
    with pytest.raises(DataError, match="photos are read from disks only; copy them"):
        photos.Photos("gs://bucket/photos")


def test_settings_without_effect_are_refused(tmp_path):
    settings = pipeline.DataSettings(source="photos", root=str(tmp_path))
    with pytest.raises(ValueError, match="have no effect on photos"):
        dataclasses.replace(settings, exif="ignore")


@pytest.mark.parametrize(("count", "video"), [(100, False), (30, True)])
def test_few_images_are_all_compared(count, video):
    assert len(structure_from_motion.image_pairs(count, video)) == count * (count - 1) // 2


@pytest.mark.parametrize(("count", "video"), [(400, False), (100, True)])
def test_of_many_images_near_ones_are_compared(count, video):
    pairs = structure_from_motion.image_pairs(count, video)
    assert len(set(pairs)) == len(pairs) < count * (count - 1) // 2
    assert all(i < j < count for i, j in pairs)
    assert {(i, i + d) for d in (1, 10, 16, 64) for i in range(count - d)} <= set(pairs)
    assert any(j - i > 0.9 * count for i, j in pairs)
