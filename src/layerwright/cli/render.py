"""What people see of a build: one line for each thing that happened; on a terminal also what is moving now."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from layerwright.build.events import Event, ImageDone, Progress, StageBuilt, StageFailed, StageOutput, StageReused, StageStarted, Warned

if TYPE_CHECKING:
    from layerwright.build.result import BuildResult

_COLOURS = {"good": "\x1b[32m", "work": "\x1b[1m", "bad": "\x1b[31m", "warn": "\x1b[33m", "quiet": "\x1b[2m"}
ROOM_FOR_A_BAR = 80  # columns
WORTH_A_LINE = 1 << 20  # bytes; what is smaller is shown as it moves, and told afterwards only by --log-verbose
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size_bytes: int) -> str:
    """`1.5 MiB`; "?" where the size is not known."""
    if size_bytes < 0:
        return "?"
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 100 else f"{size:.1f} {_UNITS[unit]}"


def colours_wanted(mode: str, out: TextIO, env: Mapping[str, str]) -> bool:
    if mode != "auto":
        return mode == "on"
    return out.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"


class Renderer:
    """Prints the events of one build. `out` takes what happened, `err` warnings and, on a terminal, the line of what is moving."""

    def __init__(self, *, quiet: bool, verbose: bool, color_mode: str, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._quiet, self._verbose = quiet, verbose
        self._colours = colours_wanted(color_mode, self._out, os.environ)
        self._guard = threading.Lock()
        self._live: Any = None
        self._moving: dict[tuple[str, str], Any] = {}
        self._is_terminal = self._err.isatty() and os.environ.get("TERM") != "dumb" and not quiet

    def __call__(self, event: Event) -> None:
        with self._guard:
            self._show(event)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._live is not None:
                self._live.stop()
                self._live = None
        self._out.flush()

    def _show(self, event: Event) -> None:
        match event:
            case StageReused():
                self._line(f"Use previously built image for {_stage(event)}  ({self._sizes(event)})", "good")
            case StageStarted(reason=reason):
                self._line(f"Building stage {_stage(event)}" + (f"  ({reason})" if self._verbose else ""), "work")
            case StageOutput(text=text):
                self._line(f"{_stage(event)} | {_printable(text)}")
            case StageBuilt(seconds=seconds):
                self._line(f"Built stage {_stage(event)}  ({self._sizes(event)}, {seconds:.1f} s)", "good")
            case StageFailed(log=log):
                if self._quiet:
                    for line in log.splitlines():
                        self._print(self._out, f"{_stage(event)} | {_printable(line)}")
                self._print(self._out, self._coloured(f"Failed stage {_stage(event)}", "bad"))
            case Warned(text=text, position=position, image=image):
                place = f"{position}: " if position else f"{image}: " if image else ""
                self._print(self._err, self._coloured(f"Warning: {place}{_printable(text)}", "warn"))
            case Progress():
                self._progress(event)
            case ImageDone():
                pass

    def _sizes(self, event: StageReused | StageBuilt) -> str:
        size = f"size {size_text(event.size_bytes)}, " if event.size_bytes >= 0 else ""
        added = f"+{size_text(event.added_bytes)}, " if event.added_bytes > 0 else ""
        return f"{size}{added}commit {event.commit[:12]}"

    def _line(self, text: str, colour: str = "") -> None:
        if not self._quiet:
            self._print(self._out, self._coloured(text, colour))

    def _coloured(self, text: str, colour: str) -> str:
        return f"{_COLOURS[colour]}{text}\x1b[0m" if colour and self._colours else text

    def _print(self, out: TextIO, text: str) -> None:
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text.from_ansi(text), soft_wrap=True, highlight=False)
            return
        out.write(text + "\n")
        out.flush()

    def _progress(self, event: Progress) -> None:
        if not self._is_terminal:
            if event.finished and event.done >= (1 if self._verbose else WORTH_A_LINE):
                self._line(f"{event.what}  {size_text(event.done)}", "quiet")
            return
        if self._live is None:
            self._live = _live_progress(self._err)
            self._live.start()
        key = (event.image, event.what)
        if key not in self._moving:
            self._moving[key] = self._live.add_task(event.what, total=event.total or None)
        self._live.update(self._moving[key], completed=event.done)
        if event.finished:
            self._live.remove_task(self._moving.pop(key))

    def summary(self, result: BuildResult) -> None:
        """The last lines: what each image is called, and totals."""
        for image in result.images:
            self._line(f"Image {image.name or '~'}  {image.local_name}")
        moved = f", {size_text(result.pulled_bytes)} pulled in {result.requests} requests" if result.requests else ""
        self._line(f"Running time {result.seconds:.2f} seconds  ({result.built} stages built, {result.reused} reused{moved})")


def _stage(event: StageReused | StageStarted | StageOutput | StageBuilt | StageFailed) -> str:
    return f"{event.image or '~'}/{event.stage}"


def _printable(text: str) -> str:
    """Output of commands as it may be shown: colours stay, what moves the cursor or sets the title does not."""
    if text.isprintable():
        return text
    import re

    kept = re.sub(r"\x1b\[(?![0-9;]*m)[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\^_]", "", text)
    return "".join(one for one in kept if one in "\t\x1b" or one.isprintable()).encode("utf-8", "replace").decode()


def _live_progress(err: TextIO) -> Any:
    """One line for each thing that moves, never wider than the terminal: a long name is cut, a narrow terminal has no bar."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    console = Console(file=err)
    name = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    size = DownloadColumn(binary_units=True, table_column=Column(no_wrap=True))
    if console.width < ROOM_FOR_A_BAR:
        return RichProgress(name, size, console=console, transient=True, expand=True)
    speed = TransferSpeedColumn(table_column=Column(no_wrap=True))
    return RichProgress(name, BarColumn(bar_width=24), size, speed, console=console, transient=True, expand=True)
