"""What a caller says about a build before it starts, and how it stops one. Light: imported on the path where nothing is done."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

from layerwright.errors import Cancelled

HEALINGS = 20  # each round makes at least one damaged thing again, so more rounds than an image has stages lead nowhere


class Cancel:
    """Set once, from any thread or a signal handler; everything that waits looks at it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled once set."""
        if self._event.is_set():
            raise Cancelled("stopped on request")


def default_parallel() -> int:
    return min(5, max(2, os.cpu_count() or 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """`network` "" leaves it to each image; `parallel`: images built at once; `runtime` "" is the first OCI runtime that works here."""

    parallel: int = field(default_factory=default_parallel)
    network: str = ""
    runtime: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What registries were asked for and gave, so far."""

    requests: int = 0
    bytes_in: int = 0
