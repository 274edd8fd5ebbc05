"""The architecture: who may import whom, read from the source of every module."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "lgs_jax"

# Level of every folder and of the modules at the top; an import may go down or stay level.
LEVELS = {
    "core": 0,
    "settings": 0,
    "files": 0,
    "rendering": 1,
    "diffusion": 1,
    "data": 1,
    "nn": 2,
    "vision": 2,
    "models": 3,
    "losses": 3,
    "metrics": 3,
    "tasks": 4,
    "training": 4,
    "inference": 5,
    "cli": 6,
    "main": 6,
    "__main__": 6,
    "__init__": 6,
}

# Folders of one level that must not know each other, one way or both.
APART = [
    ("training", "tasks"),
    ("data", "rendering"),
    ("data", "diffusion"),
    ("rendering", "data"),
    ("rendering", "diffusion"),
    ("diffusion", "rendering"),
    ("diffusion", "data"),
    ("data", "core"),
]

# Third-party packages that some rooms must do without.
FORBIDDEN = {
    "core": ("flax",),
    "rendering": ("flax",),
    "diffusion": ("flax",),
    "data": ("jax", "flax"),
}
ENTRY_POINTS = ("cli", "main", "__main__")
ENTRY_ONLY = ("ml_collections", "absl.flags", "absl.app")


def imported(tree):
    """Dotted names of everything that a module imports, with `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def under(name, package):
    return name == package or name.startswith(package + ".")


def complaints(room, names):
    """What the imports `names` of a module in a room break."""
    for name in names:
        if name.startswith("."):
            yield f"relative import {name}"
        if under(name, "jax._src"):
            yield f"private {name}"
        for package in FORBIDDEN.get(room, ()):
            if under(name, package):
                yield f"{room} must do without {name}"
        if room not in ENTRY_POINTS:
            yield from (f"{name} outside of the entry points" for p in ENTRY_ONLY if under(name, p))
        if under(name, "lgs_jax"):
            target = name.split(".")[1] if "." in name else "__init__"
            # `from lgs_jax import Cameras` reads lgs_jax/__init__.py, which is a top-level name.
            target = target if target in LEVELS else "__init__"
            if name == "lgs_jax" or target == "__init__":
                continue
            if LEVELS[target] > LEVELS[room]:
                yield f"upward import of {name}"
            if (room, target) in APART:
                yield f"{room} must not know {name}"


def modules():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in LEVELS, f"{room} has no level; give it one in LEVELS"
    found = list(complaints(room, imported(ast.parse(path.read_text(), str(path)))))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("room", "source", "complaint"),
    [
        ("core", "from lgs_jax.rendering import api", "upward import"),
        ("training", "import lgs_jax.tasks.vae", "must not know"),
        ("training", "from lgs_jax import tasks", "must not know"),
        ("models", "from lgs_jax.training.mesh import make", "upward import"),
        ("data", "import jax.numpy as jnp", "must do without"),
        ("data", "def f():\n    from lgs_jax.core import cameras", "must not know"),
        ("rendering", "from flax import linen", "must do without"),
        ("tasks", "import ml_collections", "entry points"),
        ("tasks", "from absl import flags", "entry points"),
        ("nn", "from jax._src import core", "private"),
        ("nn", "from jax import _src", "private"),
        ("nn", "from . import blocks", "relative"),
    ],
)
def test_a_breach_is_noticed(room, source, complaint):
    found = list(complaints(room, imported(ast.parse(source))))
    assert any(complaint in text for text in found), found


def test_what_is_allowed_passes():
    source = (
        "import jax\nfrom lgs_jax.core import rays\nfrom lgs_jax.metrics.mean import Mean\n"
        "from lgs_jax import settings\nimport lgs_jax\nfrom absl import logging\n"
    )
    assert list(complaints("training", imported(ast.parse(source)))) == []
