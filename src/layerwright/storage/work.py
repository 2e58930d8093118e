"""Private directories of a running build. Each holds a lock on itself: if the lock is free its owner died, and any process may remove it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from layerwright.host.files import remove_tree, telling_full, with_parent
from layerwright.host.locks import is_at, release, try_lock

USES = "uses"  # in the directory of a process: who it is, and what it uses; see storage.uses
Remove = Callable[[str], tuple[str, ...]]


class Work(NamedTuple):
    """A directory of one build. Hand `lock_fd` to a child that works in `path` (`pass_fds`): the directory then lives as long as the last of both."""

    path: str
    lock_fd: int


class WorkArea:
    """The folder `work/` of a store."""

    def __init__(self, root: str, *, remove: Remove = remove_tree) -> None:
        self._root = root
        self._remove = remove
        self._guard = threading.Lock()
        self._scratch: Work | None = None
        self._swept = False
        self._pid = os.getpid()
        self.own: set[str] = set()  # every directory that was made here

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be ending
            self.close()

    @contextmanager
    def work(self, *, remove: Remove | None = None) -> Iterator[Work]:
        """A new directory, removed after the block; before the first one, those of dead builds are removed.

        `remove` is for a user without root: what is in there may belong to mapped users, and then only the worker can remove it.
        """
        remove = remove or self._remove
        self._sweep_once(remove)
        work = self._make()
        try:
            yield work
        finally:
            with suppress(OSError):  # what cannot be removed now is removed once it can be: a later start tries again
                remove(work.path)
            os.close(work.lock_fd)

    def scratch(self) -> str:
        """Where this store writes its temporary files: one directory for the life of the process, made when first needed."""
        with self._guard:
            if self._scratch is None or self._pid != os.getpid():
                self._scratch, self._pid = self._begun(), os.getpid()
            return self._scratch.path

    def close(self) -> None:
        with self._guard:
            scratch, self._scratch = self._scratch, None
        if scratch is not None and self._pid == os.getpid():
            with suppress(OSError):
                remove_tree(scratch.path)
            release(scratch.lock_fd)

    def sweep(self, remove: Remove | None = None) -> tuple[str, ...]:
        """Remove what dead builds left; return the paths that had to stay: behind a mount point, or not ours to remove."""
        remove = remove or self._remove
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return ()
        left: list[str] = []
        for name in names:
            left += self._sweep_one(os.path.join(self._root, name), remove)
        return tuple(left)

    def _sweep_once(self, remove: Remove) -> None:
        with self._guard:
            swept, self._swept = self._swept, True
        if not swept:
            self.sweep(remove)

    def _sweep_one(self, path: str, remove: Remove) -> tuple[str, ...]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return ()  # gone by now, or nothing that we made
        try:
            return remove(path) if try_lock(fd) is True else ()
        except OSError:
            return (path,)
        finally:
            os.close(fd)

    def _begun(self) -> Work:
        """A new directory that says whose it is, and since when: what is younger may be in the making."""
        began_ns = time.time_ns()
        work = self._make()
        with suppress(OSError), open(os.path.join(work.path, USES), "x", encoding="ascii") as out:
            out.write(f"{os.getpid()} {began_ns}\n")
        return work

    def _make(self) -> Work:
        while True:
            path = os.path.join(self._root, os.urandom(8).hex())
            with telling_full(path):
                with_parent(path, lambda: os.mkdir(path, 0o700))  # noqa: B023  (called at once)
            fd = _lock(path)
            if fd is not None:
                self.own.add(path)
                return Work(path=path, lock_fd=fd)


def _lock(path: str) -> int | None:
    """The locked directory, or None if a sweep took it between its making and this."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if try_lock(fd) is not False and is_at(fd, path):
        return fd
    os.close(fd)
    return None
