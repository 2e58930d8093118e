"""Signs of life where there is no terminal: CI ends a job that says nothing for long. One line for each thing that moves or runs, every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from layerwright.cli.activity import Activity, Row
from layerwright.cli.shown import part_text, size_text, time_text

SILENT_PERIODS = 6  # a stage whose commands print nothing is told of less often than what moves


class Pulse:
    """Calls `say` with lines, every `every_s` seconds, until closed. `activity` is read while `guard` is held."""

    def __init__(self, activity: Activity, guard: threading.RLock, say: Callable[[str], None], every_s: float) -> None:
        self._activity, self._guard, self._say, self._every_s = activity, guard, say, every_s
        self._ended = threading.Event()
        self._silent = 0
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def heard(self) -> None:
        """Something was printed."""
        self._silent = 0

    def close(self) -> None:
        """With the guard held: nothing is said after that."""
        self._ended.set()

    def _beat(self) -> None:
        while not self._ended.wait(self._every_s):
            with self._guard:
                if self._ended.is_set():
                    return
                self._silent += 1
                lines = beat(self._activity.rows(time.monotonic()), time.monotonic(), self._every_s, silent=self._silent >= SILENT_PERIODS)
                for line in lines:
                    self._say(line)
                if lines:
                    self._silent = 0


def beat(rows: list[Row], now: float, every_s: float, *, silent: bool) -> list[str]:
    """What to say now: of each transfer that takes longer than a beat, and where nothing was said for long, of each stage at work."""
    lines = []
    for row in rows:
        moving = row.transfer
        if moving is not None and now - moving.since >= every_s * 0.9:
            amount = size_text(moving.total) if moving.action == "unpack" else part_text(moving.done, moving.total)
            speed = f", {size_text(moving.speed(now))}/s" if moving.action != "unpack" and moving.speed(now) else ""
            what = " ".join(one for one in (moving.action, moving.subject) if one)
            lines.append(f"{f'{row.image}: ' if row.image else ''}{what}  {amount}{speed}, {time_text(now - moving.since)}")
        elif silent and moving is None and row.image:
            place = f"{row.image}/{row.stage}" if row.stage else row.image
            lines.append(f"{place}: at work for {time_text(row.seconds)}")
    return lines
