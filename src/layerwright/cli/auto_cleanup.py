"""The clean-up that runs by itself after a build, when the store is over its limit. In this process, and never for long: see docs/decisions/0009."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layerwright.errors import Cancelled, LayerwrightError, UsageError

if TYPE_CHECKING:
    from layerwright.cleanup.clean_up import CleanUp
    from layerwright.cleanup.limit import Limit
    from layerwright.cli.render import Renderer

_TICK_NS = 20_000_000  # by so much a file's time may lag behind the clock
BUDGET_S = 5.0  # what is not done by then, the next build goes on with


class _OutOfTime(Exception):
    pass


@contextmanager
def cleaned_up_after(options: dict[str, Any], renderer: Renderer) -> Iterator[None]:
    """Around all that uses the store. After it, however it ended, the store is brought below its limit; what goes wrong there is a warning.

    Not after a usage error or a stop: then somebody waits for the prompt. Raises UsageError for a wrong limit, before anything is done.
    """
    if options["disable_auto_host_cleanup"]:
        yield
        return
    from layerwright.cli.limits_of_store import limit_of

    limit = limit_of(options)
    began_ns = time.time_ns() - _TICK_NS
    try:
        yield
    except (Cancelled, UsageError):
        raise
    except LayerwrightError:
        _clean_up_if_due(limit, options, renderer, began_ns)  # a full disk is what a build may have failed for
        raise
    _clean_up_if_due(limit, options, renderer, began_ns)


def _clean_up_if_due(limit: Limit, options: dict[str, Any], renderer: Renderer, began_ns: int) -> None:
    """What was used since `began_ns` stays: nobody wants to build what he has just built."""
    from layerwright.storage.paths import default_home

    home = options.get("home") or default_home(os.environ)
    try:
        found = os.statvfs(home)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        volume = used + found.f_bavail * found.f_frsize
        if limit.is_percent and used * 100 <= limit.allowed * volume:
            return
        _clean_up(home, limit, used, volume, renderer, options, began_ns)
    except _OutOfTime:
        _warn(renderer, f"the store is too large to be looked through in {BUDGET_S:.0f} s after a build; run: layerwright host cleanup")
    except (LayerwrightError, OSError) as error:
        if not isinstance(error, FileNotFoundError):
            _warn(renderer, f"the store was not cleaned up: {error}")


def _clean_up(home: str, limit: Limit, used: int, volume: int, renderer: Renderer, options: dict[str, Any], began_ns: int) -> None:
    from layerwright.build.own_store import open_store
    from layerwright.cleanup.due import MEMO, decode_looked, is_due

    with open_store(home, os.environ) as store:
        looked = decode_looked(store.memo_get(MEMO))
        if not is_due(limit, looked, volume_bytes=volume, used_bytes=used, now_ms=time.time_ns() // 1_000_000):
            return
        from layerwright.build.hands import hands_of
        from layerwright.cleanup.clean_up import LOCK, clean_up, note_looked

        until = time.monotonic() + BUDGET_S

        def check() -> None:
            if time.monotonic() > until:
                raise _OutOfTime

        try:
            with hands_of(store) as hands, store.lock(LOCK, cancelled=lambda: True):
                done = clean_up(store, limit, hands, now_ns=time.time_ns(), keep_since_ns=began_ns, stop=lambda: time.monotonic() > until, check=check)
                note_looked(store, done, now_ms=time.time_ns() // 1_000_000)
        except Cancelled:
            return  # another clean-up runs
    _tell(done, renderer, options)


def _tell(done: CleanUp, renderer: Renderer, options: dict[str, Any]) -> None:
    from layerwright.cli.shown import size_text

    if done.over and done.short_bytes and not done.swept.stopped:
        what = "the volume" if done.limit.is_percent else "the store"
        text = (
            f"{what} is over the limit by {size_text(done.short_bytes)}, and nothing more may go; `layerwright host cleanup --dry-run --log-verbose` says why"
        )
        _warn(renderer, text)
    if options["quiet"] or not done.swept.dropped:
        return
    if options["log_format"] == "json":
        from layerwright.cli.json_log import host_cleanup_text

        line = host_cleanup_text(freed_bytes=done.freed_bytes, removed=len(done.swept.dropped), short_bytes=done.short_bytes)
    else:
        rest = "; the rest goes after the next build, or with `layerwright host cleanup`" if done.swept.stopped else ""
        line = f"Host clean-up: {size_text(done.freed_bytes)} freed{rest}"
    import click

    click.echo(line, err=True)


def _warn(renderer: Renderer, text: str) -> None:
    from layerwright.build.events import Warned

    renderer(Warned(text=text))
