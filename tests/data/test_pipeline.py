"""Batches: a pure function of (seed, step), right cameras after everything, no repetition."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from lgs_jax.data import pipeline
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Example
from lgs_jax.data.report import DataError, Report


class DotSource:
    """Scenes of dots held in memory; `broken` scenes raise when a frame is read."""

    class_names = ("dots",)

    def __init__(self, scenes, broken=()):
        self.report = Report("dots")
        self._scenes = scenes
        self._broken = broken

    def __len__(self):
        return len(self._scenes)

    def __getitem__(self, index):
        scene = self._scenes[index]
        frames = len(scene.world_from_cam)
        pictures = np.stack([scene.image(i) for i in range(frames)])
        return Example(
            key=f"scene{index}",
            images=_Broken(frames) if index in self._broken else pictures,
            world_from_cam=scene.world_from_cam,
            intrinsics=np.tile(scene.intrinsics, (frames, 1)),
            sizes=np.tile(scene.size, (frames, 1)),
            timestamps=np.arange(frames, dtype=float),
            frame_names=tuple(map(str, range(frames))),
            class_label=0,
            class_name="dots",
        ).check()


class _Broken:
    def __init__(self, frames):
        self._frames = frames

    def __len__(self):
        return self._frames

    def __getitem__(self, index):
        raise DataError(f"image {index}.png cannot be decoded")


@pytest.fixture(scope="module")
def scenes(formats):
    return [formats.make_dot_scene(num_frames=9, seed=i) for i in range(5)]


@pytest.fixture(scope="module")
def source(scenes):
    return DotSource(scenes)


SETTINGS = pipeline.DataSettings(
    source="realestate10k",
    root="unused",
    height=40,
    width=40,
    context_views=3,
    target_views=2,
    flip=True,
    crop="random",
    max_zoom=1.1,
    num_threads=2,
)


def take(source, settings=SETTINGS, count=5, **options):
    options = {"seed": 3, "batch_size": 4} | options
    batches = pipeline.train_batches(source, settings, **options)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def flat(batch):
    values = {}
    for name, value in batch.items():
        if isinstance(value, dict):
            values |= {f"{name}/{key}": entry for key, entry in value.items()}
        else:
            values[name] = value
    return values


def assert_same(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_shapes_and_types(source):
    batch = flat(take(source, count=1)[0])
    expected = {
        "context/images": ((4, 3, 40, 40, 3), np.uint8),
        "context/world_from_cam": ((4, 3, 4, 4), np.float32),
        "context/intrinsics": ((4, 3, 4), np.float32),
        "target/images": ((4, 2, 40, 40, 3), np.uint8),
        "target/world_from_cam": ((4, 2, 4, 4), np.float32),
        "target/intrinsics": ((4, 2, 4), np.float32),
        "class_label": ((4,), np.int32),
        "scene_index": ((4,), np.int32),
        "weight": ((4,), np.float32),
        "world_from_scene": ((4, 4, 4), np.float32),
    }
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == expected


@pytest.mark.parametrize("changes", [{"num_threads": 1}, {"num_threads": 8}, {"cache_mb": 0}])
def test_threads_and_cache_change_nothing(source, changes):
    expected = take(source)
    for a, b in zip(expected, take(source, dataclasses.replace(SETTINGS, **changes)), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_processes_change_nothing(source, num_workers):
    expected = take(source, count=4)
    settings = dataclasses.replace(SETTINGS, num_workers=num_workers, num_threads=1)
    for a, b in zip(expected, take(source, settings, count=4), strict=True):
        assert_same(a, b)


def test_draws_are_fixed_and_take_turns(source):
    """Five scenes, K = 2: entry i of epoch e is draw e mod 2 of its scene, whatever the seed."""
    settings = dataclasses.replace(SETTINGS, view_draws=2)
    seen = {}
    for seed in (3, 4):
        for batch in take(source, settings, count=20, seed=seed, batch_size=1):
            case = int(batch["scene_index"][0]), int(batch["draw"][0])
            seen.setdefault(case, []).append(batch)
    assert sorted(seen) == [(i, k) for i in range(5) for k in range(2)]
    for (index, draw), batches in seen.items():
        assert len(batches) == 4
        entry = pipeline.draw_entry(source, settings, index, draw, cache=FrameCache(0))
        for batch in batches:
            assert_same(batch, pipeline.stack([entry]))
    first, second = (flat(seen[0, k][0]) for k in (0, 1))
    assert np.any(first["context/images"] != second["context/images"])
    order = [int(b["draw"][0]) for b in take(source, settings, count=15, batch_size=1)]
    assert order == [0] * 5 + [1] * 5 + [0] * 5


@pytest.mark.parametrize("num_workers", [0, 1])
def test_all_draws_of_some_scenes(source, num_workers):
    settings = dataclasses.replace(SETTINGS, view_draws=2, num_workers=num_workers)
    served = pipeline.scenes_with_all_draws(source, settings, range(1, 4))
    for index, entries in zip(range(1, 4), served, strict=True):
        assert len(entries) == 2
        for draw, entry in enumerate(entries):
            assert_same(
                entry, pipeline.draw_entry(source, settings, index, draw, cache=FrameCache(0))
            )
    served.close()


@pytest.mark.parametrize("host_count", [2, 4])
def test_hosts_get_slices_of_the_same_batch(source, host_count):
    whole = take(source, count=3)
    parts = [
        take(source, count=3, host_index=host, host_count=host_count) for host in range(host_count)
    ]
    for step, batch in enumerate(whole):
        for name, value in flat(batch).items():
            joined = np.concatenate([flat(part[step])[name] for part in parts])
            np.testing.assert_array_equal(joined, value, err_msg=name)


def test_a_later_start_goes_on_where_the_run_stopped(source):
    for a, b in zip(take(source, count=6)[4:], take(source, count=2, start_step=4), strict=True):
        assert_same(a, b)


def test_far_steps_cost_nothing(source):
    assert take(source, count=1, start_step=10**9)[0]["weight"].shape == (4,)


def test_seeds_and_visits_differ(source):
    a, b = take(source, count=5), take(source, count=5, seed=4)
    assert not np.array_equal(a[0]["context"]["images"], b[0]["context"]["images"])
    entries = [
        (int(scene), images.tobytes())
        for batch in a
        for scene, images in zip(batch["scene_index"], batch["context"]["images"], strict=True)
    ]
    assert len(set(entries)) == len(entries)


def test_epochs_visit_each_scene_once_in_changing_orders(source):
    order = np.concatenate([batch["scene_index"] for batch in take(source, count=10)])
    epochs = order.reshape(8, 5)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(5), (8, 1)))
    assert len({tuple(epoch) for epoch in epochs}) > 4


def check_pixels(formats, scenes, batch, tolerance):
    """Dots in the images stand where the batch's own cameras project the scene's points."""
    flipped = 0
    for b, index in enumerate(batch["scene_index"]):
        world_from_scene = batch["world_from_scene"][b].astype(np.float64)
        for group in ("context", "target"):
            views = batch[group]
            for v in range(views["images"].shape[1]):
                dots = formats.find_dots(views["images"][b, v])
                errors = []
                for mirror in (1, -1):
                    points = scenes[index].points * [mirror, 1, 1]
                    scene_from_world = np.linalg.inv(world_from_scene)
                    points = points @ scene_from_world[:3, :3].T + scene_from_world[:3, 3]
                    pose = views["world_from_cam"][b, v].astype(np.float64)
                    seen = (points - pose[:3, 3]) @ pose[:3, :3]
                    k = views["intrinsics"][b, v]
                    pixels = seen[:, :2] / seen[:, 2:] * k[:2] + k[2:]
                    errors.append(np.abs(dots - pixels).max())
                assert min(errors) < tolerance, errors
                flipped += errors[1] < errors[0]
                assert max(errors) > 1  # otherwise the flip would not be told apart
    return flipped


def test_pixels_agree_with_cameras_in_training(formats, scenes, source):
    settings = dataclasses.replace(SETTINGS, reference="middle", cache_mb=1)
    flipped = 0
    for batch in take(source, settings, count=3):
        flipped += check_pixels(formats, scenes, batch, 0.1)
    assert 0 < flipped < 60  # of 60 views


def test_pixels_agree_with_cameras_in_evaluation(formats, scenes, source):
    batches = list(pipeline.eval_batches(source, SETTINGS, batch_size=4, num_scenes=9))
    assert [check_pixels(formats, scenes, batch, 0.1) for batch in batches] == [0, 0]


def test_evaluation_is_fixed_finite_and_padded_with_weight_0(source):
    first, second = (
        list(pipeline.eval_batches(source, SETTINGS, batch_size=4, num_scenes=9)) for _ in range(2)
    )
    assert len(first) == 2
    for a, b in zip(first, second, strict=True):
        assert_same(a, b)
    weights = np.concatenate([batch["weight"] for batch in first])
    scenes = np.concatenate([batch["scene_index"] for batch in first])
    np.testing.assert_array_equal(weights, [1, 1, 1, 1, 1, 0, 0, 0])
    assert sorted(scenes[weights > 0]) == [0, 1, 2, 3, 4]
    few = list(pipeline.eval_batches(source, SETTINGS, batch_size=2, num_scenes=3))
    np.testing.assert_array_equal([batch["weight"] for batch in few], [[1, 1], [1, 0]])


def test_hosts_split_evaluation_batches(source):
    whole = list(pipeline.eval_batches(source, SETTINGS, batch_size=4, num_scenes=9))
    parts = [
        list(
            pipeline.eval_batches(
                source, SETTINGS, batch_size=4, num_scenes=9, host_index=h, host_count=2
            )
        )
        for h in range(2)
    ]
    for step, batch in enumerate(whole):
        for name, value in flat(batch).items():
            joined = np.concatenate([flat(part[step])[name] for part in parts])
            np.testing.assert_array_equal(joined, value, err_msg=name)


def test_unit_of_the_scene_is_the_spread_of_the_context(source):
    batch = take(source, count=1)[0]
    centers = batch["context"]["world_from_cam"][:, :, :3, 3]
    spread = np.linalg.norm(centers - centers.mean(1, keepdims=True), axis=-1).mean(1)
    np.testing.assert_allclose(spread, 1, rtol=1e-5)
    reference = batch["context"]["world_from_cam"][:, 0]
    np.testing.assert_allclose(reference, np.tile(np.eye(4), (4, 1, 1)), atol=1e-6)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_errors_name_the_scene_and_the_file(scenes, num_workers):
    broken = DotSource(scenes, broken=(2,))
    settings = dataclasses.replace(SETTINGS, num_workers=num_workers, num_threads=1)
    with pytest.raises(DataError, match=r"scene scene2: image \d\.png cannot be decoded"):
        take(broken, settings, count=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3, "host_count": 2}, "must be a positive multiple of host_count=2"),
        ({"host_index": 2, "host_count": 2}, "host_index=2"),
        ({"seed": -1}, "must not be negative"),
        ({"start_step": -1}, "must not be negative"),
    ],
)
def test_wrong_arguments(source, options, message):
    with pytest.raises(ValueError, match=message):
        take(source, **options)


def test_cache_is_bounded_and_travels_empty():
    cache = FrameCache(max_bytes=100)
    made = []

    def make():
        made.append(1)
        return np.zeros(40, np.uint8)

    for key in (0, 1, 2, 0, 1, 2):
        cache.get(key, make)
    assert len(cache) == 2
    assert len(made) == 4  # the third is made each time
    copy = pickle.loads(pickle.dumps(cache))
    assert len(copy) == 0
    copy.get(0, make)
    assert len(copy) == 1


def test_colours_change_alike_in_all_views_and_not_in_evaluation(source):
    plain = dataclasses.replace(SETTINGS, flip=False, crop="centre", max_zoom=1.0)
    jittered = dataclasses.replace(plain, colour_jitter=0.3)
    for a, b in zip(take(source, plain), take(source, jittered), strict=True):
        for scene in range(4):
            # Black stays one colour, the same in all views of the scene.
            black = np.concatenate([a[g]["images"][scene] for g in ("context", "target")]) == 0
            after = np.concatenate([b[g]["images"][scene] for g in ("context", "target")])
            assert len(np.unique(after[black.all(axis=-1)])) == 1
        assert np.any(a["context"]["images"] != b["context"]["images"])
        np.testing.assert_array_equal(a["context"]["intrinsics"], b["context"]["intrinsics"])
    fixed = [
        next(iter(pipeline.eval_batches(source, s, batch_size=2, num_scenes=2)))
        for s in (plain, jittered)
    ]
    assert_same(*fixed)


def test_selection_by_overlap_serves(source):
    settings = dataclasses.replace(SETTINGS, selection="overlap", overlap_min=0.8)
    for a, b in zip(take(source, settings), take(source, settings), strict=True):
        assert_same(a, b)
