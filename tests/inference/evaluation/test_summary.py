"""Figures of scenes against loops and known distributions."""

import math

import numpy as np
import pytest

from lgs_jax.inference.evaluation import report, summary

GIVEN = np.array([False, True, False])


def records(values, measure="psnr"):
    """One record per scene of values [scenes, K, views]; photographs are 10 less than sample 0."""
    return [
        {
            "samples": [{measure: sample} for sample in scene],
            "photograph": {measure: [value - 10 for value in scene[0]]},
            "scene": {},
        }
        for scene in values.tolist()
    ]


def test_groups_of_views():
    groups = summary.view_groups(GIVEN, 2)
    assert {name: places.tolist() for name, places in groups.items()} == {
        "all": [0, 1, 2, 3, 4],
        "given": [1],
        "context": [0, 2],
        "target": [3, 4],
    }
    assert "context" not in summary.view_groups(np.ones(3, bool), 2)


@pytest.mark.parametrize(("measure", "choose"), [("psnr", max), ("lpips", min)])
def test_the_best_sample_is_taken_by_all_views_and_then_seen_in_each_group(measure, choose):
    values = np.random.default_rng(0).uniform(size=(7, 4, 5))
    groups = summary.view_groups(GIVEN, 2)
    figures = summary.scores(records(values, measure), groups)[measure]
    for group, places in groups.items():
        first = np.mean([np.mean([scene[0][p] for p in places]) for scene in values])
        assert figures[group]["first"]["mean"] == pytest.approx(first, abs=1e-12)
        best = []
        for scene in values:
            chosen = choose(scene.tolist(), key=np.mean)
            best.append(np.mean([chosen[p] for p in places]))
        assert figures[group]["best"]["mean"] == pytest.approx(np.mean(best), abs=1e-12)
    alone = summary.scores(records(values[:, :1], measure), groups)[measure]
    assert set(alone["all"]) == {"first"}


def test_photographs_stand_in_where_none_was_given():
    values = np.random.default_rng(2).uniform(20, 30, size=(5, 1, 5))
    figures = summary.scores(records(values), summary.view_groups(GIVEN, 2))["psnr"]
    assert {group for group, kinds in figures.items() if "photograph" in kinds} == {
        *("context", "target")
    }
    for kinds in (figures["context"], figures["target"]):
        assert kinds["photograph"]["mean"] == pytest.approx(kinds["first"]["mean"] - 10)


def test_intervals_have_the_width_of_the_mean_of_a_normal_distribution():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    found = summary.interval(values)
    wide = 1.96 * values.std() / math.sqrt(400)
    assert found["mean"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - wide, abs=0.1 * wide)
    assert found["high"] == pytest.approx(values.mean() + wide, abs=0.1 * wide)
    assert summary.interval(values) == found
    with_gaps = summary.interval(np.append(values, np.nan))
    assert with_gaps["mean"] == found["mean"]
    assert with_gaps["count"] == 400
    assert math.isnan(summary.interval(np.array([np.nan]))["mean"])


def test_the_gallery_shows_the_best_the_middle_and_the_worst():
    found = records(np.arange(9.0).reshape(9, 1, 1))
    for index, record in enumerate(found):
        record["key"] = f"s{index}"
    groups = summary.view_groups(np.zeros(1, bool), 0)
    assert report.choose(found, groups, 2) == {
        8: "best, 8.0 dB, s8",
        7: "best, 7.0 dB, s7",
        5: "middle, 5.0 dB, s5",
        4: "middle, 4.0 dB, s4",
        1: "worst, 1.0 dB, s1",
        0: "worst, 0.0 dB, s0",
    }
    assert len(report.choose(found[:1], groups, 2)) == 1
    assert report.choose(found, groups, 0) == {}
    for record in found:
        record["samples"] = []
    assert report.choose(found, groups, 1) == {0: "s0", 1: "s1", 2: "s2"}
