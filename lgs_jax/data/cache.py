"""Decoded frames kept in memory."""

import threading
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np


class FrameCache:
    """Keeps images until a bound is reached, then keeps what it has.

    Epochs visit every frame equally often, so evicting would only trade one miss for another.
    A copy in another process starts empty.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._clear()

    def _clear(self) -> None:
        self._bytes = 0
        self._images: dict[Hashable, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._images)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._images

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The image of `key`, made at the first time."""
        image = self._images.get(key)
        if image is None:
            image = make()
            with self._lock:
                if key not in self._images and self._bytes + image.nbytes <= self._max_bytes:
                    self._images[key] = image
                    self._bytes += image.nbytes
        return image

    def __getstate__(self) -> dict[str, Any]:
        return {"max_bytes": self._max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._max_bytes = state["max_bytes"]
        self._clear()
