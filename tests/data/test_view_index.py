"""An index prescribes the views of evaluation; nothing is left out without a word."""

import json

import numpy as np
import pytest

from lgs_jax.data import opening, pipeline, prepare
from lgs_jax.data.report import DataError


@pytest.fixture
def root(formats, tmp_path):
    for i in range(4):
        scene = formats.make_dot_scene(num_frames=8, seed=i)
        formats.write_realestate10k(tmp_path, scene, f"clip{i}", split="test")
    formats.write_realestate10k(tmp_path, formats.make_dot_scene(num_frames=8), "other")
    return tmp_path


GOOD = {
    "clip0": {"context": [1, 6], "target": [2, 3, 5]},
    "clip1": None,
    "test/clip2": {"context": [0, 7], "target": [4, 1, 6]},
}


def make(root, index, split="eval", **changes):
    text = index if isinstance(index, str) else json.dumps(index)
    (root / "index.json").write_text(text)
    options = {"context_views": 2, "target_views": 3, "height": 24, "width": 24} | changes
    settings = pipeline.DataSettings(
        root=str(root),
        view_index="index.json",
        holdout=("test/*",),
        **({"source": "realestate10k"} | options),
    )
    return pipeline.make_source(settings, split), settings


def test_views_are_those_of_the_index(root):
    source, settings = make(root, GOOD)
    assert [example.key for example in source] == ["test/clip0", "test/clip2"]
    assert (source.report.scenes_found, source.report.scenes_kept) == (4, 2)
    batches = pipeline.eval_batches(source, settings, batch_size=2, num_scenes=2)
    batch = next(iter(batches))
    for row, number in enumerate(batch["scene_index"]):
        example, (context, target) = source[int(number)], source.views_of(int(number))
        assert context.tolist() == ([1, 6], [0, 7])[number]
        assert target.tolist() == ([2, 3, 5], [4, 1, 6])[number]
        to_scene = np.linalg.inv(batch["world_from_scene"][row])
        for group, frames in (("context", context), ("target", target)):
            centers = (to_scene @ example.world_from_cam[frames])[:, :3, 3]
            found = batch[group]["world_from_cam"][row, :, :3, 3]
            np.testing.assert_allclose(found, centers, atol=1e-5)


def test_training_is_as_without(root):
    source, _ = make(root, GOOD, split="train")
    assert [example.key for example in source] == ["train/other"]


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        ({"context": [1], "target": [2, 3, 5]}, r"it names 1 context views, data\.context_views=2"),
        ({"context": [1, 8], "target": [2, 3, 5]}, r"context frame 8 is none of the 8 frames"),
        ({"context": [1, -1], "target": [2, 3, 5]}, r"context frame -1 is none of the 8"),
        ({"context": [1, 2.5], "target": [2, 3, 5]}, r"context is \[1, 2\.5\]; expected"),
        ({"context": [1, 2]}, r"target is None; expected"),
        ([1, 2], r"found \[1, 2\]; expected"),
    ],
)
def test_bad_entries_are_reported(root, scene, message):
    source, _ = make(root, GOOD | {"clip3": scene})
    assert len(source) == 2
    (finding,) = source.report.findings
    assert finding.scene == "test/clip3"
    with pytest.raises(DataError, match=message):
        make(root, GOOD | {"clip3": scene}, on_bad="error")


def test_scenes_that_are_not_there_are_reported(root):
    source, _ = make(root, GOOD | {"nobody": GOOD["clip0"], "nothing": None})
    (finding,) = source.report.findings
    assert finding.scene == "nobody"
    assert "the data have no such scene" in finding.reason


def pack(root, **drop_frames):
    """A folder of packed data beside the others."""
    options = prepare.Options()
    reader = opening.make_reader("realestate10k", str(root))
    supplier = prepare.FromReader(reader, options, drop_frames)
    prepare.prepare(root / "out", supplier, options, num_workers=0, say=lambda _: None)
    return root / "out"


def test_packed_data_remember_which_frames_are_missing(root):
    frames = root / "frames" / "test"
    sorted((frames / "clip0").iterdir())[4].unlink()
    for path in sorted((frames / "clip3").iterdir())[1:]:
        path.unlink()
    index = GOOD | {"clip3": GOOD["clip0"]}
    plain, _ = make(root, index)
    source, _ = make(pack(root), index, source="packed")
    assert [example.key for example in source] == ["test/clip2"]
    ours, theirs = (sorted(map(str, s.report.bad_scenes)) for s in (source, plain))
    assert [text.partition(":")[0] for text in ours] == [text.partition(":")[0] for text in theirs]
    assert len(source.report.bad_frames) == len(plain.report.bad_frames) == 8
    with pytest.raises(DataError, match=r"test/clip0, frame 1133332.* is missing"):
        make(root / "out", index, source="packed", on_bad="error")


def test_packed_data_without_listed_frames_are_refused(root):
    folder = pack(root, clip0=frozenset({"1033333"}))
    with pytest.raises(DataError, match=r"1 frames were left out of .*out by --drop-frames"):
        make(folder, GOOD, source="packed")


def test_scenes_with_frames_left_out_are_reported(root):
    frame = sorted((root / "frames" / "test" / "clip0").iterdir())[4]
    frame.unlink()
    source, _ = make(root, GOOD)
    assert [example.key for example in source] == ["test/clip2"]
    assert "frames of it were left out" in str(source.report.bad_scenes[-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 200000, "is no JSON"),
        ("[]", "holds no object"),
        ('{"x": null}', "names views for none of"),
    ],
)
def test_files_of_another_kind(root, text, message):
    with pytest.raises(DataError, match=message):
        make(root, text)


def test_a_missing_file(root):
    make(root, GOOD)
    (root / "index.json").unlink()
    with pytest.raises(DataError, match=r"data\.view_index: there is no file .*index\.json"):
        pipeline.make_source(
            pipeline.DataSettings(
                source="realestate10k",
                root=str(root),
                view_index="index.json",
                holdout=("test/*",),
                context_views=2,
                target_views=3,
            ),
            "eval",
        )
