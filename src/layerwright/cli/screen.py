"""A terminal with finished lines that scroll, and below them a few that are drawn again and again. Loaded on a terminal only.

One frame is one write, at most ten a second, between the marks of synchronized output, which terminals that do not know them pass over: nothing flickers.
The cursor stands at the start of the last live line, hidden, so that a terminal that wraps lines anew when it is made narrower takes it along.
Source: xterm's ctlseqs; https://gist.github.com/christianparpart/d8a62cc1ab659194337d73e399004036 (synchronized output).
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from typing import TextIO

from rich.cells import cell_len

FRAME_S = 0.1
AT_ONCE = 500  # finished lines that wait for the next frame at most
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"

Draw = Callable[[int, int], list[str]]


class Screen:
    """Shows `draw(width, height)` below what is printed, until closed. Starts one thread; `guard` is held whenever anything is drawn."""

    def __init__(self, out: TextIO, draw: Draw, guard: threading.RLock, *, width: int = 0) -> None:
        self._out, self._draw, self._fixed_width = out, draw, width
        self._fd = out.fileno()
        self._guard = guard
        self._pending: list[str] = []
        self._drawn: list[str] = []  # the live lines on the terminal
        self._drawn_width = 0
        self._ended = threading.Event()
        self._open = True
        out.flush()
        self._write(_HIDE)
        threading.Thread(target=self._paint_on, name="screen", daemon=True).start()

    def print(self, text: str) -> None:
        """Add a finished line; it is on the terminal with the next frame."""
        with self._guard:
            self._pending.append(text)
            if len(self._pending) >= AT_ONCE or not self._open:
                self._paint()

    def close(self) -> None:
        """Take the live lines away, and give the cursor back."""
        self._ended.set()
        with self._guard:
            if self._open:
                self._open = False
                self._paint()
                self._write(_SHOW)

    def restore(self) -> None:
        """Give the cursor back at once, from a signal handler: this process is about to end."""
        self._open = False
        try:
            os.write(self._fd, f"\r{_CLEAR_BELOW}{_END}{_SHOW}".encode())
        except OSError:
            pass

    def _paint_on(self) -> None:
        while not self._ended.wait(FRAME_S):
            with self._guard:
                if self._open:
                    self._paint()

    def _paint(self) -> None:
        width, height = self._size()
        live = self._draw(width, height) if self._open else []
        if self._open and not self._pending and (live, width) == (self._drawn, self._drawn_width):
            return
        frame = [self._to_top(width)]
        if self._pending or not self._open or len(live) < len(self._drawn):
            frame.append(_CLEAR_BELOW)
        frame += [f"{text}\r\n" for text in self._pending]
        frame.append("\r\n".join(f"{line}{_CLEAR_LINE}" for line in live) + "\r")
        self._pending.clear()
        self._drawn, self._drawn_width = live, width
        self._write(f"{_BEGIN}{''.join(frame)}{_END}")

    def _to_top(self, width: int) -> str:
        """To the start of the first live line, however the terminal has wrapped those above the cursor's since they were drawn."""
        up = sum(max(1, -(-cell_len(_plain(line)) // width)) for line in self._drawn[:-1])
        return f"\r\x1b[{up}A" if up else "\r"

    def _size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._fd)
        except OSError:
            columns, rows = 80, 24
        columns = columns or 80
        return min(self._fixed_width, columns) if self._fixed_width > 0 else columns, rows or 24

    def _write(self, text: str) -> None:
        left = memoryview(text.encode("utf-8", "replace"))
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except OSError as error:
                if error.errno != errno.EAGAIN:  # anything else: the terminal is gone, and nobody is left to see it
                    return
                select.select([], [self._fd], [])


def _plain(line: str) -> str:
    if "\x1b" not in line:
        return line
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", line)
