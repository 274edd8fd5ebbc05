"""Folders that look like scenes but have lost their cameras are reported, and no other folders."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from etils import epath

from lgs_jax.data import opening, packed, pipeline, prepare
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import ScannedSource, ScanOptions
from lgs_jax.data.sources.folders import is_companion

BLACK = np.zeros((60, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def scene(formats):
    return formats.make_dot_scene(num_frames=4)


def move_images_up(folder):
    """As in captures that keep their images beside transforms.json."""
    path = folder / "transforms.json"
    for image in (folder / "images").iterdir():
        image.rename(folder / image.name)
    (folder / "images").rmdir()
    path.write_text(path.read_text().replace("images/", ""))


def write_flat(root, formats, scene):
    move_images_up(formats.write_transforms(root / "one", scene).parent)


def write_blender(root, formats, scene):
    path = formats.write_transforms(root / "one", scene)
    path.with_name("images").rename(path.with_name("train"))
    text = path.read_text().replace("images/", "train/")
    path.rename(path.with_name("transforms_train.json")).write_text(text)


def write_frames(root, formats, scene):
    formats.write_realestate10k(root, scene, "one")


def write_frames_below_the_text(root, formats, scene):
    formats.write_realestate10k(root, scene, "one").rename(root / "one.txt")
    (root / "frames/train/one").rename(root / "one")
    shutil.rmtree(root / "frames")


# Source, writer of the scene "one", key of the scene "two" once its cameras are gone, its folder,
# and what tells it apart.
LAYOUTS = {
    "colmap": (
        "colmap", lambda r, f, s: f.write_colmap_scene(r / "one", s), "two", "two",
        r"/two holds no reconstruction, expected .*; restore it or remove the folder",
    ),
    "transforms": (
        "transforms", lambda r, f, s: f.write_transforms(r / "one", s), "two", "two",
        r"two/transforms\.json is missing; restore it or remove the folder",
    ),
    "transforms beside its images": (
        "transforms", write_flat, "two", "two", r"two/transforms\.json is missing"
    ),
    "transforms of Blender": (
        "transforms", write_blender, "two", "two", r"two/transforms\.json is missing"
    ),
    "llff": (
        "llff", lambda r, f, s: f.write_llff(r / "one", s), "two", "two",
        r"two/poses_bounds\.npy is missing; restore it or remove the folder",
    ),
    "realestate10k": (
        "realestate10k", write_frames, "train/two", "frames/train/two",
        r"its text file .*train/two\.txt is missing, while its frames are in .*download the file",
    ),
    "realestate10k in one folder": (
        "realestate10k", write_frames_below_the_text, "two", "two", r"its text file .*/two\.txt is"
    ),
    "mvimgnet": (
        "mvimgnet", lambda r, f, s: f.write_colmap_scene(r / "3/one", s), "3/two", "3/two",
        r"3/two/sparse/0 has no cameras\.bin",
    ),
}  # fmt: skip
CAMERAS = ("transforms.json", "transforms_train.json", "poses_bounds.npy")


@pytest.fixture(params=LAYOUTS)
def layout(request, formats, scene, tmp_path):
    """A root with the scene "one", and with "two", whose cameras are gone."""
    source, write, key, folder, reason = LAYOUTS[request.param]
    write(tmp_path, formats, scene)
    one, two = tmp_path / folder.replace("two", "one"), tmp_path / folder
    shutil.copytree(one, two)
    for path in [*(two / name for name in CAMERAS), *two.glob("sparse/0/*")]:
        path.unlink(missing_ok=True)
    return source, tmp_path, key, reason


def test_scenes_without_cameras_are_left_out_with_a_reason(layout):
    source, root, key, reason = layout
    reader = opening.make_reader(source, str(root))
    found = ScannedSource(reader, ScanOptions())
    assert (len(found), found.report.scenes_found) == (1, 2)
    (finding,) = found.report.bad_scenes
    assert finding.scene == key
    with pytest.raises(DataError, match=reason):
        raise DataError(finding.reason)
    with pytest.raises(DataError, match=rf"scene {key}: .*{reason}"):
        ScannedSource(reader, ScanOptions(on_bad="error"))


def test_other_folders_are_no_scenes(layout, formats):
    """Masks, caches, notes, and images where this layout has none."""
    source, root, _, _ = layout
    before = list(opening.make_reader(source, str(root)).keys)
    for folder in (
        "masks",
        ".cache/images",
        "notes",
        "depth_maps/images",
        "frames/masks",
        "3/.tmp",
    ):
        formats.save_image(root / folder / "0.png", BLACK)
    if source != "realestate10k":
        (root / "logs/train").mkdir(parents=True)
    (root / "notes" / "0.png").unlink()
    (root / "README.md").write_text("what this is")
    assert opening.make_reader(source, str(root)).keys == before


def test_bare_images_are_no_scene_where_scenes_keep_theirs_elsewhere(formats, scene, tmp_path):
    path = formats.write_transforms(tmp_path / "one", scene)
    path.with_name("images").rename(tmp_path / "pictures")
    path.write_text(path.read_text().replace("images/", "../pictures/"))
    assert opening.make_reader("transforms", str(tmp_path)).keys == ["one"]


@pytest.mark.parametrize("name", ["colmap", "transforms", "llff"])
def test_a_root_that_is_a_capture_is_one_scene(formats, scene, tmp_path, name):
    source, write, *_ = LAYOUTS[name]
    write(tmp_path, formats, scene)
    formats.save_image(tmp_path / "one/raw/images/0.png", BLACK)
    assert opening.make_reader(source, str(tmp_path / "one")).keys == ["one"]


def test_links_to_folders_of_one_name_are_several_scenes(formats, scene, tmp_path):
    (tmp_path / "root").mkdir()
    for name in ("a", "b"):
        formats.write_transforms(tmp_path / name / "nerf", scene)
        (tmp_path / "root" / name).symlink_to(tmp_path / name / "nerf")
    assert opening.make_reader("transforms", str(tmp_path / "root")).keys == ["a", "b"]


def test_frames_that_serve_several_roots_are_not_missed(formats, scene, tmp_path):
    for name in ("one", "other"):
        text = formats.write_realestate10k(tmp_path, scene, name)
        (tmp_path / "frames/train" / name).rename(tmp_path / "frames" / name)
    text.unlink()
    assert opening.make_reader("realestate10k", str(tmp_path / "train")).keys == ["one"]
    keys = opening.make_reader("realestate10k", str(tmp_path)).keys
    assert keys == ["other", "train/one"]


def test_empty_instances_are_missed(formats, scene, tmp_path):
    formats.write_colmap_scene(tmp_path / "3/one", scene)
    (tmp_path / "3/empty").mkdir()
    (tmp_path / "4/empty").mkdir(parents=True)
    (tmp_path / "cache/tmp").mkdir(parents=True)
    assert opening.make_reader("mvimgnet", str(tmp_path)).keys == ["3/empty", "3/one"]
    (tmp_path / "classes.txt").write_text("3 chair\n4 mug\n")
    reader = opening.make_reader("mvimgnet", str(tmp_path))
    assert reader.keys == ["3/empty", "3/one", "4/empty"]
    for finding in ScannedSource(reader, ScanOptions()).report.bad_scenes:
        assert f"{finding.scene}/sparse/0 is missing (sparse holds nothing)" in finding.reason


def test_empty_instances_in_archives_are_missed(formats, scene, tmp_path):
    formats.write_mvimgnet_zip(tmp_path, scene)
    with zipfile.ZipFile(tmp_path / "part.zip", "a") as archive:
        archive.mkdir("3/empty")
        archive.mkdir("3/hollow/images")
        archive.mkdir("__MACOSX/3/note")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.mkdir("3/abc")  # which is in the other one
    reader = opening.make_reader("mvimgnet", str(tmp_path))
    assert reader.keys == ["3/abc", "3/empty", "3/hollow"]
    assert len(ScannedSource(reader, ScanOptions())) == 1


def test_stores_are_looked_into_as_disks_are(layout, store):
    source, root, key, _ = layout
    bucket = epath.Path("s3://bucket/data")
    for path in root.rglob("*"):
        if path.is_file():
            (bucket / str(path.relative_to(root))).write_bytes(path.read_bytes())
    ours, theirs = (
        opening.make_reader(source, place).keys for place in ("s3://bucket/data", str(root))
    )
    assert ours == theirs
    assert key in ours


def test_preparation_names_them_and_goes_on_once_they_are_repaired(formats, scene, tmp_path):
    """The scene that was lost keeps its place among the others."""
    root = tmp_path / "in"
    for name in ("one", "three", "two"):
        formats.write_transforms(root / name, scene)
    (root / "three/transforms.json").rename(tmp_path / "kept.json")

    def prepared(**options):
        chosen = prepare.Options(**options)
        reader = opening.make_reader("transforms", str(root))
        return prepare.prepare(
            tmp_path / "out", prepare.FromReader(reader, chosen), chosen,
            num_workers=0, retry=True, say=lambda _: None,
        )  # fmt: skip

    with pytest.raises(DataError, match=r"scene three: .* \(--on-bad=skip would leave it out\)"):
        prepared(on_bad="error")
    assert [finding.scene for finding in prepared().findings] == ["three"]
    settings = pipeline.DataSettings(
        source="packed", root=str(tmp_path / "out"), context_views=2, target_views=1, holdout=0.0
    )
    source = pipeline.make_source(settings, "train")
    assert [finding.scene for finding in source.report.findings] == ["three"]
    (tmp_path / "kept.json").rename(root / "three/transforms.json")
    report = prepared()
    assert (report.scenes_kept, report.findings) == (3, [])
    manifest = json.loads((tmp_path / "out" / packed.MANIFEST).read_text())
    assert manifest["totals"]["bad_scenes"] == 0


def test_names_of_companions():
    names = (
        ".git",
        "masks",
        "Mask_2",
        "depth",
        "normals",
        "outputs",
        "images_4",
        "cache",
        "render",
    )
    assert all(map(is_companion, names))
    assert not any(map(is_companion, ("one", "imagesque", "cached", "_a", "-b", "train")))
