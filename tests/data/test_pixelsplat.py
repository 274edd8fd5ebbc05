"""Chunks of pixelSplat: cameras, images inside the chunk, faults, batches."""

import io
import json
import pickle

import numpy as np
import pytest
import torch_files
from PIL import Image

from lgs_jax import settings
from lgs_jax.data import pipeline
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import ScannedSource, ScanOptions
from lgs_jax.data.sources.pixelsplat import PixelSplat


def encode(scene, number, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(scene.image(number)).save(buffer, kind)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def entry(scene, key):
    height, width = scene.size
    rows = [
        [*(scene.intrinsics / [width, height, width, height]), 0, 0, *np.linalg.inv(pose)[:3].flat]
        for pose in scene.world_from_cam
    ]
    count = len(rows)
    return {
        "url": "https://example.org",
        "timestamps": np.arange(count)[::-1] * 33333,
        "cameras": np.array(rows, np.float32),
        "images": [encode(scene, i) for i in range(count)],
        "key": key,
    }


@pytest.fixture
def scene(formats):
    return formats.make_dot_scene(num_frames=5)


@pytest.fixture
def root(scene, tmp_path):
    """Two scenes in one chunk of training, one in a chunk of the test split."""
    chunks = {"train/000000.torch": ("a", "b"), "test/000000.torch": ("c",)}
    for name, keys in chunks.items():
        path = torch_files.save(tmp_path / name, [entry(scene, key) for key in keys])
        (path.parent / "index.json").write_text(json.dumps({key: path.name for key in keys}))
    return tmp_path


def test_cameras_agree_with_the_pixels(formats, scene, root):
    reader = PixelSplat(root)
    assert sorted(reader.keys) == ["test/c", "train/a", "train/b"]
    example = ScannedSource(reader, ScanOptions(verify="full"), ["train/b"])[0]
    # In the order of their timestamps, which run backwards here; cameras are float32.
    np.testing.assert_allclose(example.world_from_cam, scene.world_from_cam[::-1], atol=1e-6)
    np.testing.assert_allclose(example.intrinsics[0], scene.intrinsics, rtol=1e-6)
    found = formats.find_dots(example.images[1])
    np.testing.assert_allclose(found, scene.project(3), atol=0.05)


def test_without_an_index_and_without_splits(root):
    (root / "train" / "index.json").unlink()
    assert PixelSplat(root / "train").keys == ["a", "b"]


def test_batches_do_not_depend_on_the_way_to_the_images(root):
    """Two workers receive the source by pickling it."""
    data = settings.build(
        pipeline.DataSettings,
        {
            "source": "pixelsplat",
            "root": str(root),
            "height": 32,
            "width": 32,
            "context_views": 2,
            "target_views": 1,
            "holdout": ("test/*",),
        },
        "data",
    )
    source = pipeline.make_source(data, "train")
    again = pickle.loads(pickle.dumps(source))
    assert len(source) == 2
    np.testing.assert_array_equal(source[1].images[2], again[1].images[2])
    assert len(pipeline.make_source(data, "eval")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": np.zeros((5, 17), np.float32)}, r"cameras \(5, 17\) for 5 images"),
        ({"cameras": np.zeros((4, 18), np.float32)}, r"cameras \(4, 18\) for 5 images"),
        ({"timestamps": np.arange(4)}, r"timestamps \(4,\) of type int64 for 5 cameras"),
        ({"timestamps": np.full(5, np.nan, np.float32)}, "of type float32 for 5 cameras"),
        ({"timestamps": None}, "has no tensor 'timestamps'"),
        ({"images": None}, "for no images"),
        ({"images": [np.zeros(3, np.float32)] * 5}, "is no tensor of bytes"),
    ],
)
def test_faults_are_named(scene, tmp_path, change, message):
    torch_files.save(tmp_path / "0.torch", [entry(scene, "a") | change])
    with pytest.raises(DataError, match=message):
        PixelSplat(tmp_path).read("a")


def test_scenes_of_one_key_are_refused(scene, tmp_path):
    torch_files.save(tmp_path / "0.torch", [entry(scene, "a")])
    torch_files.save(tmp_path / "1.torch", [entry(scene, "a")])
    with pytest.raises(DataError, match=r"scene a is in .*0\.torch and in .*1\.torch"):
        PixelSplat(tmp_path)
    torch_files.save(tmp_path / "0.torch", [entry(scene, "b"), entry(scene, "b")])
    with pytest.raises(DataError, match="several scenes of one key"):
        PixelSplat(tmp_path)


def test_a_broken_image_is_left_out_and_reported(scene, tmp_path):
    spoilt = entry(scene, "a")
    spoilt["images"][1] = spoilt["images"][1][:200]
    path = torch_files.save(tmp_path / "0.torch", [spoilt])
    source = ScannedSource(PixelSplat(tmp_path), ScanOptions())
    assert len(source[0]) == 4
    (finding,) = source.report.findings
    assert f"{path}, bytes " in str(finding)
    assert "cut off or broken" in str(finding)


def test_broken_folders_are_named(scene, root, tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        PixelSplat(root / "nothing")
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="holds no chunk"):
        PixelSplat(root / "empty")
    index = root / "train" / "index.json"
    index.write_text(json.dumps({"a": "000000.torch", "z": "000000.torch", "y": "000009.torch"}))
    reader = PixelSplat(root)
    with pytest.raises(DataError, match="which does not hold it"):
        reader.read("train/z")
    with pytest.raises(DataError, match=r"there is no file .*000009\.torch"):
        reader.read("train/y")
    for content, message in (
        ("{", "is no JSON"),
        ("[" * 200000, "is no JSON .lists or objects in it are nested too deeply"),
        ('{"a": "../x"}', "file name of its chunk"),
    ):
        index.write_text(content)
        with pytest.raises(DataError, match=message):
            PixelSplat(root)
    torch_files.save(root / "train" / "000000.torch", {"a": 1})
    index.unlink()
    with pytest.raises(DataError, match="no list of scenes with keys"):
        PixelSplat(root)
