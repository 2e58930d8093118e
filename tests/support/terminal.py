"""A program in a real terminal: a tmux window of its own server."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.commandline import CommandLine

PATIENCE_S = 30.0


class Terminal:
    """Runs a shell line; when that has ended the screen says `ended with CODE`. A context manager."""

    def __init__(self, directory: Path, line: str, *, width: int = 100, height: int = 40) -> None:
        tmux = shutil.which("tmux")
        if tmux is None:
            pytest.skip("needs tmux")
        self._tmux = (tmux, "-S", str(directory / f"tmux-{os.urandom(4).hex()}.sock"))
        self._run("-f", os.devnull, "new-session", "-d", "-x", str(width), "-y", str(height), f"{line}; echo ended with $?; sleep 60")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def _run(self, *arguments: str) -> str:
        env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        return subprocess.run([*self._tmux, *arguments], check=True, capture_output=True, text=True, env=env).stdout

    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    def coloured(self) -> str:
        """The screen with its colours, and what has scrolled out of it."""
        return self._run("capture-pane", "-p", "-e", "-S", "-")

    def scrolled(self) -> str:
        """The screen and what has scrolled out of it, lines that the terminal wrapped joined again."""
        return self._run("capture-pane", "-p", "-J", "-S", "-")

    def asked(self, what: str) -> str:
        """What tmux knows: `cursor_flag` (1: the cursor is to be seen), `pane_title`, `pane_pid`, `alternate_on`."""
        return self._run("display-message", "-p", f"#{{{what}}}").strip()

    def type(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def until(self, holds: Callable[[str], bool]) -> str:
        """The first screen that `holds` of; fails with the last one seen."""
        seen = ""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            seen = self.screen()
            if holds(seen):
                return seen
            time.sleep(0.05)
        raise AssertionError(f"the terminal never showed it; the last screen was:\n{seen}")

    def ended(self) -> str:
        """The last screen, when the program has ended."""
        return self.until(lambda screen: "ended with" in screen)


def line_of(lw: CommandLine, *arguments: str, prefix: Sequence[str] = ()) -> str:
    """The shell line that runs `layerwright ARGUMENTS` as `lw` does, with a terminal's settings."""
    settings = [f"{name}={value}" for name, value in {**lw.environment(), "TERM": "xterm-256color"}.items()]
    words = ["env", *settings, *prefix, sys.executable, "-m", "layerwright", *arguments]
    return f"cd {shlex.quote(str(lw.directory))} && {shlex.join(words)}"
