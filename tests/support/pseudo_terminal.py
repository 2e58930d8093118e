"""A program on a pseudo terminal of its own, which a test types into: it has a session and a controlling terminal, as in a terminal window."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.machine import find_program

WAIT_S = 30.0


class PseudoTerminal:
    """Runs `argv` until `end`. `shown` is all that came to the terminal, without carriage returns and colours."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], directory: Path, rows: int = 40, columns: int = 120) -> None:
        self._ours, self._theirs = os.openpty()  # theirs stays open here: its settings are looked at when the program has ended
        self.resize(rows, columns)
        self.settings = termios.tcgetattr(self._theirs)
        self._raw = b""
        self._seen = 0
        command = (find_program("setsid"), "--ctty", *argv)
        self.process = subprocess.Popen(command, cwd=directory, env={**env, "TERM": "xterm"}, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    @property
    def shown(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self._raw.decode(errors="replace"))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """What matches, behind what was waited for before; fails the test if it does not come."""
        end = time.monotonic() + WAIT_S
        while (found := re.compile(pattern, re.MULTILINE).search(self.shown, self._seen)) is None:
            has_ended = self.process.poll() is not None
            more = self._read(min(end, time.monotonic() + 0.5))
            assert more or not (has_ended or time.monotonic() > end), f"{pattern!r} did not come; the terminal shows:\n{self.shown}"
        self._seen = found.end()
        return found

    def end(self) -> int:
        """Wait until the program has ended; its exit code."""
        end = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            self._read(time.monotonic() + 0.05)
            assert time.monotonic() < end, f"it does not end; the terminal shows:\n{self.shown}"
        while self._read(time.monotonic()):
            pass
        return self.process.returncode

    def has_settings_of_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.settings

    def hang_up(self) -> None:
        """As when the window is closed."""
        os.close(self._theirs)
        self._theirs = -1
        os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        for fd in (self._ours, self._theirs):
            if fd >= 0:
                os.close(fd)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, until: float) -> bool:
        """Take what comes until `until`; False if nothing did."""
        if not select.select([self._ours], [], [], max(0.0, until - time.monotonic()))[0]:
            return False
        try:
            piece = os.read(self._ours, 1 << 16)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self._raw += piece
        return bool(piece)
