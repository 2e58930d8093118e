"""The size of the caller's terminal, passed on to the one that a runtime made for a container.

The kernel tells of a new size only the processes of the terminal's own session, and neither worker nor runtime is one. crun 1.8 sets no size at all.
"""

from __future__ import annotations

import os
import signal
import struct
import termios
from contextlib import suppress
from fcntl import ioctl

_NO_SIZE = struct.pack("4H", 0, 0, 0, 0)


def size_of(terminal: int) -> bytes:
    """As the kernel has it (struct winsize); nothing for a file that is no terminal."""
    try:
        return ioctl(terminal, termios.TIOCGWINSZ, _NO_SIZE)
    except OSError:
        return b""


class SizeKeeper:
    """Gives the container's terminal the size of ours whenever `look` finds a new one."""

    def __init__(self, terminal: int, runtime: int, pid_file: str) -> None:
        """`runtime` is the pid of the runtime, which writes that of the container's first process to `pid_file`."""
        self._terminal = terminal
        self._runtime = runtime
        self._pid_file = pid_file
        self._given = b""

    def look(self) -> None:
        size = size_of(self._terminal)
        if size and size != self._given and self._give(size):
            self._given = size

    def _give(self, size: bytes) -> bool:
        pid = self._pid()
        if pid is None:
            return False
        for number in range(3):
            with suppress(OSError):
                terminal = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    ioctl(terminal, termios.TIOCSWINSZ, size)
                    return True
                finally:
                    os.close(terminal)
        if self._given:
            os.kill(self._runtime, signal.SIGWINCH)  # a runtime whose containers are no processes of this machine may know what to do
        return True

    def _pid(self) -> int | None:
        try:
            with open(self._pid_file, encoding="ascii") as source:
                return int(source.read())
        except (OSError, ValueError):
            return None  # not started yet
