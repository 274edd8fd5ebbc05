"""Breaks are what they say, leave the good scene alone, and are judged as their docstrings say."""

import dataclasses

import numpy as np
import pytest

from lgs_jax.data import poses
from lgs_jax.data.checks import breaking
from lgs_jax.data.checks.conventions import FileConvention
from lgs_jax.data.checks.scene import Fault
from lgs_jax.data.example import Example

FRAMES = 5
MIDDLE = "c"
OPENGL = FileConvention(cam_from_world=False, axes=np.diag([1.0, -1.0, -1.0]))
COLMAP = FileConvention(cam_from_world=True)
LLFF = FileConvention(False, np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]))


@pytest.fixture
def good():
    rng = np.random.default_rng(0)
    turns = [poses.rotation_from_quat(quat) for quat in rng.normal(size=(FRAMES, 4))]
    return Example(
        key="vase",
        images=list(rng.integers(50, 250, (FRAMES, 12, 16, 3), dtype=np.uint8)),
        world_from_cam=np.stack([poses.from_parts(r, rng.normal(size=3)) for r in turns]),
        intrinsics=np.tile([16.0, 16.0, 8.0, 6.0], (FRAMES, 1)),
        sizes=np.tile([12, 16], (FRAMES, 1)),
        timestamps=np.arange(FRAMES, dtype=float),
        frame_names=tuple("abcde"),
    )


def find(title, convention=COLMAP):
    return {each.title: each for each in breaking.breaks(convention)}[title]


def copy(example):
    return [np.copy(image) for image in example.images], example.world_from_cam.copy()


@pytest.mark.parametrize("convention", [OPENGL, COLMAP, LLFF])
def test_there_are_19_and_each_changes_a_copy(good, convention):
    images, matrices = copy(good)
    all_breaks = breaking.breaks(convention)
    assert len({each.title for each in all_breaks}) == len(all_breaks) == 19
    assert sum(each.by_splats for each in all_breaks) == 6
    for each in all_breaks:
        changed = each.apply(good).check()
        moved = not np.allclose(changed.world_from_cam, good.world_from_cam)
        redrawn = any(
            not np.array_equal(a, b) for a, b in zip(changed.images, good.images, strict=True)
        )
        refocused = not np.array_equal(changed.intrinsics, good.intrinsics)
        assert moved + redrawn + refocused == 1, each.title
        np.testing.assert_array_equal(good.world_from_cam, matrices)
        np.testing.assert_array_equal(np.stack(good.images), np.stack(images))


@pytest.mark.parametrize("convention", [OPENGL, COLMAP, LLFF])
def test_files_are_written_and_read_by_their_convention(good, convention):
    file = breaking.stored(good, convention)
    back = breaking.as_read(good, file, convention)
    np.testing.assert_allclose(back.world_from_cam, good.world_from_cam, atol=1e-12)
    # A camera looks along +z; its file says so in the file's own axes.
    camera = poses.invert(file) if convention.cam_from_world else file
    np.testing.assert_allclose(
        camera[:, :3, :3] @ convention.axes[:, 2], good.world_from_cam[:, :3, 2], atol=1e-12
    )
    negated = find("negated translations", convention).apply(good)
    changed = breaking.stored(negated, convention)
    np.testing.assert_allclose(changed[:, :3, 3], -file[:, :3, 3], atol=1e-12)
    np.testing.assert_allclose(changed[:, :3, :3], file[:, :3, :3], atol=1e-12)


def test_axes_are_those_of_another_program(good):
    wrong = find("OpenGL's axes", COLMAP).apply(good).world_from_cam
    np.testing.assert_allclose(wrong[:, :3, 1:3], -good.world_from_cam[:, :3, 1:3])
    np.testing.assert_allclose(wrong[:, :3, 0], good.world_from_cam[:, :3, 0])
    for convention in (OPENGL, LLFF):  # a file with OpenCV's axes, read as one of the format
        wrong = find("OpenCV's axes", convention).apply(good)
        np.testing.assert_allclose(
            breaking.stored(wrong, convention), good.world_from_cam, atol=1e-12
        )


def test_one_frame_is_the_one_in_the_middle(good):
    for each in breaking.breaks(COLMAP):
        if not each.single or each.kind == "exposure":
            continue
        changed = each.apply(good)
        others = np.arange(FRAMES) != FRAMES // 2
        np.testing.assert_array_equal(
            changed.world_from_cam[others], good.world_from_cam[others], each.title
        )
        np.testing.assert_array_equal(
            np.stack(changed.images)[others], np.stack(good.images)[others]
        )


def test_exposure_falls_from_the_middle_on(good):
    changed = np.stack(find("exposure step").apply(good).images).astype(float)
    before = np.stack(good.images).astype(float)
    np.testing.assert_array_equal(changed[:2], before[:2])
    np.testing.assert_allclose(changed[2:], 0.62 * before[2:], atol=0.5)


def fault(kind, level="fault", frames=(), says="it"):
    return Fault(kind, says, "mend it", level, frames)


@pytest.mark.parametrize(
    ("title", "found", "before", "text"),
    [
        (None, [], [], ""),
        (None, [fault("blur", "warning", ("a",)), fault("large_unit", "note")], [], ""),
        (None, [fault("inverted")], [], "found inverted"),
        ("inverse matrices", [fault("inverted")], [], ""),
        ("inverse matrices", [], [], "not found"),
        ("inverse matrices", [fault("few_matches", "warning")], [], "not found"),
        ("inverse matrices", [fault("mirrored")], [], "found mirrored"),
        (
            "inverse matrices",
            [fault("inverted"), fault("frozen_poses", frames=("a",))],
            [],
            "also found frozen_poses",
        ),
        ("poses reversed", [fault("frame_order", says="poses in the reverse order")], [], ""),
        (
            "poses reversed",
            [fault("frame_order", says="poses 1 frame late")],
            [],
            "frame_order, but poses 1 frame late",
        ),
        ("one blurred frame", [fault("blur", "warning", (MIDDLE,))], [], ""),
        ("one blurred frame", [fault("blur", "warning", ("a",))], [], "blur of other frames"),
        (
            "millimetres",
            [fault("large_unit", "note")],
            [fault("large_unit", "note")],
            "not found",
        ),
    ],
)
def test_what_is_right(good, title, found, before, text):
    broken = None if title is None else find(title)
    assert breaking.mistake(good, found, broken, before) == text


def test_a_repeated_frame_has_the_size_of_its_picture(good):
    images = [*good.images[:2], np.zeros((6, 8, 3), np.uint8), *good.images[3:]]
    sizes = good.sizes.copy()
    sizes[2] = 6, 8
    changed = find("one repeated frame").apply(
        dataclasses.replace(good, images=images, sizes=sizes)
    )
    np.testing.assert_array_equal(changed.images[2], good.images[1])
    assert changed.sizes[2].tolist() == [12, 16]
