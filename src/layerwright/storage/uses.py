"""What running processes use of the store, so that a clean-up takes nothing of it.

A process that finds or writes something has a directory `work/<random>/`, locked while it lives. In it, the file `uses` holds a line with its
process id and the time it began, and then a line for each thing that it is about to use: noted first, looked at afterwards. A note is written
under the shared lock of the store's gate; a clean-up reads the notes and moves things away under the exclusive one, a few at a time. So whoever
looks after its note was written finds the thing whole, and keeps it; or finds it gone, which is a miss. See docs/decisions/0009.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from layerwright.errors import MachineLacks
from layerwright.host import locks
from layerwright.storage.paths import StorePaths
from layerwright.storage.work import USES, WorkArea

_TOUCHED_EVERY_NS = 3600 * 1_000_000_000  # by one process; a file's time is written no more often
CLOCK_SLACK_NS = 1_000_000_000  # by so much, to be sure, a file may be younger than its times say
_TICK_NS = 20_000_000  # by so much a file's time may lag behind the clock
_PATIENCE_S = 10.0  # for a clean-up that holds the gate; it does so for milliseconds, unless it was stopped there


class User(NamedTuple):
    """A running process: `names` as it noted them. `pid` 0 and `began_ns` 0 where it could not say."""

    path: str
    pid: int
    began_ns: int
    names: frozenset[str]


def record_use(kind: str, digest: str) -> str:
    return f"record {kind} {digest}"


def layer_use(diff_id: str) -> str:
    return f"layer {diff_id}"


def blob_use(digest: str) -> str:
    """For a blob that nothing names yet; who cleans up looks for the digest among layers and blobs."""
    return layer_use(digest)


def path_use(path: str) -> str:
    """For what has only a path in the store: an image under its reference, a build_dir mount."""
    return f"path {path}"


class Uses:
    """The notes of one process. Thread-safe."""

    def __init__(self, paths: StorePaths, area: WorkArea) -> None:
        self._paths = paths
        self._area = area
        self._guard = threading.Lock()
        self._scratch = ""
        self._noted: set[str] = set()
        self._gate_fd: int | None = None
        self._opened_ns = time.time_ns()

    def add(self, *names: str) -> None:
        """Note that this process uses things; they stay from now on. What is gone already the caller sees when it looks, afterwards.

        Where no note can be written, on a full disk say, the gate stays held instead: then nothing at all is removed while this process lives.
        """
        with self._guard:
            new = [name for name in names if name not in self._noted]
            if not new or self._gate_fd is not None:
                return
            try:
                gate_fd = locks.enter_gate(self._paths.gate, shared=True, patience_s=_PATIENCE_S)
            except (OSError, MachineLacks):
                return  # a store that this user only reads, or without locks: nothing can be promised
            try:
                self._write(new)
            except (OSError, MachineLacks):
                self._gate_fd = gate_fd
                return
            if gate_fd is not None:
                locks.release(gate_fd)

    def touch(self, path: str) -> bool:
        """Let the file's modification time, the time of its last use, be now; False if it is not there. Once for each process, and hour."""
        try:
            used_ns = os.stat(path).st_mtime_ns
            if used_ns < max(self._opened_ns - _TICK_NS, time.time_ns() - _TOUCHED_EVERY_NS):
                os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # a store that this user only reads
        return True

    def close(self) -> None:
        with self._guard:
            gate_fd, self._gate_fd = self._gate_fd, None
            self._noted.clear()
        if gate_fd is not None:
            locks.release(gate_fd)

    def _write(self, names: list[str]) -> None:
        scratch = self._area.scratch()
        if scratch != self._scratch:
            self._scratch = scratch
            self._noted.clear()
        content = "".join(f"{name}\n" for name in names).encode()
        fd = os.open(os.path.join(scratch, USES), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            if os.write(fd, content) != len(content):
                raise OSError("the note was cut short")
        finally:
            os.close(fd)
        self._noted.update(names)

    # For who cleans up.

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """In the block no process notes anything; keep it short, since they wait. False if the lock could not be had."""
        gate_fd = locks.enter_gate(self._paths.gate, shared=False, patience_s=_PATIENCE_S)
        try:
            yield gate_fd is not None
        finally:
            if gate_fd is not None:
                locks.release(gate_fd)

    def others(self) -> tuple[User, ...]:
        """Every other process that is alive, and what it uses. A directory of a build that is not its owner's first says nothing."""
        found = []
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._paths.work)):
                path = os.path.join(self._paths.work, name)
                if path not in self._area.own and not _is_dead(path):
                    found.append(_read(path))
        return tuple(found)


def _is_dead(path: str) -> bool:
    try:
        return not os.path.isdir(path) or locks.is_free(path)
    except OSError:
        return False


def _read(path: str) -> User:
    try:
        with open(os.path.join(path, USES), encoding="utf-8", errors="replace") as file:
            first, *names = file.read().splitlines() or [""]
        pid, began_ns = (int(word) for word in first.split())
    except (OSError, ValueError):
        return User(path=path, pid=0, began_ns=0, names=frozenset())
    return User(path=path, pid=pid, began_ns=began_ns, names=frozenset(names))
