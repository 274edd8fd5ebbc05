"""Experiments train each case once, say what came out, and refuse what does not fit."""

import ast
import functools
import json
import os
import pathlib
import sys

import pytest

from lgs_jax import __main__
from lgs_jax.inference import experiment, experiment_costs, experiment_report
from lgs_jax.inference.experiment import Experiment, ExperimentError

STAGES = {
    "vae": {"config": "configs/vae.py", "set": {"training.num_steps": 3}},
    "diffusion": {"config": "configs/diffusion.py"},
}
CASES = {
    "plain": {},
    "H/8": {"vae": {"model.compression": 8}, "diffusion": {"model.compression": 8}},
    "eps": {"diffusion": {"diffusion.kind": "eps"}},
}
COLUMNS = {"dB": "vae:eval/target_psnr", "loss": "diffusion:eval/loss"}


def make(**changes):
    fixed = {
        "title": "T",
        "question": "Q?",
        "stages": STAGES,
        "cases": CASES,
        "columns": COLUMNS,
        "rank": "-loss",
    }
    return Experiment(**fixed | changes)


class Finished:
    """A process that ended well."""

    def poll(self):
        return 0


def as_config(flags):
    """The values of flags as a configuration would hold them in JSON."""
    config = {}
    for flag in flags:
        *groups, name = flag.partition("=")[0].removeprefix("--config.").split(".")
        text = flag.partition("=")[2]
        node = functools.reduce(lambda at, group: at.setdefault(group, {}), groups, config)
        try:
            node[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            node[name] = text
    return json.loads(json.dumps(config))


@pytest.fixture
def trained(monkeypatch):
    """Trainings that write results at once; the flags of each, by workdir."""
    calls = {}

    def start(flags, where, extra, cores):
        assert where not in calls
        if where.name == "diffusion":
            stage_1 = pathlib.Path(flags[2].removeprefix("--config.autoencoder="))
            assert (stage_1 / "results.json").exists()
        calls[where] = [*flags, *extra]
        where.mkdir(parents=True)
        value = float(len(calls))
        results = {"eval": {"target_psnr": value, "loss": value}}
        results["config"] = as_config([*flags, *extra])
        (where / "results.json").write_text(json.dumps(results))
        return Finished()

    monkeypatch.setattr(experiment, "_start", start)
    monkeypatch.setattr(experiment, "_POLL_SECONDS", 0)
    return calls


def test_cases_share_what_they_do_not_change(trained, tmp_path):
    values = experiment.run(make(), tmp_path, extra=["--x=1"], say=lambda text: None)
    places = {str(path.relative_to(tmp_path)) for path in trained}
    assert places == {
        f"{place}/seed{seed}/{stage}"
        for seed in (0, 1)
        for place, stage in (
            *(("shared", "vae"), ("shared", "diffusion"), ("eps", "diffusion")),
            *(("H_8", "vae"), ("H_8", "diffusion")),
        )
    }
    flags = trained[tmp_path / "eps" / "seed1" / "diffusion"]
    assert flags == [
        "--config=configs/diffusion.py",
        "--config.seed=1",
        f"--config.autoencoder={tmp_path / 'shared' / 'seed1' / 'vae'}",
        "--config.diffusion.kind=eps",
        "--x=1",
    ]
    flags = trained[tmp_path / "H_8" / "seed0" / "vae"]
    assert flags[1:4] == [
        "--config.seed=0",
        "--config.training.num_steps=3",
        "--config.model.compression=8",
    ]
    assert list(values) == list(CASES)
    assert [seed["dB"] for seed in values["eps"]] == [seed["dB"] for seed in values["plain"]]
    experiment.run(make(), tmp_path, say=lambda text: None)  # trains nothing again
    only = experiment.run(make(), tmp_path, only=["eps"], say=lambda text: None)
    assert list(only) == ["eps"]


def test_results_of_other_values_are_not_taken_for_these(trained, tmp_path):
    chosen = make(cases={"plain": {}}, seeds=(0,))
    own = ["--config.model.widths=(8, 16)", "--config.model.remat=False"]
    experiment.run(chosen, tmp_path, extra=own, say=lambda text: None)
    same = ["--config.model.widths=(8,16)", "--config.model.remat=false"]
    experiment.run(chosen, tmp_path, extra=same, say=lambda text: None)
    with pytest.raises(ExperimentError, match=r"vae was trained with training.num_steps = 3 and"):
        experiment.run(
            chosen, tmp_path, extra=["--config.training.num_steps=4"], say=lambda text: None
        )
    with pytest.raises(ExperimentError, match=r"remat = False and --config.model.remat=true asks"):
        experiment.run(chosen, tmp_path, extra=["--config.model.remat"], say=lambda text: None)
    other = make(cases={"plain": {"diffusion": {"diffusion.kind": "eps"}}}, seeds=(0,))
    (tmp_path / "plain" / "seed0").mkdir(parents=True)
    (tmp_path / "shared" / "seed0" / "diffusion").rename(tmp_path / "plain/seed0/diffusion")
    with pytest.raises(ExperimentError, match=r"kind = None and --config.diffusion.kind=eps asks"):
        experiment.run(other, tmp_path, say=lambda text: None)


@pytest.mark.parametrize(
    "extra", [["--config.training.num_steps=9"], ["--config.training.num_steps", "9"]]
)
def test_flags_of_the_command_win_when_it_goes_on_too(trained, tmp_path, extra):
    """The example of --help, continued after its first finished stage."""
    chosen = make(cases={"plain": {}}, seeds=(0,))
    trained_with_9 = ["--config.training.num_steps=9"]
    experiment.run(chosen, tmp_path, extra=trained_with_9, say=lambda text: None)
    (tmp_path / "shared" / "seed0" / "diffusion" / "results.json").unlink()
    (tmp_path / "shared" / "seed0" / "diffusion").rmdir()
    del trained[tmp_path / "shared" / "seed0" / "diffusion"]
    experiment.run(chosen, tmp_path, extra=extra, say=lambda text: None)
    assert len(trained) == 2
    with pytest.raises(ExperimentError, match=r"num_steps = 9 and --config\.training\.num_steps=3"):
        experiment.run(chosen, tmp_path, say=lambda text: None)


def test_the_table_says_whether_the_seeds_agree():
    agree = {
        "a": [{"dB": 1.0, "loss": 3.0}, {"dB": 1.0, "loss": 2.0}],
        "b": [{"dB": 2.0, "loss": 1.0}, {"dB": 4.0, "loss": 1.5}],
    }
    table = experiment_report.table(make(), agree)
    assert "| a | 1 | 2.5 ± 0.5 |" in table
    assert "| b | 3 ± 1 | 1.25 ± 0.2 |" in table
    assert "best first: b, a. The same for each of the 2 seeds." in table
    agree["a"][1]["loss"] = 1.0
    assert "disagree about 1 of 1 pairs: b and a. Seeds of" in experiment_report.table(
        make(), agree
    )
    one = {case: seeds[:1] for case, seeds in agree.items()}
    alone = experiment_report.table(make(seeds=(0,)), one)
    assert "Seed 0.\n" in alone
    assert "One seed only" in alone


def test_the_table_compares_with_the_baseline_seed_by_seed():
    values = {
        "plain": [{"dB": 1.0, "loss": 3.0}, {"dB": 1.0, "loss": 2.0}],
        "eps": [{"dB": 2.0, "loss": 1.0}, {"dB": 4.0, "loss": 2.5}],
    }
    lines = experiment_report.table(make(baseline="plain"), values).splitlines()
    assert "| case | dB | loss | loss more than plain |" in lines
    assert "| plain | 1 | 2.5 ± 0.5 |  |" in lines
    assert "| eps | 3 ± 1 | 1.75 ± 0.8 | -2 / +0.5 |" in lines
    alone = experiment_report.table(make(baseline="plain"), {"eps": values["eps"]})
    assert "more than" not in alone  # --only without the baseline


@pytest.mark.parametrize("name", ["sampling_s", "rendering_mb"])
def test_times_are_taken_together_and_memory_where_it_is_missing(
    trained, tmp_path, monkeypatch, name
):
    """Times of two runs would not compare."""
    measured = []

    def measure(models, say):
        measured.append(sorted(models))
        return dict.fromkeys(models, 0.5 + len(measured))

    monkeypatch.setitem(experiment_costs.MEASURES, name, measure)
    monkeypatch.setattr(experiment_costs.scene_model, "load", lambda place: place)
    chosen = make(columns={**COLUMNS, "cost": name})

    def run(*only):
        values = experiment.run(chosen, tmp_path, only=only, say=lambda text: None)
        return {case: [seed["cost"] for seed in seeds] for case, seeds in values.items()}

    assert run("plain", "eps") == {"plain": [1.5, 1.5], "eps": [1.5, 1.5]}
    assert run("eps") == {"eps": [1.5, 1.5]}
    assert measured == [["eps", "plain"]]
    if name in experiment_costs.TIMES:
        assert run() == {case: [2.5, 2.5] for case in CASES}
        assert measured[1:] == [sorted(CASES)]
    else:
        assert run() == {"plain": [1.5, 1.5], "H/8": [2.5, 2.5], "eps": [1.5, 1.5]}
        assert measured[1:] == [["H/8"]]
    assert run()["H/8"] == [2.5, 2.5]  # kept
    assert len(measured) == 2


def test_the_command_writes_table_and_plot(trained, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    path = tmp_path / "mine.py"
    path.write_text(
        "def get_experiment():\n"
        f"    return dict(title='T', question='Q?', stages={STAGES!r}, cases={CASES!r}, "
        f"columns={COLUMNS!r}, rank='dB', plot=('dB', 'loss'))\n"
    )
    folder = tmp_path / "out"
    command = ["experiments", str(path), f"--output={folder}"]
    assert __main__.main([*command, "--seeds", "3", "--", "--y=2"]) == 0
    assert {where.parent.name for where in trained} == {"seed3"}
    assert __main__.main(command) == 0
    assert "--y=2" in next(iter(trained.values()))
    assert "# T" in capsys.readouterr().out
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "values.json").read_text())["seeds"] == [0, 1]


def test_a_training_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment.sys, "executable", "/bin/false")
    with pytest.raises(ExperimentError, match=r"failed with status 1; see .*shared/seed0/vae.log"):
        experiment.run(make(), tmp_path, say=lambda text: None)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Sets what runs in place of each training; it finds its workdir in `where`."""

    def write(text):
        path = tmp_path / "program"
        path.write_text(
            f"#!{sys.executable}\nimport json, os, pathlib, signal, sys, time\n"
            f"where = pathlib.Path(sys.argv[3].removeprefix('--workdir='))\n{text}"
        )
        path.chmod(0o755)
        monkeypatch.setattr(experiment.sys, "executable", str(path))

    return write


two_cores = pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: [])(0)) < 2, reason="needs two cores"
)
SAVES = """
where.mkdir(parents=True)
def save(*_):
    (where / 'saved').write_text('')
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
"""


@two_cores
def test_jobs_run_at_the_same_time_on_cores_of_their_own(tmp_path, program):
    """Each waits for the other, so one after the other they would not come to an end."""
    program(
        "where.mkdir(parents=True)\n"
        "cores = sorted(os.sched_getaffinity(0))\n"
        "(where / 'started').write_text('')\n"
        "while len(list(where.parents[2].glob('*/*/*/started'))) < 2: time.sleep(0.01)\n"
        "(where / 'results.json').write_text(json.dumps({'cores': cores, 'eval': {'x': 1.0}}))\n"
    )
    said = []
    chosen = make(
        stages={"vae": STAGES["vae"]}, cases={"plain": {}}, columns={"x": "vae:eval/x"}, rank="x"
    )
    values = experiment.run(chosen, tmp_path / "out", jobs=2, say=said.append)
    assert values == {"plain": [{"x": 1.0}, {"x": 1.0}]}
    assert [text.partition("]")[0] for text in said] == ["[1 of 2, 0:00:00", "[2 of 2, 0:00:00"]
    results = (tmp_path / "out").glob("*/*/vae/results.json")
    cores = [core for path in results for core in json.loads(path.read_text())["cores"]]
    assert sorted(cores) == sorted(os.sched_getaffinity(0))


@two_cores
def test_a_failure_lets_the_other_training_save(tmp_path, program):
    program(
        f"{SAVES}"
        "(where / 'started').write_text('')\n"
        "while len(list(where.parents[2].glob('*/*/*/started'))) < 2: time.sleep(0.01)\n"
        "if 'seed1' in str(where): sys.exit(3)\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(ExperimentError, match=r"status 3; see .*shared/seed1/vae.log"):
        experiment.run(make(cases={"plain": {}}), tmp_path, jobs=2, say=lambda text: None)
    assert (tmp_path / "shared" / "seed0" / "vae" / "saved").exists()


def test_a_command_that_is_ended_lets_its_training_save(tmp_path, program, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        f"def get_experiment():\n    return dict(title='T', question='Q?', stages={STAGES!r}, "
        f"cases={CASES!r}, columns={COLUMNS!r}, rank='dB')\n"
    )
    program(f"{SAVES}os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)\n")
    folder = tmp_path / "out"
    assert __main__.main(["experiments", str(path), f"--output={folder}"]) == 130
    assert (folder / "shared" / "seed0" / "vae" / "saved").exists()
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": {"a": {"vea": {}}}}, "case 'a' changes the stage 'vea'"),
        ({"rank": "PSNR"}, "'PSNR' is no column; the columns are dB, loss"),
        ({"baseline": "H/9"}, "baseline 'H/9' is no case; the cases are plain, H/8, eps"),
        ({"seeds": (1, 1)}, r"seeds are \[1, 1\]; expected some, each once"),
        ({"columns": {"dB": "fit:eval/x"}, "rank": "dB"}, "column 'dB' is 'fit:eval/x'"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ExperimentError, match=message):
        make(**changes)


def test_missing_experiments_cases_and_columns_are_named(trained, tmp_path, capsys):
    assert __main__.main(["experiments", str(tmp_path / "none.py")]) == 1
    assert "there is no experiment" in capsys.readouterr().err
    (tmp_path / "config.py").write_text("def get_config():\n    return {}\n")
    assert __main__.main(["experiments", str(tmp_path / "config.py")]) == 1
    assert "config.py has no function get_experiment()" in capsys.readouterr().err
    with pytest.raises(ExperimentError, match="no case 'H/9'; the cases are plain, H/8, eps"):
        experiment.run(make(), tmp_path, only=["H/9"])
    for jobs in (0, 999):
        with pytest.raises(ExperimentError, match=f"jobs is {jobs}; expected 1 to"):
            experiment.run(make(), tmp_path, jobs=jobs)
    columns = {"dB": "vae:eval/psnr"}
    with pytest.raises(ExperimentError, match="has no eval/psnr, which column 'dB' asks for"):
        experiment.run(make(columns=columns, rank="dB"), tmp_path, say=lambda text: None)


@pytest.mark.parametrize("path", sorted(experiment.FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_experiments_of_the_repository_fit_together(path):
    assert len(experiment.load(str(path)).cases) > 2
