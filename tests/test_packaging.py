"""An installed package trains too: it holds `configs`, taken where a folder has none of its own."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from lgs_jax import settings
from lgs_jax.cli import flag_parsing, plan
from lgs_jax.inference import experiment

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
BUILT_FROM = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_configurations_of_the_package_are_found_elsewhere(elsewhere, capsys):
    copy = CONFIGS / "vae.py"
    assert settings.packaged("configs/vae.py") == copy
    assert flag_parsing.packaged("configs/vae.py:paper") == f"{copy}:paper"
    assert f"taking that of the package, {copy}" in capsys.readouterr().err
    given = [
        "train",
        "--config=configs/vae.py",
        "--config.seed=1",
        "--config",
        "configs/vae.py:long",
    ]
    assert flag_parsing.with_packaged(given) == [
        "train", f"--config={copy}", "--config.seed=1", "--config", f"{copy}:long"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["configs/none.py", "vae.py", "/configs/vae.py", "", "a/configs"])
def test_other_names_stay_as_they_are(elsewhere, capsys, name):
    assert settings.packaged(name) == name
    assert flag_parsing.with_packaged([f"--config={name}:x", "--config"])[0] == f"--config={name}:x"
    assert capsys.readouterr().err == ""


def test_a_file_here_comes_first(elsewhere):
    (elsewhere / "configs").mkdir()
    assert settings.packaged("configs/vae.py") == CONFIGS / "vae.py"
    (elsewhere / "configs" / "vae.py").touch()
    assert settings.packaged("configs/vae.py") == "configs/vae.py"


# As ml_collections loads configuration files.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_plans_and_experiments_work_elsewhere(elsewhere):
    config = plan.read_config("configs/vae.py:long", ["--config.seed=3"])
    assert (config["training"]["num_steps"], config["seed"]) == (5000, 3)
    assert experiment.load("compression").title == "Compression of the latents"
    with pytest.raises(experiment.ExperimentError, match="configs/experiments has autoencoder, "):
        experiment.load("none")


@pytest.mark.parametrize("name", ["tpu_vm.sh", "gke/Dockerfile"])
def test_what_copies_the_package_copies_all_that_it_is_built_from(name):
    text = (REPOSITORY / "launch" / name).read_text()
    (line,) = [line for line in text.splitlines() if "setup.cfg" in line]
    assert set(BUILT_FROM) <= set(line.split())


@pytest.mark.slow
def test_the_wheel_holds_all_of_it_and_trains(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in BUILT_FROM:
        shutil.copy(REPOSITORY / name, source)
    for name in ("lgs_jax", "configs"):
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, ignore=leave_out)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, source]
    built = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution found for setuptools" in built.stderr:
        pytest.skip("pip cannot get setuptools to build with")
    assert built.returncode == 0, built.stderr
    (path,) = tmp_path.glob("lgs_jax-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        wheel.extractall(installed)
    expected = {f"lgs_jax/{path.relative_to(REPOSITORY)}" for path in CONFIGS.rglob("*.py")}
    package = [path for path in (source / "lgs_jax").rglob("*") if path.is_file()]
    expected |= {str(path.relative_to(source)) for path in package}
    assert names == expected
    # From outside of the repository, up to the first key that the configuration does not know.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lgs_jax import __main__ as front;"
    run += " sys.exit(front.main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, installed, "train", "--config=configs/vae.py"]
    command.append("--config.training.num_stepz=3")
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert f"the package, {installed}/lgs_jax/configs/vae.py" in done.stderr
    assert "num_stepz" in done.stderr
    assert "did you mean 'num_steps'" in done.stderr
