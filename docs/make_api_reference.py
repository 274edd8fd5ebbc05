"""Writes docs/api.md from docstrings, settings classes and the commands' options.

    python docs/make_api_reference.py

Docstrings are read with griffe (`pip install -e '.[docs]'`), which does not run the code; the
commands' options are those of their own parsers. A test says when the file is out of date.
"""

import argparse
import contextlib
import importlib
import io
import pathlib
import re
import sys
from typing import Any
from unittest import mock

import griffe

from lgs_jax import __main__ as front

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = pathlib.Path(__file__).with_name("api.md")

# What the name in the reference stands for in the package.
PYTHON = {
    "lgs_jax.load": "inference.scene_model.load",
    "SceneModel": "inference.scene_model.SceneModel",
    "lgs_jax.Gaussians": "core.gaussians.Gaussians",
    "lgs_jax.Cameras": "core.cameras.Cameras",
    "lgs_jax.render": "rendering.api.render",
    "lgs_jax.Rendering": "rendering.output.Rendering",
    "lgs_jax.inference.export.formats.load": "inference.export.formats.load",
    "lgs_jax.inference.export.formats.save": "inference.export.formats.save",
    "lgs_jax.inference.viewer.html.write_html": "inference.viewer.html.write_html",
}
# Groups of a configuration and the classes that say what is in them.
SETTINGS = {
    "config.data": "data.settings.DataSettings",
    "config.model, task vae": "models.autoencoder.Autoencoder",
    "config.model, task diffusion": "models.denoiser.Denoiser",
    "config.model, task pixel_diffusion": "models.pixel_denoiser.PixelDenoiser",
    "config.model, task splat_fit": "tasks.splat_fit.FitSettings",
    "config.model.scene_head, kind gaussians": "models.scene_heads.gaussians.GaussianHead",
    "config.model.scene_head, kind voxels": "models.scene_heads.voxels.VoxelHead",
    "config.model.scene_head, kind triplane": "models.scene_heads.triplane.TriPlaneHead",
    "config.model.scene_head, kind image_planes": "models.scene_heads.image_planes.ImagePlanesHead",
    "config.loss, task vae": "tasks.vae.LossSettings",
    "config.loss, task pixel_diffusion": "tasks.pixel_diffusion.PixelLossSettings",
    "config.metrics": "tasks.view_metrics.MetricSettings",
    "config.diffusion": "tasks.diffusion_settings.DiffusionSettings",
    "config.sampler": "tasks.diffusion_settings.SamplerSettings",
    "config.rendering": "rendering.settings.RenderingSettings",
    "config.optimizer": "training.optimizer.OptimizerSettings",
    "config.training": "training.settings.TrainSettings",
    "config.mesh": "training.mesh.MeshSettings",
}
# Fields that are groups of the configuration, or keys, elsewhere than in their class.
ELSEWHERE = {"config.training": {"seed", "optimizer", "mesh"}}
PARTS_OF = {"benchmark": ("check-data", "data", "rasterizer", "sampling", "scaling")}

_HEAD = """# API reference

Made from docstrings by docs/make_api_reference.py; do not edit. Axes and units:
[conventions.md](conventions.md).
"""
_SETTINGS = """## Settings

A configuration (`configs/*.py`) is made of groups of keys; `--config.data.height=64` changes one.
Each group is a class, which refuses keys that it does not know. Beside the groups: `config.task`
(`vae`, `diffusion`, `pixel_diffusion` or `splat_fit`), `config.seed` (of parameters, data and
noise), and for `diffusion` `config.autoencoder` (workdir of stage 1) and `config.latents` (folder
of latents encoded beforehand, or empty).
"""
_COMMANDS = """## Commands

`python -m lgs_jax COMMAND ...`, also installed as `lgs-jax`. Each has `--help`. Ctrl-C ends a
command with status 130.
"""


class UndocumentedError(Exception):
    """A public name, or a key of the configuration, that no docstring describes."""


def make() -> str:
    """The whole reference, as Markdown.

    Raises:
      UndocumentedError: naming what has no docstring.
    """
    package = griffe.load("lgs_jax", search_paths=[str(ROOT)], docstring_parser="google")
    parts = [_HEAD, "## Python\n"]
    parts += [_python(title, package[path]) for title, path in PYTHON.items()]
    parts.append(_SETTINGS)
    parts += [_settings(title, package[path], package) for title, path in SETTINGS.items()]
    parts.append(_COMMANDS)
    for name in front.commands():
        parts.append(_command(name, name.replace("-", "_")))
        for part in PARTS_OF.get(name, ()):
            parts.append(_command(f"{name} {part}", f"{name}_{part}".replace("-", "_")))
    return "\n".join(parts)


def _python(title: str, item: griffe.Object) -> str:
    """A function, or a class with its methods."""
    if item.is_function:
        return f"### `{title}`\n\n{_function(item, title)}"
    lines = [f"### `{title}`\n", _sections(item, title)]
    for name, member in item.members.items():
        if name.startswith("_") or not (member.is_function or "property" in member.labels):
            continue
        own = f"{title.rpartition('.')[2]}.{name}"
        if member.is_function:
            lines.append(f"#### `{own}`\n\n{_function(member, own)}")
        else:  # a property whose name says all may go without
            told = f"\n{member.docstring.value}\n" if member.docstring else ""
            lines.append(f"#### `{own}` (property: `{member.annotation}`)\n{told}")
    return "\n".join(lines)


def _function(item: griffe.Function, title: str) -> str:
    parameters, starred = [], False
    for parameter in item.parameters:
        if parameter.name == "self":
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not starred:
            parameters.append("*")
            starred = True
        prefix = "**" if parameter.kind is griffe.ParameterKind.var_keyword else ""
        default = "" if prefix or parameter.default is None else f" = {parameter.default}"
        parameters.append(f"{prefix}{parameter.name}: {parameter.annotation}{default}")
    name = title.rpartition(".")[2]
    signature = f"{name}({', '.join(parameters)}) -> {item.returns}"
    if len(signature) > 100:
        inner = "".join(f"    {parameter},\n" for parameter in parameters)
        signature = f"{name}(\n{inner}) -> {item.returns}"
    return f"```python\n{signature}\n```\n\n{_sections(item, title)}"


def _sections(item: griffe.Object, title: str) -> str:
    """A docstring: text, then lists of arguments, attributes, results and errors."""
    if not item.docstring:
        raise UndocumentedError(f"{title} ({item.path}) has no docstring")
    lines = []
    for section in item.docstring.parsed:
        if section.kind is griffe.DocstringSectionKind.text:
            lines.append(section.value + "\n")
            continue
        lines.append(f"{section.kind.value.capitalize()}:\n")
        for entry in section.value:
            name = getattr(entry, "name", "") or str(entry.annotation)
            told = _one_line(entry.description)
            shown = section.kind is not griffe.DocstringSectionKind.returns
            lines.append(f"- `{name}`: {told}" if shown else f"- {told}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _settings(title: str, item: griffe.Class, package: griffe.Module) -> str:
    """A table of the fields of a settings class."""
    if not item.docstring:
        raise UndocumentedError(f"{item.path} has no docstring")
    text = [part.value for part in item.docstring.parsed if part.kind.value == "text"]
    fields, described = _fields(item), _described(item)
    if unknown := sorted(described.keys() - fields.keys()):
        raise UndocumentedError(f"{item.path}: its docstring describes {unknown[0]!r}, no field")
    lines = [f"### {title}\n", f"`{item.path}`. " + "\n\n".join(text) + "\n"]
    lines += ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in fields.items():
        if name not in described:
            raise UndocumentedError(f"{item.path}: its docstring lacks the attribute {name!r}")
        if name in ELSEWHERE.get(title, ()):
            continue
        told = described[name]
        if there := re.fullmatch(r"see `(\w+\.\w+)`\.", told):
            told = _described(package[f"data.{there[1]}"])[name]
        default = "required" if field.value is None else f"`{_default(field.value)}`"
        lines.append(f"| `{name}` | {_cell(default)} | {_cell(told)} |")
    return "\n".join(lines) + "\n"


def _fields(item: griffe.Class) -> dict[str, griffe.Attribute]:
    """Fields of a dataclass or Linen module, inherited ones first: annotated, and no properties."""
    return {
        name: member
        for owner in (*reversed(item.mro()), item)
        for name, member in owner.attributes.items()
        if member.annotation is not None and "property" not in member.labels
    }


def _described(item: griffe.Class) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each field."""
    described = {}
    for owner in (*reversed(item.mro()), item):
        for section in owner.docstring.parsed if owner.docstring else ():
            if section.kind is griffe.DocstringSectionKind.attributes:
                for entry in section.value:
                    described |= dict.fromkeys(_names(entry), entry.description)
    return described


def _names(entry: Any) -> list[str]:
    """The keys of one entry; of `height, width: ...`, griffe takes all but the first for a type."""
    if not entry.name.endswith(","):
        return [entry.name]
    return f"{entry.name} {str(entry.annotation).strip('()')}".split(", ")


def _default(value: Any) -> str:
    """A default as it would be written in a configuration."""
    text = str(value)
    if text.startswith("dataclasses.field(default="):
        return text.removeprefix("dataclasses.field(default=").split(", hash=")[0]
    return text


def _command(name: str, module_name: str) -> str:
    """What a command says of itself, and a table of its options."""
    module = importlib.import_module(f"lgs_jax.cli.{module_name}")
    if not module.__doc__:
        raise UndocumentedError(f"the command {name} has no docstring")
    lines = [f"### `{name}`\n", f"```text\n{module.__doc__.strip()}\n```\n"]
    if parser := _parser(module):
        lines += ["| argument | default | meaning |", "| --- | --- | --- |"]
        lines += [_option(parser, action) for action in parser._actions if action.dest != "help"]
    return "\n".join(lines).rstrip() + "\n"


def _parser(module: Any) -> argparse.ArgumentParser | None:
    """The parser that a command makes; None for one that hands its arguments on."""

    class Made(Exception):
        pass

    def stop(parser: argparse.ArgumentParser, *_: Any) -> None:
        raise Made(parser)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            module.main([])
        except Made as made:
            return made.args[0]
    return None


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    told = (action.help or "") % (vars(action) | {"prog": parser.prog})
    if action.choices is not None:
        told += ("; " if told else "") + "one of " + ", ".join(map(str, action.choices))
    default = action.default
    if action.required and action.option_strings:
        default = "required"
    elif default in (None, "", argparse.SUPPRESS) or action.const is True or default is False:
        default = ""
    elif isinstance(default, list | tuple):
        default = " ".join(map(str, default))
    return f"| `{name}` | {_cell(str(default))} | {_cell(told)} |"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(make())
    print(f"{TARGET}: {TARGET.stat().st_size / 1024:.0f} KiB", file=sys.stderr)
