"""From settings to the scenes of a split: what opens, what is left out, and what is refused."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from lgs_jax.data import opening, packed, pipeline, prepare
from lgs_jax.data.report import DataError


@pytest.fixture(scope="module")
def scenes(formats):
    return [formats.make_dot_scene(num_frames=9, seed=i) for i in range(4)]


def first_batch(source, settings, batch_size=4):
    batches = pipeline.train_batches(source, settings, seed=3, batch_size=batch_size)
    batch = next(batches)
    batches.close()
    return batch


def real_settings(root, **changes):
    defaults = {"source": "realestate10k", "height": 24, "width": 24, "context_views": 3}
    return pipeline.DataSettings(root=str(root), target_views=2, **(defaults | changes))


@pytest.fixture
def folder(formats, scenes, tmp_path):
    for i, scene in enumerate(scenes):
        formats.write_realestate10k(
            tmp_path, scene, f"clip{i}", split="test" if i == 3 else "train"
        )
    return tmp_path


def test_make_source_splits_by_name(folder):
    settings = real_settings(folder, holdout=("test/*",))
    train, held_out = (pipeline.make_source(settings, split) for split in ("train", "eval"))
    assert [example.key for example in train] == ["train/clip0", "train/clip1", "train/clip2"]
    assert [example.key for example in held_out] == ["test/clip3"]
    batch = next(iter(pipeline.eval_batches(held_out, settings, batch_size=1, num_scenes=1)))
    assert batch["context"]["images"].shape == (1, 3, 24, 24, 3)
    assert first_batch(train, settings)["context"]["images"].std() > 0


def test_make_source_drops_listed_frames(folder):
    (folder / "repeated.json").write_text('{"clip1": [1033333, "1066666"]}')
    settings = real_settings(folder, holdout=0.0, drop_frames="repeated.json")
    source = pipeline.make_source(settings, "train")
    assert {example.key: len(example) for example in source}["train/clip1"] == 7
    assert source.report.frames_listed == 2


def test_a_tilde_is_the_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    source = pipeline.make_source(real_settings("~", holdout=0.0), "train")
    pack("~", "~/out")
    packed_settings = real_settings("~/out", source="packed", holdout=0.0)
    assert len(pipeline.make_source(packed_settings, "train")) == len(source) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"there is no file .*repeated\.json; expected a JSON object"),
        ("{", r"repeated\.json is no JSON .*expected a JSON object"),
        ("[" * 200000, r"is no JSON \(lists or objects in it are nested too deeply\); expected a"),
        (b"\xff\xfe\x00bad", r"repeated\.json is no JSON .*expected a JSON object"),
        ('{"clip1": [7]}', r"train/clip1 has no frame '7' \(one of 1.*named like '1000000'"),
        ("[1]", r"repeated\.json holds something else; expected a JSON object"),
        ('{"clip9": [1]}', r"names 1 scenes that do not exist, e\.g\. 'clip9'; scenes are named"),
    ],
)
def test_wrong_lists_of_frames(folder, text, message):
    if text is not None:
        content = text if isinstance(text, bytes) else text.encode()
        (folder / "repeated.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        pipeline.make_source(real_settings(folder, drop_frames="repeated.json"), "train")


def test_make_source_asks_for_the_frames_that_the_views_need(folder):
    settings = real_settings(folder, context_views=8, holdout=0.0)
    with pytest.raises(DataError, match="9 usable frames of 9, needed 10"):
        pipeline.make_source(settings, "train")


def test_make_source_takes_a_subset(folder):
    settings = real_settings(folder, holdout=0.0, num_scenes=2)
    assert len(pipeline.make_source(settings, "train")) == 2
    with pytest.raises(ValueError, match="split='test' must be one of"):
        pipeline.make_source(settings, "test")


def test_every_format_opens_and_survives_pickling(formats, scenes, tmp_path):
    scene = scenes[0]
    names = [f"{i}.png" for i in range(len(scene.world_from_cam))]
    for folder in ("colmap/a", "mvimgnet/1/a"):
        for i, name in enumerate(names):
            formats.save_image(tmp_path / folder / "images" / name, scene.image(i))
        camera = ("PINHOLE", tuple(scene.intrinsics))
        formats.write_colmap(
            tmp_path / folder, scene.world_from_cam, scene.size, camera, names=names
        )
    formats.write_transforms(tmp_path / "transforms" / "a", scene)
    formats.write_realestate10k(tmp_path / "realestate10k", scene, "a")
    batches = []
    for name in ("realestate10k", "colmap", "mvimgnet", "transforms"):
        settings = real_settings(tmp_path / name, source=name, holdout=0.0)
        source = pickle.loads(pickle.dumps(pipeline.make_source(settings, "train")))
        batches.append(first_batch(source, settings, batch_size=1))
    for batch in batches[1:]:  # the same cameras and pixels, whatever the format
        np.testing.assert_array_equal(batch["target"]["images"], batches[0]["target"]["images"])
        np.testing.assert_allclose(
            batch["context"]["world_from_cam"], batches[0]["context"]["world_from_cam"], atol=1e-5
        )


def test_procedural_scenes_for_training_and_evaluation_differ():
    settings = pipeline.DataSettings(
        source="procedural",
        height=12,
        width=16,
        context_views=2,
        target_views=1,
        num_scenes=4,
        num_frames=4,
        holdout=0.5,
    )
    train, held_out = (pipeline.make_source(settings, split) for split in ("train", "eval"))
    assert (len(train), len(held_out)) == (4, 2)
    assert not np.array_equal(train[0].world_from_cam, held_out[0].world_from_cam)
    assert first_batch(train, settings)["context"]["images"].shape == (4, 2, 12, 16, 3)
    with pytest.raises(DataError, match="is no whole scene, so there is nothing to evaluate on"):
        pipeline.make_source(dataclasses.replace(settings, holdout=0.1), "eval")


def pack(root, output):
    options = prepare.Options()
    supplier = prepare.FromReader(opening.make_reader("realestate10k", str(root)), options)
    prepare.prepare(
        output, supplier, options, scenes_per_shard=2, num_workers=0, say=lambda _: None
    )


@pytest.mark.parametrize("kept", [{}, {"num_scenes": 6}])
def test_what_was_left_out_belongs_to_one_split(formats, tmp_path, kept):
    for i in range(9):
        scene = formats.make_dot_scene(num_frames=9, seed=i)
        formats.write_realestate10k(tmp_path / "in", scene, f"clip{i}")
        shown = sorted((tmp_path / "in" / "frames" / "train" / f"clip{i}").iterdir())
        for path in shown[: (0, 1, 9 - 1)[i % 3]]:
            path.unlink()
    pack(tmp_path / "in", tmp_path / "out")
    for split in ("train", "eval"):
        ours, theirs = (
            pipeline.make_source(
                real_settings(tmp_path / name, source=kind, holdout=0.5, **kept), split
            )
            for name, kind in (("out", "packed"), ("in", "realestate10k"))
        )
        assert [example.key for example in ours] == [example.key for example in theirs]
        found, expected = (
            {(f.scene, f.frame) for f in source.report.findings} for source in (ours, theirs)
        )
        assert found == expected
        a, b = ours.report, theirs.report
        assert (a.scenes_found, a.scenes_kept) == (b.scenes_found, b.scenes_kept)
        assert a.frames_kept == b.frames_kept
        assert a.frames_found - a.frames_kept == len(a.bad_frames)
    strict = real_settings(tmp_path / "out", source="packed", holdout=0.5, on_bad="error", **kept)
    with pytest.raises(DataError, match=r"on_bad='skip' would leave it out"):
        pipeline.make_source(strict, "train")


def still(formats, count):
    """A scene whose first `count` cameras stand in one place."""
    scene = formats.make_dot_scene(num_frames=9)
    poses = scene.world_from_cam.copy()
    poses[:count, :3, 3] = poses[0, :3, 3]
    return dataclasses.replace(scene, world_from_cam=poses)


@pytest.mark.parametrize("old", [False, True])
def test_a_scene_without_a_robust_unit_is_left_out(formats, tmp_path, old):
    for i, count in enumerate((1, 4, 6, 9)):
        formats.write_realestate10k(tmp_path / "in", still(formats, count), f"clip{i}")
    pack(tmp_path / "in", tmp_path / "out")
    if old:  # as written before the robust unit was noted
        for path in (tmp_path / "out").glob("shard_*.json"):
            shard = json.loads(path.read_text())
            for entry in shard["scenes"]:
                del entry["most_move"]
            path.write_text(json.dumps(shard))
        manifest = json.loads((tmp_path / "out" / packed.MANIFEST).read_text())
        names = {n: packed.file_sha256(tmp_path / "out" / n) for n in manifest["indices"]}
        (tmp_path / "out" / packed.MANIFEST).write_text(json.dumps(manifest | {"indices": names}))
    for name, kind in (("out", "packed"), ("in", "realestate10k")):
        for scale, kept in ((1.0, 4), ("cameras", 3), ("cameras_robust", 2)):
            settings = real_settings(tmp_path / name, source=kind, scale=scale, context_views=2)
            source = pipeline.make_source(settings, "train")
            assert len(source) == kept
            reasons = [finding.reason for finding in source.report.findings]
            assert len(reasons) == 4 - kept
            assert all(f"scale={scale!r} has no length to use" in reason for reason in reasons)
        batches = pipeline.train_batches(source, settings, seed=0, batch_size=2)
        for _ in range(20):  # the robust unit of any window
            next(batches)
        batches.close()
