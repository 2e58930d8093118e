"""Where finished lines go: to files and pipes as they are, or above the live area of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TextIO

if TYPE_CHECKING:
    from layerwright.cli.screen import Screen

_COLOURS = {"good": "\x1b[32m", "work": "\x1b[1m", "bad": "\x1b[31m", "warn": "\x1b[33m", "quiet": "\x1b[2m"}
# Go's way to write a time, as werf has it, and strftime's.
_GO_TIME: tuple[tuple[str, str], ...] = (("2006", "%Y"), ("Z07:00", "%z"), ("-0700", "%z"), ("MST", "%Z"), ("Jan", "%b"), ("Mon", "%a"))
_GO_TIME += (("01", "%m"), ("02", "%d"), ("15", "%H"), ("04", "%M"), ("05", "%S"))
RFC3339 = "2006-01-02T15:04:05Z07:00"


class LogSettings(NamedTuple):
    """What the log options say. `width` 0: the terminal's own; `progress_every_s` 0: never."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    color_mode: str = "auto"
    format: str = "text"
    with_time: bool = False
    time_format: str = RFC3339
    width: int = 0
    folding: str = "auto"
    progress_every_s: float = 10.0


def colours_wanted(mode: str, out: TextIO, env: Mapping[str, str]) -> bool:
    """`on` and `off` are final; else NO_COLOR, then FORCE_COLOR and CLICOLOR_FORCE, then whether `out` is a terminal. Source: no-color.org, force-color.org."""
    if mode != "auto":
        return mode == "on"
    if env.get("NO_COLOR"):
        return False
    if any(env.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return out.isatty() and env.get("TERM") != "dumb"


def time_now(time_format: str) -> str:
    """The local time, as strftime writes it; a format without % is one of Go's."""
    import time

    if "%" not in time_format:
        for go, ours in _GO_TIME:
            time_format = time_format.replace(go, ours)
    zone = time.strftime("%z")
    return time.strftime(time_format.replace("%z", f"{zone[:3]}:{zone[3:]}"))


class Lines:
    """Writes lines to `out`, or to `err` if they are warnings. Each is flushed: who reads a log reads it as it grows."""

    def __init__(self, settings: LogSettings, env: Mapping[str, str], out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self._time_format = settings.time_format if settings.with_time else ""
        self._out_colours = colours_wanted(settings.color_mode, self.out, env)
        self._err_colours = colours_wanted(settings.color_mode, self.err, env)
        self._terminals = {one for one in (self.out, self.err) if one.isatty()}
        self._screen: Screen | None = None

    @property
    def colours(self) -> bool:
        return self._out_colours

    def coloured(self, text: str, colour: str, *, warning: bool = False) -> str:
        wanted = self._err_colours if warning else self._out_colours
        return f"{_COLOURS[colour]}{text}\x1b[0m" if colour and wanted else text

    def line(self, text: str, colour: str = "", *, warning: bool = False) -> None:
        self.raw(self.stamped(self.coloured(text, colour, warning=warning)), warning=warning)

    def stamped(self, text: str) -> str:
        """With the time before it, if that is wanted."""
        return f"{time_now(self._time_format)} {text}" if self._time_format else text

    def raw(self, text: str, *, warning: bool = False) -> None:
        """As it is, without a time."""
        stream = self.err if warning else self.out
        if self._screen is not None and stream in self._terminals:
            self._screen.print(text)
            return
        stream.write(text + "\n")
        stream.flush()

    def above(self, screen: Screen | None) -> None:
        """From now on what goes to a terminal goes above the live area of `screen`; None: there is none any more."""
        self._screen = screen
