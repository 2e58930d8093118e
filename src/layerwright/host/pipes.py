"""Writing into pipes whose reader may be slow, hang, or not be there yet: a blocked write(2) is begun again after a signal, so nobody could stop it."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

_LOOK_S = 0.05
_WAIT = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC


class PipeWriter:
    """Writes to the pipe `fd`, which becomes non-blocking; calls `check`, which may raise, before each write and while it waits."""

    def __init__(self, fd: int, check: Callable[[], object]) -> None:
        self._fd = fd
        self._check = check
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        os.set_blocking(fd, False)

    def write(self, piece: bytes) -> int:
        """Write all of it. Raises BrokenPipeError, and what `check` raises."""
        rest = memoryview(piece)
        while rest:
            self._check()
            if self._poll.poll(_LOOK_S * 1000):
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    continue
        return len(piece)


@contextmanager
def fifo(path: str, check: Callable[[], object]) -> Iterator[PipeWriter]:
    """A named pipe to write to, once somebody reads it."""
    while True:
        check()
        try:
            fd = os.open(path, _WAIT)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
        time.sleep(_LOOK_S)
    try:
        yield PipeWriter(fd, check)
    finally:
        os.close(fd)


@contextmanager
def stoppable(out: BinaryIO, check: Callable[[], object]) -> Iterator[BinaryIO | PipeWriter]:
    """`out`, or where it is a pipe a way into the same pipe that can be stopped.

    Opened anew, since whether a descriptor blocks is shared with all who have it (fcntl(2), F_SETFL): our caller's, and the shell's.
    """
    if (fd := _opened_anew(out)) is None:
        yield out
        return
    try:
        yield PipeWriter(fd, check)
    finally:
        os.close(fd)


def _opened_anew(out: BinaryIO) -> int | None:
    try:
        fd = out.fileno()
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return None
        out.flush()
        return os.open(f"/proc/self/fd/{fd}", _WAIT)
    except (OSError, ValueError, AttributeError):
        return None  # a stream in memory, no /proc, another user's pipe
