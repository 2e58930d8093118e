"""Locks between threads and processes of one host, as flock(2) on files. They only save work: nothing is right because of one.

The kernel frees a lock when its holder ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from layerwright.errors import Cancelled, MachineLacks
from layerwright.host.files import telling_full, with_parent

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.05


@contextmanager
def hold(path: str, *, cancelled: Callable[[], bool] | None = None, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Be the only one inside a block with this `path`, among threads and processes; the file is gone afterwards.

    `waiting` is called once if another holds it; `cancelled` is asked while waiting, and True raises Cancelled.
    Where the file system has no locks the block runs unlocked. Raises DiskFull, NotWritable.
    """
    fd = _acquire(path, cancelled, waiting)
    try:
        yield
    finally:
        try:
            if is_at(fd, path):
                os.unlink(path)
        except OSError:
            pass  # a lock file left behind is only litter: the next holder uses it
        finally:
            release(fd)


def _acquire(path: str, cancelled: Callable[[], bool] | None, waiting: Callable[[], None] | None) -> int:
    wait_s = _FIRST_WAIT_S
    while True:
        with telling_full(path):
            fd = with_parent(path, lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        taken = try_lock(fd)
        if taken is None or (taken and is_at(fd, path)):
            return fd
        os.close(fd)
        if taken:
            continue  # the holder before us unlinked this file: the lock is a new one
        if waiting is not None:
            waiting()
            waiting = None
        if cancelled is not None and cancelled():
            raise Cancelled("stopped while waiting for another process", where=path)
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)


@contextmanager
def hold_directory(path: str, *, cancelled: Callable[[], bool] | None = None) -> Iterator[None]:
    """Be the only one inside a block with this directory, by a lock on itself: nothing is written into it. Raises Cancelled; OSError if it is not there."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    wait_s = _FIRST_WAIT_S
    try:
        while try_lock(fd) is False:
            if cancelled is not None and cancelled():
                raise Cancelled("stopped while waiting for another process", where=path)
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        yield
    finally:
        release(fd)


def enter_gate(path: str, *, shared: bool, patience_s: float) -> int | None:
    """Take the lock of the file `path`, which stays, to be freed with `release`; None if others held it for `patience_s`, or where there are no locks."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    until = time.monotonic() + patience_s
    while True:
        try:
            with telling_full(path):
                fd = with_parent(path, lambda: os.open(path, flags, 0o644))
        except (MachineLacks, OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another user's, or a full disk: a lock needs no writing
        try:
            taken = try_lock(fd, shared=shared)
            if taken and is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if taken is None or time.monotonic() > until:
            return None
        if not taken:
            time.sleep(_FIRST_WAIT_S)


def try_lock(fd: int, *, shared: bool = False) -> bool | None:
    """Take the lock of an open file now: True if taken, False if another holds it, None if the file system has no locks. Many may hold a shared one."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def release(fd: int) -> None:
    """Free the lock even if a forked child still has the file open, and close it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        pass  # a file system without locks
    finally:
        os.close(fd)


def is_free(path: str) -> bool:
    """Whether nobody holds the lock of `path` (a file or a directory); True if it is not there, False where there are no locks."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return try_lock(fd) is True
    finally:
        os.close(fd)


def is_at(fd: int, path: str) -> bool:
    """Whether `fd` is still the file called `path`."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
