"""What a caller says about a build before it starts, and how it stops one. Light: imported on the path where nothing is done."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from layerwright.errors import Cancelled, LayerwrightError

HEALINGS = 20  # each round makes at least one damaged thing again, so more rounds than an image has stages lead nowhere


class Cancel:
    """Set once, from any thread or a signal handler; everything that waits looks at it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._above: Cancel | None = None
        self._called: list[Callable[[], object]] = []

    def set(self) -> None:
        """Ask to stop. It stays set: another build needs another Cancel."""
        self._event.set()
        for call in list(self._called):
            call()

    def is_set(self) -> bool:
        return self._event.is_set() or (self._above is not None and self._above.is_set())

    def below(self) -> Cancel:
        """One that is set with this one, or by itself: a build that fails stops what it has begun, and not whoever called it."""
        lower = Cancel()
        lower._above = self
        return lower

    @contextmanager
    def calling(self, call: Callable[[], object]) -> Iterator[None]:
        """Have `call` called when this is set while the block runs; maybe by a signal handler. An error that follows from it is Cancelled."""
        self._called.append(call)
        try:
            self.check()
            yield
        except LayerwrightError as error:
            if self.is_set() and not isinstance(error, Cancelled):
                raise Cancelled("stopped on request") from error
            raise
        finally:
            self._called.remove(call)

    def check(self) -> None:
        """Raises Cancelled once set."""
        if self.is_set():
            raise Cancelled("stopped on request")


def default_parallel() -> int:
    return min(5, max(2, os.cpu_count() or 2))


class Introspect(NamedTuple):
    """Which states of stages a build keeps, for somebody to look into: after a failed command, before the commands of a stage that fails, and after
    each of `stages`, "[IMAGE/]STAGE" with patterns of images. No digest depends on it."""

    error: bool = False
    before_error: bool = False
    stages: tuple[str, ...] = ()

    @property
    def wanted(self) -> bool:
        return self.error or self.before_error or bool(self.stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """`network` "" leaves it to each image; `parallel`: images built at once, one where states are kept; `runtime` "" is the first OCI runtime that works here.

    `require_built`: fail instead of building; `custom_tags`: further tags for what is built, with the placeholders of docs/repo.md.
    """

    parallel: int = field(default_factory=default_parallel)
    network: str = ""
    runtime: str = ""
    introspect: Introspect = field(default_factory=Introspect)
    require_built: bool = False
    custom_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What registries were asked for, gave and took, so far."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
