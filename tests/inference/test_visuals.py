"""What a task shows ends in files of the right kind."""

import numpy as np
import pytest
from PIL import Image

from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference import visuals
from lgs_jax.inference.export import ply

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
VIDEO = np.zeros((3, 16, 16, 3), np.uint8)
SCENE = Gaussians(
    np.zeros((4, 3)), np.ones((4, 4)), np.ones((4, 3)), np.ones(4) / 2, np.ones((4, 3))
)


def test_each_value_gets_its_format(tmp_path):
    given = {"grid": PICTURE, "eval/orbit": VIDEO, "eval/scene": SCENE}
    paths = visuals.write_visuals(tmp_path / "out", given)
    assert [str(p.relative_to(tmp_path / "out")) for p in paths] == [
        "grid.png",
        "eval/orbit.mp4",
        "eval/scene.ply",
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[0])), PICTURE)
    assert paths[1].read_bytes()[4:8] == b"ftyp"  # the first box of an MPEG-4 file
    assert ply.load_ply(paths[2]).num_gaussians == 4
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert sorted(left) == sorted(paths)  # no partial files


def test_pictures_are_enlarged_only_when_asked(tmp_path):
    (path,) = visuals.write_visuals(tmp_path, {"a.b": PICTURE}, upscale=3)
    assert path.name == "a.b.png"
    read = np.asarray(Image.open(path))
    np.testing.assert_array_equal(read, PICTURE.repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.zeros((4, 4, 3)), r"float64 \(4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"uint8 \(0, 4, 4, 3\)"),
        ("text", "str"),
    ],
)
def test_unknown_values_are_refused_before_anything_is_written(tmp_path, value, found):
    with pytest.raises(ValueError, match=f"visual 'bad' is {found}; expected a picture"):
        visuals.write_visuals(tmp_path, {"good": PICTURE, "bad": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../a", "/a", ""])
def test_names_stay_inside_the_directory(tmp_path, name):
    with pytest.raises(ValueError, match="relative name inside the directory"):
        visuals.write_visuals(tmp_path / "out", {name: PICTURE})
