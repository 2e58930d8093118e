"""Trying again: how often, and after what pause. Source: RFC 9110, "Retry-After"."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from layerwright.errors import Cancelled
from layerwright.registry.errors import RegistryError
from layerwright.registry.options import RegistryOptions

T = TypeVar("T")
TRANSIENT = (408, 429, 500, 502, 503, 504)
_SLICE_S = 0.05


def with_retries(act: Callable[[], T], options: RegistryOptions) -> T:
    """What `act` returns, tried again while its RegistryError says that this is worth it."""
    tried = 0
    while True:
        try:
            return act()
        except RegistryError as error:
            tried += 1
            pause(error, tried, options)


def pause(error: RegistryError, tried: int, options: RegistryOptions) -> None:
    """Wait before the next try, or raise `error` if `tried` tries were enough or the registry asks for more patience than there is."""
    if tried >= error.tries:
        if tried > 1:
            error.what += f" (tried {tried} times)"
        error.tries = 1  # enough for whoever tries around this, too
        raise error
    wait_s = wait_for(tried, error.retry_after_s, options)
    if wait_s > options.longest_wait_s:
        error.mend = f"the registry asks to come back in {wait_s:.0f} seconds: build again then"
        error.tries = 1
        raise error
    sleep(wait_s, options)


def wait_for(tried: int, retry_after_s: float | None, options: RegistryOptions) -> float:
    """Seconds before the next try: what the registry asked for, else doubling, with jitter so that many clients do not come back at once."""
    import random

    if retry_after_s is not None:
        return retry_after_s + random.uniform(0, min(options.first_wait_s, options.longest_wait_s - min(retry_after_s, options.longest_wait_s)))
    return min(options.longest_wait_s, options.first_wait_s * 2.0 ** (tried - 1)) * random.uniform(0.5, 1.0)


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
    if header.strip().isdigit():
        return float(header)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError, IndexError):
        return None
