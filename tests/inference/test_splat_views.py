"""Views of splat files: right poses, the whole subject in sight, the same every time."""

import numpy as np
import pytest

from lgs_jax.cli import prepare_data
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data import pipeline
from lgs_jax.data.report import DataError
from lgs_jax.inference import splat_views
from lgs_jax.inference.export import formats, ply, splat

CENTER = np.array([3.0, -1.0, 7.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A red ball above a blue one (y down), and one stray Gaussian far away."""
    root = tmp_path_factory.mktemp("splats")
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(200, 3))
    ball *= 0.2 / np.linalg.norm(ball, axis=-1, keepdims=True)
    up = np.array([0.0, -0.5, 0.0])
    means = np.concatenate([ball + up, ball - up, [[400.0, 0.0, 0.0]]]) + CENTER
    colors = np.zeros((401, 3), np.float32)
    colors[:200, 0] = colors[200:400, 2] = 1.0
    scene = Gaussians(
        means=means.astype(np.float32),
        quats=np.tile(np.array([1.0, 0, 0, 0], np.float32), (401, 1)),
        scales=np.full((401, 3), 0.05, np.float32),
        opacities=np.full(401, 0.9, np.float32),
        colors=colors,
    )
    splat.save_splat(root / "balls.splat", scene)
    ply.save_ply(root / "balls.ply", scene)
    (root / "broken.splat").write_bytes(b"x" * 33)
    (root / "notes.txt").write_text("no splats")
    return root


def views(root, **options):
    return splat_views.SplatViews(root, **({"num_frames": 3, "size": 32, "draws": 2} | options))


def where(image, channel):
    """Centre of mass of a colour [2], as column and row."""
    weights = image[..., channel].astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def test_pictures_fit_their_poses(folder):
    source = views(folder)
    assert [source[i].key for i in range(4)] == [
        "balls.ply/0", "balls.ply/1", "balls.splat/0", "balls.splat/1",
    ]  # fmt: skip
    for index in range(4):
        example = source[index].check()
        example.images.prefetch(range(3))
        for i, image in enumerate(example.images):
            cam_from_world = np.linalg.inv(example.world_from_cam[i])
            for channel, offset in ((0, -0.5), (2, 0.5)):
                local = cam_from_world @ [*(CENTER + [0, offset, 0]), 1.0]
                fx, fy, cx, cy = example.intrinsics[i]
                expected = [fx * local[0] / local[2] + cx, fy * local[1] / local[2] + cy]
                np.testing.assert_allclose(where(image, channel), expected, atol=0.7)
            assert where(image, 0)[1] < where(image, 2)[1]  # the red ball is up
            edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
            assert edge.max() < 100  # nothing large is cut off


def test_scenes_depend_on_their_names_alone(folder):
    first, again = views(folder)[3], views(folder / "balls.splat", draws=5)[1]
    np.testing.assert_array_equal(first.world_from_cam, again.world_from_cam)
    np.testing.assert_array_equal(first.images[1], again.images[1])
    assert np.any(views(folder)[2].world_from_cam != first.world_from_cam)


def test_up_and_background(folder):
    image = views(folder, up="+y", background=1.0)[0].images[0]
    assert image[0, 0].tolist() == [255, 255, 255]
    red = np.argwhere(image[..., 2] < 100)
    blue = np.argwhere(image[..., 0] < 100)
    assert red[:, 0].mean() > blue[:, 0].mean()


def test_files_that_cannot_be_read_are_reported(folder, tmp_path):
    report = views(folder).report
    assert (report.scenes_found, report.scenes_kept) == (6, 4)
    assert [finding.scene for finding in report.findings] == ["broken.splat"]
    with pytest.raises(DataError, match="is or holds no splat file"):
        views(tmp_path)
    with pytest.raises(DataError, match="no splat file can be read"):
        views(folder / "broken.splat")
    with pytest.raises(DataError, match=r"broken\.splat.*on_bad='skip' would leave it out"):
        views(folder, on_bad="error")
    with pytest.raises(ValueError, match="up='y' must be one of"):
        views(folder, up="y")


def test_files_of_other_formats_show_the_same(folder, tmp_path):
    scene = formats.load(folder / "balls.ply")
    for suffix in (".spz", ".glb"):
        formats.save(tmp_path / f"balls{suffix}", scene)
        key = f"balls{suffix}/0"
        example = views(tmp_path / f"balls{suffix}", draws=1)[0]
        assert example.key == key
        expected = splat_views.arc(scene, key, 3, 32, np.array(splat_views.UPS["-y"]))
        np.testing.assert_allclose(example.world_from_cam, expected.world_from_cam, atol=0.01)
        assert example.images[0][..., 0].max() > 200


def test_the_command_packs_them(folder, tmp_path, capsys):
    command = ["--source=splats", f"--root={folder}", f"--output={tmp_path / 'out'}"]
    assert prepare_data.main([*command, "--num-frames=3", "--size=16", "--codec=png"]) == 0
    text = capsys.readouterr().out
    assert "2 of 3 scenes, 6 of 6 frames" in text
    assert "scene broken.splat: " in text
    data = pipeline.DataSettings(
        source="packed",
        root=str(tmp_path / "out"),
        height=16,
        width=16,
        context_views=2,
        target_views=1,
        holdout=0.0,
    )
    source = pipeline.make_source(data, "train")
    assert [finding.scene for finding in source.report.findings] == ["broken.splat"]
    np.testing.assert_array_equal(source[0].images[2], views(folder, size=16, draws=1)[0].images[2])
    assert prepare_data.main([*command, "--on-bad=error"]) == 1
    assert "broken.splat" in capsys.readouterr().err
    assert prepare_data.main([*command, "--workers=2"]) == 1
    assert "--workers has no effect on splats" in capsys.readouterr().err
