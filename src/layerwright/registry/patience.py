"""How long one exchange with a server may take, phase by phase. A value with a clock: the sockets ask it, and it says when to stop.

A time limit on single reads is not enough: a server that sends one byte a second would keep a client for days. So a phase that has an end
(connecting, waiting for the headers) has a deadline, and one that moves bytes has a lowest speed besides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

from layerwright.registry.errors import Unreachable
from layerwright.registry.options import RegistryOptions
from layerwright.registry.retry import check_cancelled

Phase = Literal["connect", "send", "answer", "body"]
SLICE_S = 0.1  # a blocked transfer looks up so often: whether it was cancelled, and whether its time is over
_MEND = "run it again; if the network is slow, allow more with LAYERWRIGHT_REGISTRY_TIMEOUT (seconds)"


class Patience:
    """The time one exchange has left. Used by one thread at a time."""

    def __init__(self, url: str, where: str, options: RegistryOptions, *, answer_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self._where = where
        self._options = options
        self._answer_timeout_s = answer_timeout_s
        self._clock = clock
        self._phase: Phase | None = None
        self._phase_until = float("inf")
        self._waited_s = 0.0  # in this window, for the network only: a slow reader of ours is not the server's fault
        self._moved = 0  # bytes in this window

    def begin(self, phase: Phase) -> None:
        """A phase starts, if it is not the present one."""
        if phase == self._phase:
            return
        self._phase = phase
        limits = {"connect": self._options.connect_timeout_s, "answer": self._answer_timeout_s}
        self._phase_until = self._clock() + limits.get(phase, float("inf"))
        self._waited_s, self._moved = 0.0, 0

    def begin_answer(self) -> None:
        """Something is to be read: the headers, unless they are here."""
        if self._phase != "body":
            self.begin("answer")

    def hurry(self, seconds: float) -> None:
        """What is left of the body matters little: no more than `seconds` for all of it."""
        self._phase_until = self._clock() + seconds

    @property
    def left_s(self) -> float:
        """Seconds until this phase has to be over."""
        return self._phase_until - self._clock()

    def check(self, waited_s: float) -> None:
        """Nothing moved for `waited_s` seconds now. Raises Cancelled, and Unreachable if that is too long for this phase."""
        check_cancelled(self._options)
        if self._clock() >= self._phase_until or (self._phase in ("send", "body") and waited_s >= self._options.read_timeout_s):
            raise self._late()

    def moved(self, size: int, waited_s: float) -> None:
        """`size` bytes went or came after `waited_s` seconds of waiting. Raises Cancelled, and Unreachable if this is too late or too slow."""
        self.check(0.0)
        if self._phase in ("connect", "answer"):
            return
        self._moved += size
        self._waited_s += waited_s
        if self._waited_s < self._options.read_timeout_s:
            return
        if self._moved < self._options.lowest_speed * self._waited_s:
            raise self._error(f"{self._moved} bytes in {self._waited_s:.0f} s are too slow", tries=self._options.attempts)
        self._waited_s, self._moved = 0.0, 0

    def _late(self) -> Unreachable:
        options = self._options
        match self._phase:
            case "connect":
                mend = "check that this machine may reach it, or name a proxy (HTTPS_PROXY)"
                return self._error(f"no connection within {options.connect_timeout_s:g} s", tries=2, mend=mend)
            case "answer":
                return self._error(f"it said nothing for {self._answer_timeout_s:g} s", tries=options.attempts)
            case "send":
                return self._error(f"it took nothing for {options.read_timeout_s:g} s while we sent", tries=options.attempts)
        return self._error(f"it said nothing for {options.read_timeout_s:g} s in the middle of its answer", tries=options.attempts)

    def _error(self, why: str, *, tries: int, mend: str = _MEND) -> Unreachable:
        return Unreachable(f"{self._host}: {why}", where=self._where, mend=mend, tries=tries)


class Waits:
    """Which patience the sockets of the present thread go by. A connection outlives an exchange, and is used by one thread after the other."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def current(self) -> Patience | None:
        found: Patience | None = getattr(self._local, "patience", None)
        return found

    @contextmanager
    def going_by(self, patience: Patience) -> Iterator[None]:
        before = self.current
        self._local.patience = patience
        try:
            yield
        finally:
            self._local.patience = before
