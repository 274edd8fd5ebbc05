"""Flags for captures of the user's, in place of the data that a model was trained on."""

import argparse
from collections.abc import Callable
from typing import Any

from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import model_file

# By flag, which is also the source's name in `DataSettings`.
FORMATS = {
    "transforms": "a transforms.json, or its folder",
    "colmap": "a folder with images and a COLMAP model",
    "llff": "a folder with images and poses_bounds.npy",
    "photos": "a video, or a folder of images without poses",
}


def add_flags(add: Callable[..., Any], what: str) -> None:
    """Adds one flag for each format, with `add_argument` of a group; `what` begins their help."""
    for name, text in FORMATS.items():
        add(f"--{name}", help=f"{what}: {text}")


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The keys of `DataSettings` that differ for the capture asked for; empty where there is none.

    All of its scenes are held out, whole, and nothing else is mixed with them.
    """
    for name in FORMATS:
        if root := getattr(options, name):
            changes: dict[str, Any] = {
                "source": name,
                "root": root,
                "num_scenes": None,
                "holdout": ("*",),
                "drop_frames": "",
                "view_index": "",
                "mix": (),
            }
            if name == "photos":  # which are always read so
                changes |= {"background": "black", "exif": "auto"}
            return changes
    return {}


def check_at_hand(options: argparse.Namespace, data: DataSettings) -> None:
    """Refuses a model's own data that do not come with its file, where no others are given.

    Raises:
      ValueError: that says how to give some.
    """
    if data.root == model_file.ELSEWHERE and not (options.data_root or settings(options)):
        others = " or ".join(f"--{name}" for name in FORMATS)
        raise ValueError(
            f"--model={options.model} comes without the photographs that it was trained on; give "
            f"--data-root=FOLDER where you have such data ({data.source}), or a capture of yours "
            f"({others})"
        )
