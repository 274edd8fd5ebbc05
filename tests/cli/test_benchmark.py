"""The benchmark of the rasterizer and the dispatch of commands."""

import json
import sys

import numpy as np
import pytest

from lgs_jax import __main__
from lgs_jax.cli import benchmark_rasterizer
from lgs_jax.rendering.splat import dispatch


def test_commands_are_listed_and_unknown_ones_refused(capsys):
    assert __main__.main(["bench"]) == 2
    assert "benchmark" in capsys.readouterr().err
    assert __main__.main(["--help"]) == 0
    assert "benchmark" in capsys.readouterr().out
    assert "benchmark-rasterizer" not in __main__.commands()


def test_a_small_benchmark_prints_json(capsys):
    arguments = "benchmark rasterizer --scenes rand16k --resolutions 16 --repeats 1 --json"
    assert __main__.main([*arguments.split(), "--no-scaling"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["case"] == "rand16k-16"
    assert result["entries"] > 16384
    assert result["entries_per_splat"] == result["entries"] / 16384
    assert result["slots_per_splat"] >= result["entries_per_splat"]
    assert 0 < result["forward_ms"] <= result["forward_median_ms"]


def test_two_implementations_side_by_side(capsys):
    arguments = "benchmark rasterizer --compare reference --cases tiny --repeats 1 --json"
    assert __main__.main(arguments.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["case"] == "tiny"
    assert result["forward_ratio"] > 0
    assert result["gradient_rival_ms"] > 0
    assert result["image_difference"] < 1e-5
    assert result["gradient_difference"] < 1e-4


def test_a_rival_that_cannot_run_is_said(capsys, monkeypatch):
    from lgs_jax.cli import benchmark_rivals

    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(benchmark_rivals.RivalError, match="needs torch with CUDA and gsplat"):
        benchmark_rivals.Gsplat()
    with pytest.raises(benchmark_rivals.RivalError, match="there is no implementation 'cuda'"):
        benchmark_rivals.Ours("cuda")
    assert __main__.main(["benchmark", "rasterizer", "--compare", "cuda", "--cases", "tiny"]) == 1
    assert "error: cuda: there is no implementation" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main(["benchmark", "rasterizer", "--compare", "xla", "--depth"])
    assert "--depth: no effect with --compare" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main(["benchmark", "rasterizer", "--compile", "v5e", "--compare", "xla"])
    assert "--compare: no effect with --compile" in capsys.readouterr().err


def test_slots_are_those_of_the_implementation_that_draws(monkeypatch):
    scene, entries = benchmark_rasterizer.random_scene(4096, 0)[0], np.array([5000])
    slots = {}
    for name in (*dispatch.PLANS, "reference"):
        monkeypatch.setenv(dispatch.ENVIRONMENT, name)
        slots[name] = benchmark_rasterizer._slots(entries, scene, 64)
    assert slots == {"xla": 32768, "pallas_gpu": 16384, "pallas_tpu": 8192, "reference": 0}
    assert benchmark_rasterizer._slots(entries, scene, 64, implementation="xla") == 32768


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "arguments are required: what\n"),
        ("rasterizer --repeats 0", "--repeats, --resolutions and --tile-size must be at least 1"),
        ("rasterizer --resolutions -5", "must be at least 1"),
        ("rasterizer --tile-size -1", "must be at least 1"),
        ("rasterizer --compare xla --repeats 0", "must be at least 1"),
        ("rasterizer --cases tiny", "--compare=RIVAL or --compile=TPU"),
        ("rasterizer --compare xla --no-scaling", "--no-scaling: no effect with --compare"),
        ("data --seconds 0", "--seconds=0.0 must be above 0"),
        ("data --seconds nan", "--seconds=nan must be above 0"),
    ],
)
def test_what_makes_no_sense_is_said(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        __main__.main(["benchmark", *arguments.split()])
    assert message in capsys.readouterr().err


def test_an_implementation_that_there_is_not(capsys):
    arguments = "rasterizer --implementation bogus --scenes rand16k --resolutions 8"
    assert __main__.main(["benchmark", *arguments.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "'bogus' must be" in error


def test_scenes_face_the_camera():
    for scene, pose in (
        benchmark_rasterizer.random_scene(100, 0),
        benchmark_rasterizer.pixel_aligned_scene(2, 8, 0),
    ):
        local = (np.asarray(scene.means) - pose[:3, 3]) @ pose[:3, :3]
        assert (local[:, 2] > 1).all()
        assert np.mean(np.abs(local[:, :2]) < 0.6 * local[:, 2:]) > 0.8


def test_growth_is_printed_as_an_exponent(capsys, monkeypatch):
    """Times that follow known powers of Gaussians and views, instead of measured ones."""

    def measure(scene, cameras, size, **options):
        images = max(1, int(np.prod(cameras.batch_shape)))
        power = scene.means.shape[-2] * images
        return {"forward_ms": 3e-3 * power, "gradient_ms": 1e-3 * power**1.5}

    monkeypatch.setattr(benchmark_rasterizer, "measure", measure)
    benchmark_rasterizer.main(["--scenes", "--json"])
    *cases, gaussians, views = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(cases) == 6
    for growth, quantity in ((gaussians, "gaussians"), (views, "views")):
        assert growth["exponent"] == quantity
        np.testing.assert_allclose([growth["forward_ms"], growth["gradient_ms"]], [1, 1.5])


def test_the_loader_is_measured(capsys):
    arguments = "benchmark data --workers 0 1 --seconds 0.2 --size 24 --batch-size 2 --json"
    assert __main__.main([*arguments.split(), "--context-views=2", "--target-views=1"]) == 0
    stages, *rates = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(stages["stages_us"]) == {"open scene", "decode", "crop and resize"}
    assert [rate["workers"] for rate in rates] == [0, 1]
    assert all(rate["views_per_second"] > 0 for rate in rates)


def test_the_loader_needs_data(capsys, tmp_path):
    assert __main__.main(["benchmark", "data", f"--root={tmp_path}"]) == 1
    assert "holds no packed data" in capsys.readouterr().err
