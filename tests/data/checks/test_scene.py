"""A good scene, broken in every usual way: each fault is named, and the good scene has none."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from lgs_jax.data import pipeline, poses
from lgs_jax.data.checks import breaking, conventions, features, pictures, scene
from lgs_jax.data.checks.conventions import FileConvention

GL = np.diag([1.0, -1.0, -1.0])
OPENGL = FileConvention(cam_from_world=False, axes=GL)  # as transforms.json
COLMAP = FileConvention(cam_from_world=True)
FRAMES = 10


@pytest.fixture(scope="module")
def good():
    settings = pipeline.DataSettings(
        source="procedural",
        num_scenes=3,
        num_frames=FRAMES,
        height=128,
        width=160,
        context_views=2,
        target_views=1,
    )
    example = pipeline.make_source(settings, "train")[2]
    example.images.prefetch(range(FRAMES))
    return dataclasses.replace(example, images=[np.asarray(image) for image in example.images])


def broken(title):
    """The break of that title, as a function of a scene and how its format stores poses."""

    def apply(example, convention):
        return {each.title: each for each in breaking.breaks(convention)}[title].apply(example)

    return apply


def mixed_rotation(example, convention):
    matrices = breaking.stored(example, convention)
    matrices[:, :3, :3] = poses.invert(matrices)[:, :3, :3]
    return breaking.as_read(example, matrices, convention)


BROKEN = {
    "inverse": (
        broken("inverse matrices"),
        COLMAP,
        "inverted",
        "camera-to-world matrices where the format has",
    ),
    "inverse_gl": (
        broken("inverse matrices"),
        OPENGL,
        "inverted",
        "world-to-camera matrices where the format has",
    ),
    "opengl": (
        broken("OpenGL's axes"),
        COLMAP,
        "opengl_axes",
        r"OpenGL's camera axes \(x right, y up, z back\)",
    ),
    "opencv": (broken("OpenCV's axes"), OPENGL, "opencv_axes", r"OpenCV's camera axes"),
    "y_flip": (broken("y flip"), COLMAP, "mirrored", "mirrored poses or images"),
    "z_flip": (broken("z flip"), OPENGL, "mirrored", "mirrored poses or images"),
    "mirrored_pictures": (broken("mirrored pictures"), COLMAP, "mirrored", "mirrored poses or"),
    "mixed": (
        broken("the other direction's translations"),
        COLMAP,
        "mixed_translation",
        "world-to-camera rotations beside camera-to-world translations",
    ),
    "mixed_rotation": (
        mixed_rotation,
        OPENGL,
        "mixed_rotation",
        "world-to-camera rotations beside camera-to-world translations",
    ),
    "negated": (broken("negated translations"), OPENGL, "negated_translation", "negated"),
    "quaternions": (
        broken("quaternion order"),
        COLMAP,
        "quaternion_order",
        "xyzw that were read as w",
    ),
    "focal": (
        broken("focal length doubled"),
        COLMAP,
        "intrinsics",
        "focal lengths 2 times too long",
    ),
    "resolution": (
        broken("intrinsics of twice the size"),
        COLMAP,
        "intrinsics",
        "of images 2 times as large",
    ),
    "late": (broken("poses a frame late"), COLMAP, "frame_order", "poses 1 frame late"),
    "reversed": (broken("poses reversed"), OPENGL, "frame_order", "reverse order"),
    "jump": (
        broken("one pose turned"),
        COLMAP,
        "jumping_camera",
        "the poses of 1 frames do not fit",
    ),
    "frozen": (
        broken("one frozen pose"),
        COLMAP,
        "frozen_poses",
        "1 frames have the pose of the frame",
    ),
    "repeated": (
        broken("one repeated frame"),
        COLMAP,
        "repeated_images",
        "1 frames show the picture",
    ),
    "turned": (
        broken("pictures upside down"),
        COLMAP,
        "turned_images",
        "images turned against their poses",
    ),
    "exposure": (broken("exposure step"), COLMAP, "exposure", "the exposure jumps at 1 frames"),
    "blur": (broken("one blurred frame"), COLMAP, "blur", "1 frames are much less sharp"),
    "unit": (broken("millimetres"), COLMAP, "large_unit", "looks like millimetres"),
}


@pytest.mark.parametrize("convention", [COLMAP, OPENGL])
def test_a_good_scene_has_no_faults(good, convention):
    checked = scene.check(good, convention)
    assert [str(fault) for fault in checked.faults] == []
    assert checked.fit.share > 0.9


@pytest.mark.parametrize("name", BROKEN)
def test_each_break_is_named(good, name):
    function, convention, kind, says = BROKEN[name]
    faults = scene.check(function(good, convention), convention).faults
    named = {fault.kind: fault for fault in faults}
    assert kind in named, [str(fault) for fault in faults]
    assert re.search(says, named[kind].says), named[kind].says
    others = [f for f in faults if f.level == "fault" and f.kind != kind]
    assert not others, others


def test_single_frames_are_named(good):
    for name in ("jump", "frozen", "repeated", "exposure", "blur"):
        function, convention, kind, _ = BROKEN[name]
        faults = {f.kind: f for f in scene.check(function(good, convention), convention).faults}
        assert faults[kind].frames == (good.frame_names[FRAMES // 2],)


def test_poses_that_nothing_explains(good):
    rng = np.random.default_rng(0)
    turns = Rotation.random(FRAMES, random_state=0).as_matrix()
    random = np.stack([poses.from_parts(r, rng.normal(size=3)) for r in turns])
    faults = scene.check(dataclasses.replace(good, world_from_cam=random), COLMAP).faults
    assert [fault.kind for fault in faults] == ["poses_do_not_fit"]


def test_a_camera_that_only_turns(good):
    """The pictures of a turning camera: all crops of one wide picture of a plane at infinity."""
    rng = np.random.default_rng(0)
    small = rng.uniform(0, 255, (60, 120, 3)).astype(np.uint8)
    wide = np.asarray(Image.fromarray(small).resize((1200, 600), Image.Resampling.BICUBIC))
    focal, frames, matrices = 160.0, [], []
    row, column = np.mgrid[:128, :160] + 0.5
    rays = np.stack([(column - 80) / focal, (row - 64) / focal, np.ones_like(row)], -1)
    for i in range(8):
        turn = Rotation.from_euler("yx", [0.02 * i, 0.01 * i]).as_matrix()
        world = rays @ turn.T
        at = 600 + 500 * np.arctan2(world[..., 0], world[..., 2])
        down = 300 + 500 * np.arctan2(world[..., 1], world[..., 2])
        frames.append(wide[down.astype(int), at.astype(int)])
        matrices.append(poses.from_parts(turn, np.array([1e-3 * i, 0.0, 0.0])))
    example = dataclasses.replace(
        good,
        images=frames,
        world_from_cam=np.stack(matrices),
        intrinsics=np.tile([focal, focal, 80.0, 64.0], (8, 1)),
        sizes=np.tile([128, 160], (8, 1)),
        timestamps=np.arange(8.0),
        frame_names=tuple(map(str, range(8))),
    )
    assert [fault.kind for fault in scene.check(example, COLMAP).faults] == ["no_parallax"]


def test_pictures_without_texture_are_not_judged(good):
    flat = [np.full_like(image, 90 + 3 * i) for i, image in enumerate(good.images)]
    checked = scene.check(dataclasses.replace(good, images=flat), COLMAP)
    assert [fault.kind for fault in checked.faults] == ["few_matches"]
    assert checked.fit is None


def test_without_opencv_only_what_needs_none_is_checked(good, monkeypatch):
    monkeypatch.setattr(features, "available", lambda: False)
    checked = scene.check(broken("one blurred frame")(good, COLMAP), COLMAP)
    assert [fault.kind for fault in checked.faults] == ["blur"]
    assert not checked.matches


def test_the_picture_shows_the_fault(good):
    function, convention, *_ = BROKEN["opengl"]
    checked = scene.check(function(good, convention), convention)
    assert checked.reading.kind == "opengl_axes"
    with_fault = pictures.draw(checked, "scene")
    without = pictures.draw(dataclasses.replace(checked, faults=[], reading=None), "scene")
    assert with_fault.width == without.width
    assert with_fault.height > without.height  # a second pair of pictures


def test_errors_are_angles_to_the_visible_part_of_a_ray():
    """Two cameras one unit apart that look at known points, before, behind and beside."""
    rays = np.array([[0.0, 0.0, 1.0]] * 4)
    points = np.array([[0, 0, 2.0], [0, 0, 1e9], [0, 0, -2.0], [0, 0.5, 2.0]])
    centers = np.array([[0.0, 0, 0], [1.0, 0, 0]])
    seen = points - centers[1]
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    found = conventions.Bundle(np.zeros(4, int), np.ones(4, int), rays, seen, np.ones(4))
    angles = conventions.errors(found, np.tile(np.eye(3), (2, 1, 1)), centers)
    np.testing.assert_allclose(angles[:2], 0, atol=1e-8)
    # Behind the first camera: nearest to the first camera itself, as the second one sees it.
    np.testing.assert_allclose(angles[2], np.arctan2(2, 1), atol=1e-9)
    np.testing.assert_allclose(angles[3], np.arcsin(0.5 / np.sqrt(1 + 0.25 + 4)), atol=1e-9)


def test_readings_hold_the_given_one_first_and_no_twins():
    matrices = np.stack(
        [
            poses.from_parts(Rotation.random(random_state=i).as_matrix(), np.arange(3.0) + i)
            for i in range(4)
        ]
    )
    for convention in (COLMAP, OPENGL):
        hypotheses = conventions.readings(matrices, convention)
        assert hypotheses[0].kind == "as_given"
        np.testing.assert_allclose(hypotheses[0].rotations, matrices[:, :3, :3], atol=1e-12)
        np.testing.assert_allclose(hypotheses[0].centers, matrices[:, :3, 3], atol=1e-12)
        assert {h.changes for h in hypotheses} == {0, 1, 2}
    assert len(conventions.signed_permutations()) == 48
