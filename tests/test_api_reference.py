"""docs/api.md says what docstrings, settings and commands say today."""

import importlib.util
import pathlib
import sys

import griffe
import pytest

import lgs_jax
from lgs_jax import __main__ as front
from lgs_jax import tasks

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location(
        "make_api_reference", DOCS / "make_api_reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_up_to_date_and_builds_without_warnings(generator, caplog):
    made = generator.make()
    assert [record.getMessage() for record in caplog.records] == []
    assert made == generator.TARGET.read_text(), (
        "docs/api.md is out of date: run python docs/make_api_reference.py"
    )


def test_nothing_public_is_missing(generator):
    text = generator.TARGET.read_text()
    for name in lgs_jax.__all__:
        assert f"### `lgs_jax.{name}`" in text
    for name in front.commands():
        assert f"### `{name}`" in text
    groups = {title.split(",")[0].split(".")[1] for title in generator.SETTINGS}
    read = {group for groups_of_task in tasks.TASKS.values() for group in groups_of_task}
    # Not groups: folders, and what a run records by itself.
    assert read - groups == {"autoencoder", "latents", "latent_stats", "representations"}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Some:\n    size: int = 1\n", "has no docstring"),
        ('class Some:\n    """Text."""\n    size: int = 1\n', "lacks the attribute 'size'"),
        (
            'class Some:\n    """Text.\n\n    Attributes:\n      size: of it.\n      x: of it.\n'
            '    """\n    size: int = 1\n',
            "describes 'x', no field",
        ),
    ],
)
def test_what_is_not_described_is_an_error(generator, tmp_path, code, message):
    (tmp_path / "some_settings.py").write_text(code)
    module = griffe.load("some_settings", search_paths=[str(tmp_path)], docstring_parser="google")
    with pytest.raises(generator.UndocumentedError, match=message):
        generator._settings("config.some", module["Some"], module)
    assert "some_settings" not in sys.modules  # read, not run
