"""Every wrong key of the data configuration dies at the start and says what to do."""

import pytest

from lgs_jax.data.settings import DataSettings

GOOD = {"source": "realestate10k", "root": "somewhere"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "realstate10k"}, r"data\.source='realstate10k'.*mean 'realestate10k'"),
        ({"selection": "distanse"}, r"data\.selection='distanse'.*mean 'distance'"),
        ({"reference": "last"}, r"data\.reference='last' must be one of 'first', 'middle'"),
        ({"crop": "center"}, r"data\.crop='center'.*did you mean 'centre'"),
        ({"masks": "grey"}, r"data\.masks='grey'"),
        ({"background": "red"}, r"data\.background='red'"),
        ({"exif": "x"}, r"data\.exif='x'"),
        ({"on_bad": "warn"}, r"data\.on_bad='warn' must be one of 'skip', 'error'"),
        ({"verify": "all"}, r"data\.verify='all'"),
        ({"height": 0}, r"data\.height=0 must be a number >= 1"),
        ({"width": 64.5}, r"data\.width=64\.5 must be a whole number"),
        ({"target_views": 0}, r"data\.target_views=0"),
        ({"max_zoom": 0.5}, r"data\.max_zoom=0\.5 must be a number >= 1"),
        ({"num_workers": -1}, r"data\.num_workers=-1"),
        ({"beyond": -0.1}, r"data\.beyond=-0\.1"),
        ({"overlap_min": 0.8, "overlap_max": 0.5}, r"data\.overlap_min=0\.8 and data\.overlap_max"),
        (
            {"view_index": "i.json", "drop_frames": "d.json"},
            r"data\.view_index='i\.json' numbers the frames.*remove it or data\.drop_frames",
        ),
        ({"overlap_min": 0.5}, r"data\.overlap_min and .*no effect with data\.selection='gap'"),
        ({"kind": "roms"}, r"data\.kind='roms'.*did you mean 'rooms'"),
        ({"mix": ({"holdout": "test/*"},)}, r"data\.mix\[0\]\.holdout must be a float.*'test/\*'"),
        ({"mix": ({}, {"flip": "False"})}, r"data\.mix\[1\]\.flip must be a bool, got 'False'"),
        ({"mix": ({"root": 3},)}, r"data\.mix\[0\]\.root must be a str, got 3"),
        ({"colour_jitter": -0.1}, r"data\.colour_jitter=-0\.1 must be a number >= 0"),
        ({"gap_min": 5, "gap_max": 3}, r"data\.gap_max=3 is below data\.gap_min=5; swap them"),
        ({"scale": "camera"}, r"data\.scale='camera'.*did you mean 'cameras'"),
        ({"scale": -1.0}, r"data\.scale=-1\.0 must be positive"),
        ({"context_views": 1}, r"data\.scale='cameras' needs at least 2.*set data\.scale"),
        ({"holdout": 1.0}, r"data\.holdout=1\.0 must be a fraction"),
        ({"masks": "black"}, r"data\.masks='black' needs masks, and source='realestate10k'"),
        ({"max_zoom": 1.5}, r"data\.max_zoom=1\.5 has no effect.*set data\.crop='random'"),
        ({"root": ""}, r"data\.root is empty; set it to the folder"),
        ({"source": "procedural", "root": ""}, r"data\.num_scenes is not set"),
        (
            {"source": "procedural", "num_scenes": 3},
            r"data\.root, data\.drop_frames and data\.view_index have no effect on procedural",
        ),
        (
            {"source": "procedural", "root": "", "num_scenes": 3, "num_frames": 5},
            r"data\.num_frames=5 is too few.*need 12; raise it",
        ),
        (
            {"source": "procedural", "root": "", "num_scenes": 3, "holdout": ("a",)},
            r"data\.holdout must be a fraction for procedural",
        ),
    ],
)
def test_messages(values, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(**(GOOD | values))


def test_a_misspelt_key_is_refused():
    with pytest.raises(TypeError, match="heigth"):
        DataSettings(**GOOD, heigth=3)


def test_good_settings_and_their_plan():
    settings = DataSettings(**GOOD, context_views=4, gap_max=9, holdout=["a", "b"], scale=2)
    assert settings.holdout == ("a", "b")
    assert hash(settings) == hash(
        DataSettings(**GOOD, context_views=4, gap_max=9, holdout=("a", "b"), scale=2)
    )
    assert settings.plan.frames_needed == 10
    assert settings.plan.gap_max == 9
