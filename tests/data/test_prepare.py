"""prepare-data and the source `packed`: the same batches as from the source, and nothing lost."""

import dataclasses
import io
import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lgs_jax.data import opening, packed, pipeline, places, prepare
from lgs_jax.data.report import DataError

NUM_FRAMES = 9


@pytest.fixture(scope="module")
def scenes(formats):
    return [formats.make_dot_scene(num_frames=NUM_FRAMES, seed=i) for i in range(5)]


@pytest.fixture(scope="module")
def root(formats, scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("re10k")
    for i, scene in enumerate(scenes):
        formats.write_realestate10k(folder, scene, f"clip{i}", suffix=".jpg" if i % 2 else ".png")
    return folder


PLAIN = prepare.Options()


def pack(root, output, options=PLAIN, **kwargs):
    kwargs = {"scenes_per_shard": 2, "num_workers": 0, "say": lambda _: None} | kwargs
    supplier = prepare.FromReader(opening.make_reader("realestate10k", str(root)), options)
    return prepare.prepare(output, supplier, options, **kwargs)


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    output = tmp_path_factory.mktemp("packed") / "out"
    pack(root, output)
    return output


def settings_of(root, source="packed", **changes):
    defaults = {"height": 24, "width": 24, "context_views": 3, "target_views": 2, "holdout": 0.0}
    return pipeline.DataSettings(source=source, root=str(root), **(defaults | changes))


def assert_same_examples(ours, theirs):
    for name in ("world_from_cam", "intrinsics", "sizes", "timestamps"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for name in ("key", "frame_names", "class_label", "class_name"):
        assert getattr(ours, name) == getattr(theirs, name)
    for ours_i, theirs_i in zip(ours.images, theirs.images, strict=True):
        np.testing.assert_array_equal(ours_i, theirs_i)


def test_scenes_are_those_of_the_source(root, folder):
    ours = pipeline.make_source(settings_of(folder), "train")
    theirs = pipeline.make_source(settings_of(root, "realestate10k"), "train")
    assert len(ours) == len(theirs) == 5
    for i in range(5):
        assert_same_examples(ours[i], theirs[i])
    assert ours.report.frames_kept == 5 * NUM_FRAMES
    assert not ours.report.findings


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_of_the_source(root, folder, num_workers):
    settings = settings_of(folder, num_workers=num_workers, flip=True)
    original = settings_of(root, "realestate10k", flip=True)
    ours, theirs = (
        pipeline.train_batches(pipeline.make_source(s, "train"), s, seed=1, batch_size=3)
        for s in (settings, original)
    )
    for _ in range(3):
        a, b = next(ours), next(theirs)
        for group in ("context", "target"):
            for name in a[group]:
                np.testing.assert_array_equal(a[group][name], b[group][name])
    ours.close()
    theirs.close()


def test_unchanged_images_are_kept_byte_for_byte(root, folder):
    source = pipeline.make_source(settings_of(folder), "train")
    for example in source:
        stamps = dict(zip(example.frame_names, example.images.files, strict=True))
        clip = root / "frames" / example.key
        for path in clip.iterdir():
            assert stamps[path.stem].path.read() == path.read_bytes()


def test_the_source_survives_pickling(folder):
    source = pipeline.make_source(settings_of(folder), "train")
    assert_same_examples(pickle.loads(pickle.dumps(source))[3], source[3])


def test_the_same_command_twice_changes_nothing(root, folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    said = []
    report = pack(root, folder, say=said.append)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert report.scenes_kept == 5
    assert said == [
        f"{folder}: 3 of 3 shards were prepared before and are kept; their scenes are not looked "
        "at again"
    ]


def test_kept_shards_are_told_from_those_of_another_source(root, folder, tmp_path):
    shutil.copytree(root, tmp_path / "moved")
    shutil.copytree(folder, tmp_path / "out")
    said = []
    report = pack(tmp_path / "moved", tmp_path / "out", say=said.append)
    assert report.source == f"realestate10k at {root}"
    assert f"shards were prepared before, from realestate10k at {root}, and are kept" in said[0]
    (tmp_path / "out" / "shard_00001.json").unlink()
    report = pack(tmp_path / "moved", tmp_path / "out")
    assert report.source.startswith(f"realestate10k at {root}, and realestate10k at {tmp_path}")


def test_two_preparations_are_equal_bytes(root, folder, tmp_path):
    pack(root, tmp_path / "again", num_workers=2)
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_stopped_preparation_continues(root, folder, tmp_path):
    partial = tmp_path / "out"
    shutil.copytree(folder, partial)
    manifest = json.loads((partial / packed.MANIFEST).read_text())
    (partial / packed.MANIFEST).write_text(json.dumps(manifest | {"indices": {}, "totals": {}}))
    (partial / "shard_00001.json").unlink()  # not finished
    (partial / "shard_00002.array_record").write_bytes(b"cut off")
    (partial / "shard_00002.part").write_bytes(b"left over")
    with pytest.raises(DataError, match="is not finished; run python -m lgs_jax prepare-data"):
        opening.make_source(settings_of(partial), "train")
    kept = (partial / "shard_00000.array_record").stat().st_mtime_ns
    pack(root, partial)
    assert (partial / "shard_00000.array_record").stat().st_mtime_ns == kept
    for path in folder.iterdir():
        assert (partial / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_reduced_images_have_the_right_cameras(formats, scenes, root, tmp_path, codec):
    pack(root, tmp_path / "out", prepare.Options(short_side=30, codec=codec))
    example = pipeline.make_source(settings_of(tmp_path / "out"), "train")[2]
    assert example.sizes.tolist() == [[30, 40]] * NUM_FRAMES
    scene = scenes[2]
    for i, image in enumerate(example.images):
        found = formats.find_dots(np.where(image > 25, image, 0))  # not JPEG's haze
        np.testing.assert_allclose(found, scene.project(i) / 2, atol=0.1)
        np.testing.assert_allclose(example.intrinsics[i], scene.intrinsics / 2, rtol=1e-6)
    stored = Image.open(io.BytesIO(example.images.files[0].path.read()))
    assert stored.format == codec.upper()


def test_what_is_bad_is_left_out_and_reported(formats, scenes, tmp_path):
    for i, scene in enumerate(scenes[:3]):
        formats.write_realestate10k(tmp_path / "in", scene, f"clip{i}", suffix=".jpg")
    frames = tmp_path / "in" / "frames" / "train"
    stamps = sorted(path.name for path in (frames / "clip0").iterdir())
    whole = (frames / "clip0" / stamps[3]).read_bytes()
    # It has an end, so that only decoding finds what is missing.
    (frames / "clip0" / stamps[3]).write_bytes(whole[:200] + b"\xff\xd9")
    shutil.rmtree(frames / "clip1")
    report = pack(tmp_path / "in", tmp_path / "out")
    assert (report.scenes_found, report.scenes_kept) == (3, 2)
    assert report.frames_kept == 2 * NUM_FRAMES - 1
    assert [f.frame for f in report.bad_frames] == [stamps[3].removesuffix(".jpg")]
    assert report.bad_scenes[0].scene == "train/clip1"
    manifest = json.loads((tmp_path / "out" / packed.MANIFEST).read_text())
    assert manifest["totals"] == {
        "scenes_found": 3,
        "frames_found": 2 * NUM_FRAMES,
        "scenes_kept": 2,
        "frames_kept": 2 * NUM_FRAMES - 1,
        "frames_listed": 0,
        "bad_scenes": 1,
        "bad_frames": 1,
    }
    with pytest.raises(DataError, match=r"scene train/clip0.*--on-bad=skip would leave it out"):
        pack(tmp_path / "in", tmp_path / "strict", prepare.Options(on_bad="error"))


def test_where_nothing_is_left_nothing_stays(root, tmp_path):
    with pytest.raises(DataError, match="no usable scene is left"):
        pack(root, tmp_path / "out", prepare.Options(min_frames=NUM_FRAMES + 1))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [places.LOCK]
    assert pack(root, tmp_path / "out").scenes_kept == 5


def test_what_was_left_out_is_looked_at_again_when_asked_for(root, folder, tmp_path):
    shutil.copytree(root, tmp_path / "in")
    clip, said = tmp_path / "in" / "frames" / "train" / "clip1", []
    clip.rename(tmp_path / "aside")
    assert pack(tmp_path / "in", tmp_path / "out").scenes_kept == 4
    (tmp_path / "aside").rename(clip)
    assert pack(tmp_path / "in", tmp_path / "out", say=said.append).scenes_kept == 4
    assert said[0].endswith("stays left out; once it is repaired, add --retry")
    other = (tmp_path / "out" / "shard_00001.json").stat().st_mtime_ns
    report = pack(tmp_path / "in", tmp_path / "out", retry=True)
    assert (report.scenes_kept, report.findings) == (5, [])
    assert (tmp_path / "out" / "shard_00001.json").stat().st_mtime_ns == other
    for path in folder.glob("*.array_record"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_two_at_once_are_refused(root, folder):
    refused = pytest.raises(DataError, match=f"another process is writing to {folder}; wait for")
    with places.locked(places.place(folder)), refused:
        pack(root, folder)
    assert pack(root, folder).scenes_kept == 5


def test_other_options_are_refused(root, folder):
    with pytest.raises(DataError, match=r"options\.short_side: None there, 30 here"):
        pack(root, folder, prepare.Options(short_side=30))


def test_other_scenes_of_the_same_keys_are_refused(root, folder, tmp_path):
    reader = opening.make_reader("realestate10k", str(root))
    dropping = prepare.FromReader(reader, PLAIN, {"clip1": frozenset({"1033333"})})
    with pytest.raises(DataError, match=r"made_of: 'RealEstate10K, drop_frames none' there"):
        prepare.prepare(folder, dropping, PLAIN, scenes_per_shard=2, num_workers=0)
    for size in (16, 24):
        settings = pipeline.DataSettings(
            source="procedural", num_scenes=2, num_frames=3, height=size, width=size,
            context_views=2, target_views=1,
        )  # fmt: skip
        made = prepare.FromSource(pipeline.make_source(settings, "train"), f"frames of {size}")
        if size == 16:
            prepare.prepare(tmp_path / "out", made, PLAIN, num_workers=0)
    with pytest.raises(DataError, match=r"made_of: 'frames of 16' there, 'frames of 24' here"):
        prepare.prepare(tmp_path / "out", made, PLAIN, num_workers=0)


def test_a_strange_folder_is_left_alone(root, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"is not empty \(it holds 'thesis.txt'\)"):
        pack(root, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]


def test_frames_can_be_left_out_when_reading(folder):
    (folder.parent / "drop.json").write_text('{"clip1": ["1033333"]}')
    settings = settings_of(folder, drop_frames="../drop.json")
    source = pipeline.make_source(settings, "train")
    assert [len(example) for example in source] == [9, 8, 9, 9, 9]
    assert source.report.frames_listed == 1
    assert len(source[1].images) == 8


def test_listed_frames_must_be_there(folder):
    (folder.parent / "drop.json").write_text('{"clip1": ["1033334"]}')
    with pytest.raises(DataError, match=r"train/clip1 has no frame '1033334'.*like '1000000'"):
        pipeline.make_source(settings_of(folder, drop_frames="../drop.json"), "train")


def test_scenes_without_enough_frames_are_reported(folder):
    settings = settings_of(folder, gap_min=5)
    with pytest.raises(DataError, match=r"9 usable frames of 9, needed 11"):
        pipeline.make_source(settings, "train")


@pytest.mark.parametrize(
    ("damage", "verify", "message"),
    [
        (lambda f: (f / "shard_00001.array_record").unlink(), "headers", "is missing, expected"),
        (lambda f: (f / "shard_00001.json").unlink(), "headers", "is missing or not that of"),
        (lambda f: (f / "manifest.json").unlink(), "headers", "holds no packed data"),
        (lambda f: (f / "manifest.json").write_text("{}"), "headers", "format None, expected 1"),
        (lambda f: (f / "manifest.json").write_text("[1"), "headers", "is no manifest"),
        (lambda f: flip(f / "shard_00001.array_record"), "full", "does not have the SHA-256"),
    ],
)
def test_damage_is_named(folder, tmp_path, damage, verify, message):
    shutil.copytree(folder, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(DataError, match=message):
        pipeline.make_source(settings_of(tmp_path / "copy", verify=verify), "train")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_settings_without_effect_are_refused(folder):
    with pytest.raises(ValueError, match="have no effect on packed data"):
        settings_of(folder, exif="apply")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codec": "webp"}, "codec='webp' must be one of"),
        ({"short_side": 4}, "short_side=4 must be at least 8"),
        ({"quality": 101}, "quality=101 must be at most 100"),
        ({"masks": "grey"}, "masks='grey'"),
    ],
)
def test_wrong_options(values, message):
    with pytest.raises(ValueError, match=message):
        prepare.Options(**values)


def test_procedural_scenes_can_be_packed(tmp_path):
    settings = pipeline.DataSettings(
        source="procedural", num_scenes=3, num_frames=4, height=24, width=24, context_views=2,
        target_views=1,
    )  # fmt: skip
    made = pipeline.make_source(settings, "train")
    options = prepare.Options(codec="png")
    prepare.prepare(tmp_path / "out", prepare.FromSource(made, "rooms"), options, num_workers=0)
    again = pipeline.make_source(settings_of(tmp_path / "out", context_views=2, target_views=1),
                                 "train")  # fmt: skip
    for i in range(3):
        assert_same_examples(again[i], made[i])


def test_masks_and_lenses_are_applied_for_good(formats, scenes, tmp_path):
    height, width = scenes[0].size
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    formats.save_image(tmp_path / "in" / "masks" / "half.png", mask)
    formats.write_transforms(
        tmp_path / "in", scenes[0], per_frame=lambda _: {"mask_path": "masks/half.png"}
    )
    options = prepare.Options(masks="white", codec="png")
    made = prepare.FromReader(opening.make_reader("transforms", str(tmp_path / "in")), options)
    prepare.prepare(tmp_path / "out", made, options, num_workers=0)
    example = pipeline.make_source(settings_of(tmp_path / "out"), "train")[0]
    original = settings_of(tmp_path / "in", "transforms", masks="white")
    assert_same_examples(example, pipeline.make_source(original, "train")[0])
    assert (example.images[0][:, -1] == 255).all()


def test_an_object_store_holds_the_same(root, folder, store, tmp_path):
    pack(root, "s3://bucket/out")
    ours = pipeline.make_source(settings_of("s3://bucket/out"), "train")
    theirs = pipeline.make_source(settings_of(folder), "train")
    for i in range(5):
        assert_same_examples(ours[i], theirs[i])
    assert len(list((tmp_path / "cache").iterdir())) == 3  # each shard was copied once


def test_the_command(root, tmp_path):
    command = [sys.executable, "-m", "lgs_jax", "prepare-data", "--source=realestate10k"]
    command += [f"--root={root}", f"--output={tmp_path / 'out'}", "--workers=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "5 of 5 scenes, 45 of 45 frames" in done.stdout
    assert f"--config.data.source=packed --config.data.root={tmp_path / 'out'}" in done.stdout


def test_the_command_says_what_is_wrong(capsys, tmp_path):
    from lgs_jax.cli import prepare_data

    out = f"--output={tmp_path / 'out'}"
    assert prepare_data.main(["--source=colmap", out]) == 1
    assert "--root is missing; give the folder of the colmap data" in capsys.readouterr().err
    assert prepare_data.main(["--source=llff", f"--root={tmp_path / 'no'}", out]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert prepare_data.main(["--source=procedural", out]) == 1
    assert "num_scenes is not set" in capsys.readouterr().err
    assert prepare_data.main(["--source=llff", "--root=x", "--size=32", out]) == 1
    text = capsys.readouterr().err
    assert "--size has no effect on llff; it is for procedural and splats" in text


def test_a_list_of_another_layout_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "shard_00000.json"
    value = json.loads(path.read_text())
    value["scenes"][0]["frames"] = "nine"
    path.write_text(json.dumps(value))
    from etils import epath

    with pytest.raises(DataError, match="is no list of a shard"):
        packed.read_shard(epath.Path(tmp_path / "copy"), 0)


def test_manifests_differ_by_name():
    one = packed.Manifest("a", "x", "k", 3, {"codec": "png"}, (), 2)
    other = dataclasses.replace(one, source="b", scenes_per_shard=4, options={"codec": "jpeg"})
    assert one.differences(other) == [
        "options.codec: 'png' there, 'jpeg' here",
        "scenes_per_shard: 2 there, 4 here",
    ]
