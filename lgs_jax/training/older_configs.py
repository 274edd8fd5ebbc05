"""Configurations as earlier versions of this package have stored them, in the words of this one.

What is read of a checkpoint or of a model's file passes through here; no other code knows the older
words.
"""

from collections.abc import Mapping
from typing import Any

_REMATS = {False: "none", True: "full"}


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the values of today; one of today comes back as it is.

    `remat` of `config.model`, and of the arguments for one U-Net in it, was a switch for what is
    called "full" now.
    """
    model = config.get("model")
    return {**config, "model": _named_remat(model)} if model else dict(config)


def _named_remat(group: Mapping[str, Any]) -> dict[str, Any]:
    group = {
        name: _named_remat(value) if isinstance(value, Mapping) else value
        for name, value in group.items()
    }
    if isinstance(found := group.get("remat"), bool):
        group["remat"] = _REMATS[found]
    return group
