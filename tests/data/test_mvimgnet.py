"""MVImgNet folders, with the faults that the real one is known for."""

import pickle
import zipfile

import numpy as np
import pytest

from lgs_jax.data import archives
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import ScannedSource, ScanOptions, examine
from lgs_jax.data.sources.mvimgnet import MVImgNet


def write(formats, root, key, scene, index="0"):
    names = [f"{i:03d}.png" for i in range(len(scene.world_from_cam))]
    for i, name in enumerate(names):
        formats.save_image(root / key / "images" / name, scene.image(i))
    formats.write_colmap(
        root / key,
        scene.world_from_cam,
        scene.size,
        ("PINHOLE", tuple(scene.intrinsics)),
        names=names,
        index=index,
    )


@pytest.fixture
def scene(formats):
    return formats.make_dot_scene(num_frames=5)


@pytest.fixture
def root(formats, scene, tmp_path):
    for key in ("2/aaa", "10/bbb", "2/ccc"):
        write(formats, tmp_path, key, scene)
    (tmp_path / "classes.txt").write_text("2 chair\n7 mug\n10 toy car\n")
    return tmp_path


def test_scenes_classes_and_cameras(formats, scene, root):
    source = ScannedSource(MVImgNet(root), ScanOptions())
    assert [example.key for example in source] == ["2/aaa", "2/ccc", "10/bbb"]
    assert source.class_names == ("chair", "mug", "toy car")
    assert [example.class_label for example in source] == [0, 0, 2]
    assert source[2].class_name == "toy car"
    np.testing.assert_allclose(source[0].world_from_cam, scene.world_from_cam, atol=1e-12)
    found = formats.find_dots(source[0].images[3])
    np.testing.assert_allclose(found, scene.project(3), atol=0.05)


def test_folders_name_classes_without_a_list(root):
    (root / "classes.txt").unlink()
    source = ScannedSource(MVImgNet(root), ScanOptions())
    assert source.class_names == ("2", "10")
    assert source[2].class_label == 1


def test_commas_in_the_list_of_classes(root):
    (root / "classes.txt").write_text("2,chair\n10,toy car\n")
    assert MVImgNet(root).class_names == ("chair", "toy car")


def test_broken_list_of_classes(root):
    (root / "classes.txt").write_text("2 chair\n10\n")
    with pytest.raises(DataError, match=r"classes\.txt:2: found '10', expected '<number> <name>'"):
        MVImgNet(root)


def test_broken_instances_are_reported(formats, scene, root):
    (root / "2/empty/sparse").mkdir(parents=True)
    write(formats, root, "2/second", scene, index="1")
    write(formats, root, "2/hollow", scene)
    (root / "2/hollow/sparse/0/cameras.bin").unlink()
    write(formats, root, "10/images", scene)
    for path in (root / "10/images/images").iterdir():
        path.unlink()
    source = ScannedSource(MVImgNet(root), ScanOptions(min_frames=4))
    assert [example.key for example in source] == ["2/aaa", "2/ccc", "10/bbb"]
    reasons = {finding.scene: finding.reason for finding in source.report.bad_scenes}
    assert "2/empty/sparse/0 is missing (sparse holds nothing)" in reasons["2/empty"]
    assert "(sparse holds ['1']); the instance has no usable" in reasons["2/second"]
    assert "has no cameras.bin or cameras.txt" in reasons["2/hollow"]
    assert "0 usable frames of 5, needed 4" in reasons["10/images"]
    assert len(source.report.bad_frames) == 5


def test_wrong_roots(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*gone; expected <root>/<class>"):
        MVImgNet(tmp_path / "gone")
    with pytest.raises(DataError, match=r"holds no instance; expected <root>/<class>"):
        MVImgNet(tmp_path)


def test_rendered_objects(shared):
    reader = MVImgNet(shared / "data" / "objects")
    assert len(reader.class_names) == 28
    assert reader.class_names[11] == "chair"
    for key in reader.keys[::200]:
        found = examine(reader, key, ScanOptions(verify="full"))
        assert not found.findings
        assert len(found.example) == 12
        np.testing.assert_array_equal(found.example.intrinsics[:, 2:], 64)
        # Cameras on an arc look at the object: their axes nearly meet in one point.
        poses = found.example.world_from_cam
        axes = poses[:, :3, 2]
        planes = np.eye(3) - axes[:, :, None] * axes[:, None, :]
        centre = np.linalg.solve(planes.sum(0), np.einsum("fij,fj->i", planes, poses[:, :3, 3]))
        depth = np.einsum("fi,fi->f", axes, centre - poses[:, :3, 3])
        assert (depth > 0).all()


class TestArchives:
    """The same instances inside zip archives, as they are published."""

    @pytest.fixture(params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def zipped(self, request, root, tmp_path_factory):
        folder = tmp_path_factory.mktemp("zips")
        parts = {"mvi_00.zip": ("2/aaa",), "mvi_01.zip": ("2/ccc", "10/bbb")}
        for name, keys in parts.items():
            with zipfile.ZipFile(folder / name, "w", request.param) as archive:
                for path in sorted(path for key in keys for path in (root / key).rglob("*")):
                    inner = path.relative_to(root)
                    archive.write(path, f"mvi/{inner}" if name == "mvi_01.zip" else str(inner))
        (folder / "classes.txt").write_bytes((root / "classes.txt").read_bytes())
        return folder

    def test_scenes_are_those_of_the_folders(self, root, zipped):
        ours, theirs = (ScannedSource(MVImgNet(r), ScanOptions()) for r in (zipped, root))
        assert ours.class_names == theirs.class_names
        assert len(ours) == 3
        ours = pickle.loads(pickle.dumps(ours))
        for a, b in zip(ours, theirs, strict=True):
            assert (a.key, a.class_label, a.frame_names) == (b.key, b.class_label, b.frame_names)
            np.testing.assert_array_equal(a.world_from_cam, b.world_from_cam)
            for i in range(len(a)):
                np.testing.assert_array_equal(a.images[i], b.images[i])

    def test_one_archive_is_a_data_set(self, zipped):
        assert MVImgNet(zipped / "mvi_01.zip").keys == ["2/ccc", "10/bbb"]

    def test_missing_images_are_reported(self, zipped, root):
        with zipfile.ZipFile(zipped / "more.zip", "w") as archive:
            for name in ("cameras.bin", "images.bin"):
                path = root / "2/aaa/sparse/0" / name
                archive.write(path, f"2/ddd/sparse/0/{name}")
        source = ScannedSource(MVImgNet(zipped), ScanOptions())
        assert len(source) == 3
        assert len(source.report.bad_frames) == 5
        assert "2/ddd/images/000.png is missing" in source.report.bad_frames[0].reason

    def test_an_instance_in_two_places_is_refused(self, zipped, formats, scene):
        write(formats, zipped, "2/aaa", scene)
        with pytest.raises(DataError, match=r"is in .*2/aaa and in .*mvi_00.zip/2/aaa; remove"):
            MVImgNet(zipped)

    def test_an_instance_twice_in_one_archive_is_refused(self, zipped):
        with zipfile.ZipFile(zipped / "mvi_00.zip", "a") as archive:
            archive.writestr("val/2/aaa/images/000.png", b"")
        with pytest.raises(DataError, match=r"is in .*zip/2/aaa and in .*zip/val/2/aaa; remove"):
            MVImgNet(zipped)

    def test_notes_of_macos_are_no_instances(self, zipped):
        with zipfile.ZipFile(zipped / "mvi_00.zip", "a") as archive:
            for name in archive.namelist():
                if not name.endswith("/"):
                    archive.writestr(f"__MACOSX/{name}", b"notes")
        source = ScannedSource(MVImgNet(zipped), ScanOptions())
        assert len(source) == 3
        assert not source.report.findings

    def test_bombs_are_refused(self, zipped, root, monkeypatch):
        monkeypatch.setattr(archives, "MAX_BYTES", 100)
        report = examine(MVImgNet(zipped), "2/ccc", ScanOptions())
        assert report.example is None
        assert "bytes in memory, more than the 100" in str(report.findings[0])

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive"])
    def test_what_is_no_archive_is_refused(self, tmp_path, content):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.zip is no zip archive"):
            MVImgNet(tmp_path)
