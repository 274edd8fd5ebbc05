"""Several sources in one stream: exact shares, whole epochs, and a function of (seed, number)."""

import itertools
import pickle

import numpy as np
import pytest

from lgs_jax.data import mixture, pipeline
from lgs_jax.data.report import DataError


@pytest.fixture(scope="module")
def folders(formats, tmp_path_factory):
    root = tmp_path_factory.mktemp("mix")
    for i in range(3):
        scene = formats.make_dot_scene(num_frames=9, seed=i)
        formats.write_realestate10k(root / "walks", scene, f"clip{i}")
    for i in range(2):
        scene = formats.make_dot_scene(num_frames=7, size=(48, 64), seed=10 + i)
        formats.write_transforms(root / "captures" / f"thing{i}", scene)
    return root


def settings_of(folders, **changes):
    defaults = {
        "source": "realestate10k",
        "root": str(folders / "walks"),
        "height": 24,
        "width": 24,
        "context_views": 2,
        "target_views": 1,
        "holdout": 0.0,
        "gap_min": 4,
        "mix": (
            {
                "source": "transforms",
                "root": str(folders / "captures"),
                "weight": 0.25,
                "gap_min": 1,
                "gap_max": 1,
            },
        ),
    }
    return pipeline.DataSettings(**(defaults | changes))


class Counted:
    """A source of which only the length matters."""

    class_names = ("thing",)

    def __init__(self, count):
        from lgs_jax.data.report import Report

        self.report = Report("counted", scenes_found=count, scenes_kept=count)
        self._count = count

    def __len__(self):
        return self._count


def counted(folders, counts, weights):
    settings = settings_of(folders, mix=())
    return mixture.Mixture(
        [mixture.Part(Counted(c), settings, w) for c, w in zip(counts, weights, strict=True)]
    )


def test_shares_are_exact_and_epochs_whole(folders):
    order = mixture.Order(counted(folders, (7, 30), (3.0, 1.0)), seed=5)
    stream = [order(number) for number in range(4 * mixture.PERIOD)]
    first = [entry for entry in stream if entry[0] < 7]
    second = [entry for entry in stream if entry[0] >= 7]
    assert (len(first), len(second)) == (3000, 1000)
    for entries, count, start in ((first, 7, 0), (second, 30, 7)):
        for epoch, visits in itertools.groupby(entries, key=lambda entry: entry[1]):
            scenes = sorted(scene for scene, _ in visits)
            if epoch < len(entries) // count:
                assert scenes == list(range(start, start + count))


def test_the_order_needs_no_history(folders):
    source = counted(folders, (7, 30), (1.0, 1.0))
    forward = [mixture.Order(source, seed=1)(n) for n in range(2500)]
    assert [mixture.Order(source, seed=1)(n) for n in (2400, 3, 1001)] == [
        forward[n] for n in (2400, 3, 1001)
    ]
    assert forward != [mixture.Order(source, seed=2)(n) for n in range(2500)]


def test_one_source_is_visited_as_without_a_mixture():
    order = mixture.Order(Counted(5), seed=3)
    expected = [
        (int(i), epoch)
        for epoch in range(3)
        for i in np.random.default_rng([0, 3, epoch]).permutation(5)
    ]
    assert [order(n) for n in range(15)] == expected


def test_a_weight_too_small_to_be_met_is_refused(folders):
    with pytest.raises(ValueError, match=r"below 1 / 1000 of all; raise it"):
        mixture.Order(counted(folders, (3, 3), (1.0, 1e-5)), seed=0)


def test_scenes_keep_their_own_settings(folders):
    settings = settings_of(folders)
    source = pipeline.make_source(settings, "train")
    assert [e.key for e in source] == [
        "0/train/clip0", "0/train/clip1", "0/train/clip2", "1/thing0", "1/thing1",
    ]  # fmt: skip
    assert source.report.frames_kept == 3 * 9 + 2 * 7
    assert pickle.loads(pickle.dumps(source))[4].key == "1/thing1"
    batches = pipeline.train_batches(source, settings, seed=0, batch_size=8)
    taken = [next(batches) for _ in range(12)]
    batches.close()
    indices = np.concatenate([batch["scene_index"] for batch in taken])
    assert set(indices) == set(range(5))
    # Cameras of a pair: 0.1 apart per frame, in units of half the pair's distance; so only the
    # number of frames between them, which the settings bound, tells on the rotation.
    turns = np.concatenate([batch["context"]["world_from_cam"][:, 1, 0, 2] for batch in taken])
    gaps = np.abs(turns) / 0.025
    assert gaps[indices < 3].min() > 3.5
    assert gaps[indices >= 3].max() < 1.5


def test_classes_of_all_sources(folders):
    source = counted(folders, (2, 2), (1.0, 1.0))
    assert source.class_names == ("thing", "thing")


def test_faults_name_the_source(formats, folders, tmp_path):
    scene = formats.make_dot_scene(num_frames=2, seed=0)
    formats.write_transforms(tmp_path / "short", scene)
    formats.write_transforms(tmp_path / "long", formats.make_dot_scene(num_frames=7, seed=1))
    settings = settings_of(folders, mix=({"source": "transforms", "root": str(tmp_path)},))
    source = pipeline.make_source(settings, "train")
    assert [finding.scene for finding in source.report.findings] == ["1/short"]
    assert "transforms at" in source.report.source
    strict = settings_of(
        folders, mix=({"source": "transforms", "root": str(tmp_path), "on_bad": "error"},)
    )
    with pytest.raises(DataError, match="scene short"):
        pipeline.make_source(strict, "train")


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"height": 32}, r"data\.mix\[0\] sets 'height', which must be the same for all"),
        ({"mix": ()}, r"data\.mix\[0\] sets 'mix'"),
        ({"soruce": "llff"}, r"unknown key data\.mix\[0\]\.soruce; did you mean 'source'\?$"),
        ({"wieght": 0.5}, r"^unknown key data\.mix\[0\]\.wieght; did you mean 'weight'\?$"),
        ({"zzz": 1}, r"unknown key data\.mix\[0\]\.zzz; known keys: background, beyond, colour"),
        ({"source": "coldmap"}, r"data\.source='coldmap'.*mean 'colmap'"),
        ({"weight": 0.0}, r"data\.weight=0\.0 must be positive"),
    ],
)
def test_wrong_mixtures(folders, mix, message):
    with pytest.raises(ValueError, match=message):
        settings_of(folders, mix=(mix,))
