"""What was moved over the network for each stage of each image."""

from __future__ import annotations

import threading
from typing import Literal, NamedTuple

from layerwright.build.at_work import image_at_work, stage_at_work


class Moved(NamedTuple):
    """Bytes from registries, and to them."""

    down: int = 0
    up: int = 0


class Ledger:
    """Counts for whichever stage the moving thread works on. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._moved: dict[tuple[str, str], Moved] = {}

    def moved(self, direction: Literal["in", "out"], size: int) -> None:
        key = image_at_work(), stage_at_work()
        with self._guard:
            so_far = self._moved.get(key, Moved())
            self._moved[key] = Moved(so_far.down + size, so_far.up) if direction == "in" else Moved(so_far.down, so_far.up + size)

    def of(self, image: str, stage: str) -> Moved:
        """For a stage; with stage "" what was moved for the image itself: its manifest, and layers of others."""
        return self._moved.get((image, stage), Moved())
