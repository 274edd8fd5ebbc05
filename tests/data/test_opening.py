"""From settings to the scenes of a split: what opens, what is left out, and what is refused."""

import dataclasses
import pickle

import numpy as np
import pytest

from lgs_jax.data import pipeline
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"there is no file .*repeated\.json; expected a JSON object"),
        ("{", r"repeated\.json is no JSON .*expected a JSON object"),
        ("[1]", r"repeated\.json holds something else; expected a JSON object"),
        ('{"clip9": [1]}', r"names 1 scenes that do not exist, e\.g\. 'clip9'; scenes are named"),
    ],
)
def test_wrong_lists_of_frames(folder, text, message):
    if text is not None:
        (folder / "repeated.json").write_text(text)
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
