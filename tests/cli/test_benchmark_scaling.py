"""The benchmark of scaling: cases, tables, and one small case for real."""

import json
import subprocess

import pytest

from lgs_jax import __main__
from lgs_jax.cli import benchmark_scaling


def options(text):
    return benchmark_scaling._parser().parse_args(text.split())


def result(what, devices, scenes, step_s, target=None, **mesh):
    row = {"kind": "all-reduce", "axes": "data", "count": 3, "sent_bytes": 2e6, "bounded": True}
    return {
        "what": what,
        "target": target or str(devices),
        "devices": devices,
        "processes": 1,
        "scenes": scenes,
        "step_s": step_s,
        "cpu_step_s": 2 * (step_s or 0),
        "sent_bytes": 2e6,
        "mesh_shape": {"data": devices, "fsdp": 1} | mesh,
        "state_bytes": 4e6,
        "flops_of_compiler": 1e9,
        "communication": [row],
    }


def test_cases_grow_with_the_devices_or_do_not():
    made = list(
        benchmark_scaling.cases(
            options("--devices 1 4 --processes 2 --compile 8 v5e-16 --axes data view --scenes 3")
        )
    )
    assert [(c["what"], c["target"], c["scenes"]) for c in made] == [
        ("weak", "1", 3),
        ("weak", "4", 12),
        ("strong", "1", 12),
        ("strong", "4", 12),
        ("processes", "2", 6),
        ("compiled, data", "8", 24),
        ("compiled, view", "8", 6),
        ("compiled, data", "v5e-16", 48),
        ("compiled, view", "v5e-16", 12),
    ]
    assert made[6]["mesh"] == {"view": 4}
    assert [c["steps"] for c in made[-4:]] == [0] * 4


def test_tables_say_time_per_scene_and_what_is_sent(tmp_path, capsys, monkeypatch):
    fake = {"weak": result("weak", 1, 1, 0.1), "strong": result("strong", 1, 1, 0.2)}

    def measured(case):
        return fake.get(case["what"], result(case["what"], 8, 8, None, "v5e-8")) | case

    monkeypatch.setattr(benchmark_scaling, "in_processes", measured)
    arguments = "--devices 1 --processes --compile v5e-8 --axes data"
    monkeypatch.setenv("HOME", str(tmp_path))
    files = ["--json=~/out.json", "--plot=~/out.png"]
    assert __main__.main(["benchmark", "scaling", *arguments.split(), *files]) == 0
    text = capsys.readouterr().out
    assert "100.0     100.0    1.00    200.0    1.00     2.00" in text
    assert "all-reduce over data 2.00 (3)" in text
    assert "8      4.00    1.000      2.00  all-reduce" in text
    assert len(json.loads((tmp_path / "out.json").read_text())["cases"]) == 3
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_no_operations_are_told_where_the_compiler_counts_none():
    """As that for GPUs."""
    case = result("compiled", 8, 8, None, "h100-8") | {"flops_of_compiler": None}
    line = benchmark_scaling._compiled_table([case]).splitlines()[1]
    assert line.split()[:6] == ["h100-8", "data", "8", "8", "4.00", "2.00"]


def test_a_case_that_fails_is_told(capsys, monkeypatch):
    class Failed:
        returncode = 1

        def __init__(self, *arguments, **options):
            assert options["env"]["JAX_NUM_CPU_DEVICES"] == "2"

        def communicate(self):
            return "", "Traceback ...\nSettingsError: no such thing\n"

    monkeypatch.setattr(subprocess, "Popen", Failed)
    assert __main__.main(["benchmark", "scaling", "--devices", "2"]) == 1
    assert "weak on 2 failed: SettingsError: no such thing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_case_is_measured():
    case = {"what": "weak", "target": "1", "mesh": {}, "scenes": 1, "widths": [4, 8], "views": 2}
    found = benchmark_scaling.run_case(case | {"steps": 2, "processes": 1})
    assert len(found["seconds"]) == 2
    assert found["communication"] == []
    assert found["matmul_flops_over_devices"] > 0
