"""Splats fitted under several readings of the poses tell which one is right."""

import dataclasses

import numpy as np
import pytest

from lgs_jax.data import pipeline, poses
from lgs_jax.data.checks.conventions import FileConvention
from lgs_jax.inference import pose_fit

COLMAP = FileConvention(cam_from_world=True)


@pytest.fixture(scope="module")
def example():
    settings = pipeline.DataSettings(
        source="procedural",
        num_scenes=3,
        num_frames=16,
        height=48,
        width=48,
        context_views=2,
        target_views=1,
    )
    found = pipeline.make_source(settings, "train")[2]
    found.images.prefetch(range(16))
    return found


def test_inverse_poses_are_found_out_and_good_ones_confirmed(example, monkeypatch):
    likely = pose_fit._likely
    few = ("as_given", "inverted", "opengl_axes")
    monkeypatch.setattr(pose_fit, "_likely", lambda r: [x for x in likely(r) if x.kind in few])
    monkeypatch.setattr(pose_fit, "_STEPS", 20)
    monkeypatch.setattr(pose_fit, "_SIZE", 32)
    assert pose_fit.faults(example, COLMAP) == []
    inverse = dataclasses.replace(example, world_from_cam=poses.invert(example.world_from_cam))
    (fault,) = pose_fit.faults(inverse, COLMAP)
    assert (fault.kind, fault.level) == ("inverted", "fault")
    assert "render held-out views at" in fault.says


def test_mirrored_readings_become_rotations(example):
    readings = pose_fit._likely(pose_fit.conventions.readings(example.world_from_cam, COLMAP))
    kinds = [reading.kind for reading in readings]
    assert kinds[0] == "as_given"
    assert kinds.count("mirrored") == 3
    frames = np.arange(7)
    for reading in readings:
        cameras = pose_fit._cameras(reading, frames, example.intrinsics[frames], frames[::2])
        np.testing.assert_allclose(
            np.linalg.det(np.asarray(cameras.world_from_cam)[:, :3, :3]), 1.0, atol=1e-5
        )


def test_few_frames_are_not_judged(example):
    short = dataclasses.replace(
        example,
        world_from_cam=example.world_from_cam[:3],
        frame_names=example.frame_names[:3],
    )
    assert [fault.kind for fault in pose_fit.faults(short, COLMAP)] == ["not_tested"]
