"""Trying again: how often, and after what pause. Source: RFC 9110, "Retry-After"."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from layerwright.errors import Cancelled
from layerwright.registry.errors import RegistryError
from layerwright.registry.options import RegistryOptions

T = TypeVar("T")
_SLICE_S = 0.05
_FEW = 3  # tries of what seldom heals


def is_transient(status: int) -> bool:
    """Whether the same request may get another answer soon. 520 to 530 are those of proxies in front of registries."""
    return status in (408, 425, 429) or (500 <= status < 600 and status not in (501, 505))


def few(options: RegistryOptions) -> int:
    """Tries for an answer that is probably final, but need not be: a blob that a registry does not show yet."""
    return min(_FEW, options.attempts)


def with_retries(act: Callable[[], T], options: RegistryOptions) -> T:
    """What `act` returns, tried again while its RegistryError says that this is worth it."""
    tries = Tries(options)
    while True:
        try:
            return act()
        except RegistryError as error:
            tries.failed(error)


class Tries:
    """The tries of one request: how many there were, and since when."""

    def __init__(self, options: RegistryOptions) -> None:
        self._options = options
        self.start_anew()

    def start_anew(self) -> None:
        """Something came of the last try: what fails from now on is another matter."""
        self._failed = 0
        self._since = time.monotonic()

    def begin(self) -> None:
        """A try begins now. The time counts from the first one on, not from whatever was waited for before it."""
        if not self._failed:
            self._since = time.monotonic()

    def failed(self, error: RegistryError) -> None:
        """Wait before the next try, or raise `error`: after enough tries or time, or if the registry asks for more patience than there is."""
        self._failed += 1
        passed_s = time.monotonic() - self._since
        if self._failed >= min(error.tries, self._options.attempts) or passed_s >= self._options.enough_s:
            raise self._counted(error, passed_s)
        wait_s = wait_for(self._failed, error.retry_after_s, self._options)
        if wait_s > self._options.longest_wait_s:
            error.mend = f"the registry asks to come back in {wait_s:.0f} seconds: run it again then (LAYERWRIGHT_REGISTRY_LONGEST_WAIT lets it wait that long)"
            raise self._counted(error, passed_s)
        sleep(wait_s, self._options)

    def _counted(self, error: RegistryError, passed_s: float) -> RegistryError:
        if self._failed > 1 and not error.is_counted:
            error.is_counted = True
            error.what += f" (tried {self._failed} times in {max(1, round(passed_s))} s)"
        error.tries = 1  # enough for whoever tries around this, too
        return error


def wait_for(tried: int, retry_after_s: float | None, options: RegistryOptions) -> float:
    """Seconds before the next try: what the registry asked for, else anything up to a limit that doubles, so that many clients do not come back at once."""
    import random

    if retry_after_s is not None:
        return retry_after_s + random.uniform(0, min(options.first_wait_s, options.longest_wait_s - min(retry_after_s, options.longest_wait_s)))
    return random.uniform(0, min(options.longest_wait_s, options.first_wait_s * 2.0 ** (tried - 1)))


def sleep(seconds: float, options: RegistryOptions) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check_cancelled(options)
        time.sleep(min(left, _SLICE_S) if options.cancelled else left)


def check_cancelled(options: RegistryOptions) -> None:
    if options.cancelled is not None and options.cancelled():
        raise Cancelled("stopped while talking to a registry")


def retry_after_s(header: str) -> float | None:
    """The seconds a Retry-After header names, as a number or as a date; None if it says nothing usable."""
    if header.isascii() and header.strip().isdigit():
        return float(header[:20])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
