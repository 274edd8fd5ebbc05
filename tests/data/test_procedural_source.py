"""The procedural source as a whole: determinism, variety, free cameras and sensible pictures."""

import pickle

import numpy as np
import pytest

from lgs_jax.data.sources import procedural
from lgs_jax.data.sources.procedural import layout


def make(**options) -> procedural.ProceduralSource:
    defaults = {"num_scenes": 1000, "num_frames": 12, "height": 32, "width": 48}
    return procedural.ProceduralSource(**{**defaults, **options})


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2)))


def test_example_is_complete():
    source = make()
    example = source[3].check()
    assert example.images[11].shape == (32, 48, 3)
    assert example.images[11].dtype == np.uint8
    assert example.world_from_cam.dtype == np.float64
    assert example.class_name == source.class_names[example.class_label]
    np.testing.assert_array_equal(example.intrinsics[:, 2:], np.tile([24.0, 16.0], (12, 1)))
    assert source.report.findings == []
    assert source.report.scenes_kept == len(source) == 1000
    assert source.report.frames_kept == 12000


def test_same_index_gives_the_same_scene():
    first, second = make(), make()
    second[5].images[0]  # another order of access changes nothing
    a, b = first[17], second[17]
    np.testing.assert_array_equal(a.world_from_cam, b.world_from_cam)
    np.testing.assert_array_equal(a.images[4], b.images[4])
    again = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(a.images[4], again[17].images[4])
    uncached = make(max_cached_scenes=0)
    np.testing.assert_array_equal(a.images[4], uncached[17].images[4])


def test_frames_traced_together_equal_frames_traced_alone():
    together = make()[8].images[[9, 2, 9]]
    alone = make()[8].images
    np.testing.assert_array_equal(together, np.stack([alone[9], alone[2], alone[9]]))
    assert make()[8].images[-1].shape == (32, 48, 3)
    assert len(make()[8].images[:]) == 12


def test_only_what_is_asked_for_is_traced():
    images = make()[0].images
    images.prefetch([5, 3])
    assert sorted(images._traced) == [3, 5]


def test_scenes_differ():
    source = make(height=12, width=12)
    seen = {source[index].images[0].tobytes() for index in range(60)}
    seen |= {
        make(height=12, width=12, seed_offset=1)[index].images[0].tobytes() for index in (0, 1)
    }
    assert len(seen) == 62


def test_kinds_and_classes():
    rooms, objects, mixed = (make(kind=kind) for kind in ("rooms", "objects", "mixed"))
    assert {rooms[i].class_name for i in range(20)} == {"room"}
    names = {objects[i].class_name for i in range(150)}
    assert names == set(layout.CLASS_NAMES[1:])
    share = np.mean([mixed[i].class_name == "room" for i in range(150)])
    assert 0.35 < share < 0.65  # three standard deviations of a fair coin are 0.12


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "room"}, "expected one of mixed, rooms, objects"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"supersample": 0}, "supersample=0"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        make(**options)


def test_index_out_of_range():
    with pytest.raises(IndexError, match="scene 1000"):
        make()[1000]


@pytest.mark.parametrize("num_frames", [1, 2, 12, 40])
@pytest.mark.parametrize("kind", ["rooms", "objects"])
def test_cameras_are_upright_rigid_and_in_free_space(kind, num_frames):
    source = make(kind=kind, num_frames=num_frames)
    for index in range(30):
        scene = source.scene(index)
        rotations = scene.world_from_cam[:, :3, :3]
        centers = scene.world_from_cam[:, :3, 3]
        eye = np.broadcast_to(np.eye(3), rotations.shape)
        np.testing.assert_allclose(rotations.transpose(0, 2, 1) @ rotations, eye, atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(rotations), 1.0, atol=1e-12)
        assert np.all(rotations[:, 2, 0] == 0)  # x stays level: no roll
        assert np.all(rotations[:, 2, 1] < 0)  # y points down
        x, y, z = scene.room_size
        reach = np.array([x / 2, y / 2, z / 2])
        assert np.all(np.abs(centers - (0, 0, z / 2)) < reach - 0.2)
        # Clear of the bounding box of every solid, in the solid's own frame.
        solids = scene.solids
        own = np.einsum("pij,fj->fpi", solids.linear, centers) + solids.shift
        half = 1 / solids.inverse_half.T
        gap = np.maximum(np.abs(own) - 1, 0) * half
        assert np.linalg.norm(gap, axis=-1).min() > 0.1


@pytest.mark.parametrize("kind", ["rooms", "objects"])
def test_pictures_are_well_exposed_and_move(kind):
    source = make(kind=kind, height=32, width=32)
    means, spreads, next_view, far_view = [], [], [], []
    for index in range(24):
        pictures = source[index].images[[4, 5, 6, 11]]
        means.append(pictures.mean() / 255)
        spreads.append(pictures.std() / 255)
        next_view.append(psnr(pictures[0], pictures[1]))
        far_view.append(psnr(pictures[0], pictures[3]))
    assert 0.4 < np.median(means) < 0.62
    assert min(means) > 0.25
    assert max(means) < 0.8
    assert 0.12 < np.median(spreads) < 0.25
    # The next view is no answer to a held-out one, yet it shows the same place.
    assert 14 < np.median(next_view) < 21
    assert np.median(far_view) < np.median(next_view) - 2.5


def test_edges_are_smooth():
    # The traced picture must be close to the mean of many samples per pixel, much closer than one
    # sample per pixel is.
    fine = make(height=32 * 8, width=32 * 8, supersample=1, kind="rooms")
    smooth = make(height=32, width=32, kind="rooms")
    jagged = make(height=32, width=32, supersample=1, kind="rooms")
    with_edges, without = [], []
    for index in range(4):
        reference = fine[index].images[3].reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
        with_edges.append(psnr(smooth[index].images[3], reference))
        without.append(psnr(jagged[index].images[3], reference))
    assert np.mean(with_edges) > np.mean(without) + 4
    assert np.mean(with_edges) > 30
