"""A good scene, broken in every usual way: each fault is named, and the good scene has none."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.spatial.transform import Rotation

from lgs_jax.data import pipeline, poses
from lgs_jax.data.checks import conventions, features, pictures, scene
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


def stored(example, convention):
    """The matrices as a file of the convention holds them."""
    matrices = example.world_from_cam.copy()
    matrices[:, :3, :3] = matrices[:, :3, :3] @ convention.axes.T
    return poses.invert(matrices) if convention.cam_from_world else matrices


def as_read(example, matrices, convention):
    """What the convention's reader makes of matrices in a file."""
    read = poses.invert(matrices) if convention.cam_from_world else matrices.copy()
    read[:, :3, :3] = read[:, :3, :3] @ convention.axes
    return dataclasses.replace(example, world_from_cam=read)


def change(**parts):
    """A break of the stored matrices: functions of rotations and translations."""

    def apply(example, convention):
        matrices = stored(example, convention)
        inverse = poses.invert(matrices)
        turn = parts.get("turn", lambda m, inverse: m[:, :3, :3])(matrices, inverse)
        shift = parts.get("shift", lambda m, inverse: m[:, :3, 3])(matrices, inverse)
        changed = np.stack([poses.from_parts(r, t) for r, t in zip(turn, shift, strict=True)])
        return as_read(example, changed, convention)

    return apply


def inverted(example, convention):
    return as_read(example, poses.invert(stored(example, convention)), convention)


def axes(matrix):
    def apply(example, convention):
        del convention
        changed = example.world_from_cam.copy()
        changed[:, :3, :3] = changed[:, :3, :3] @ matrix
        return dataclasses.replace(example, world_from_cam=changed)

    return apply


def mirrored(axis):
    flip = np.eye(3)
    flip[axis, axis] = -1

    def apply(example, convention):
        del convention
        changed = example.world_from_cam.copy()
        changed[:, :3, :3] = flip @ changed[:, :3, :3] @ flip
        changed[:, :3, 3] = changed[:, :3, 3] @ flip
        return dataclasses.replace(example, world_from_cam=changed)

    return apply


def quaternions_read_wrong(example, convention):
    matrices = stored(example, convention)
    xyzw = Rotation.from_matrix(matrices[:, :3, :3]).as_quat()
    matrices[:, :3, :3] = np.stack([poses.rotation_from_quat(quat) for quat in xyzw])
    return as_read(example, matrices, convention)


def intrinsics(*factors):
    return lambda e, _: dataclasses.replace(e, intrinsics=e.intrinsics * np.array(factors))


def order(index):
    return lambda e, _: dataclasses.replace(e, world_from_cam=e.world_from_cam[index])


def one_pose(function):
    def apply(example, convention):
        del convention
        changed = example.world_from_cam.copy()
        function(changed, FRAMES // 2)
        return dataclasses.replace(example, world_from_cam=changed)

    return apply


def lose(matrices, i):
    matrices[i, :3, :3] = matrices[i, :3, :3] @ Rotation.from_euler("y", 0.4).as_matrix()


def repeat(items, i):
    items[i] = items[i - 1]


def images(function):
    def apply(example, convention):
        del convention
        changed = list(example.images)
        function(changed, FRAMES // 2)
        return dataclasses.replace(example, images=changed)

    return apply


def blur(pictures, i):
    soft = Image.fromarray(pictures[i]).filter(ImageFilter.GaussianBlur(3))
    pictures[i] = np.asarray(soft)


def darken(pictures, i):
    pictures[i:] = [np.rint(picture * 0.6).astype(np.uint8) for picture in pictures[i:]]


def turn_around(pictures, _):
    pictures[:] = [np.ascontiguousarray(picture[::-1, ::-1]) for picture in pictures]


def scale_up(example, _):
    changed = example.world_from_cam.copy()
    changed[:, :3, 3] *= 1000
    return dataclasses.replace(example, world_from_cam=changed)


BROKEN = {
    "inverse": (inverted, COLMAP, "inverted", "camera-to-world matrices where the format has"),
    "inverse_gl": (inverted, OPENGL, "inverted", "world-to-camera matrices where the format has"),
    "opengl": (axes(GL), COLMAP, "opengl_axes", r"OpenGL's camera axes \(x right, y up, z back\)"),
    "opencv": (axes(GL), OPENGL, "opencv_axes", r"OpenCV's camera axes"),
    "y_flip": (mirrored(1), COLMAP, "mirrored", "mirrored poses or images"),
    "z_flip": (mirrored(2), OPENGL, "mirrored", "mirrored poses or images"),
    "mixed": (
        change(shift=lambda m, inverse: inverse[:, :3, 3]),
        COLMAP,
        "mixed_translation",
        "world-to-camera rotations beside camera-to-world translations",
    ),
    "mixed_rotation": (
        change(turn=lambda m, inverse: inverse[:, :3, :3]),
        OPENGL,
        "mixed_rotation",
        "world-to-camera rotations beside camera-to-world translations",
    ),
    "negated": (change(shift=lambda m, _: -m[:, :3, 3]), OPENGL, "negated_translation", "negated"),
    "quaternions": (quaternions_read_wrong, COLMAP, "quaternion_order", "xyzw that were read as w"),
    "focal": (intrinsics(2, 2, 1, 1), COLMAP, "intrinsics", "focal lengths 2 times too long"),
    "resolution": (intrinsics(2, 2, 2, 2), COLMAP, "intrinsics", "of images 2 times as large"),
    "late": (order(np.roll(np.arange(FRAMES), 1)), COLMAP, "frame_order", "poses 1 frame late"),
    "reversed": (order(np.arange(FRAMES)[::-1]), OPENGL, "frame_order", "reverse order"),
    "jump": (one_pose(lose), COLMAP, "jumping_camera", "the poses of 1 frames do not fit"),
    "frozen": (one_pose(repeat), COLMAP, "frozen_poses", "1 frames have the pose of the frame"),
    "repeated": (images(repeat), COLMAP, "repeated_images", "1 frames show the picture"),
    "turned": (images(turn_around), COLMAP, "turned_images", "images turned against their poses"),
    "exposure": (images(darken), COLMAP, "exposure", "the exposure jumps at 1 frames"),
    "blur": (images(blur), COLMAP, "blur", "1 frames are much less sharp"),
    "unit": (scale_up, COLMAP, "large_unit", "looks like millimetres"),
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
    checked = scene.check(images(blur)(good, COLMAP), COLMAP)
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
