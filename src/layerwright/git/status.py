"""What of the work tree is not in HEAD, found out by a git of its own while something else is done.

git writes into memory, so it never waits for us and we never wait for it unless asked. Source: git-status(1), "Porcelain Format Version 2".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple

from layerwright.errors import LayerwrightError
from layerwright.git.program import Git, failed
from layerwright.host.run import Process

_WORDS = ("status", "--porcelain=v2", "-z", "--untracked-files=all", "--ignore-submodules=none", "--no-renames", "--no-ahead-behind")
_FIELDS = {b"1": 8, b"2": 9, b"u": 10}  # blanks before the path


class Difference(NamedTuple):
    """One path of the work tree. `inside`: it is a submodule whose own work tree differs from what is checked out there."""

    path: bytes
    inside: bool = False


class Status:
    """One look at the work tree, submodules looked into."""

    def __init__(self, git: Git, inside: Callable[[bytes], Git | None]) -> None:
        """`inside` gives the git of the submodule checked out at a path."""
        self.failure: LayerwrightError | None = None  # why paths() has no answer, if it is not for time
        self._git = git
        self._inside = inside
        self._found: set[bytes] = set()
        self._running: list[tuple[bytes, Process]] = [(b"", git.start(*_WORDS, stdout="memory"))]

    def paths(self, timeout_s: float | None = None) -> tuple[bytes, ...] | None:
        """Paths that differ from HEAD, or are untracked and not ignored, sorted; a submodule at another commit than recorded is one path.

        An untracked repository is one path, ending in "/". None if it is not known within `timeout_s`, or cannot be (then `failure` says why).
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while self._running and self.failure is None:
            prefix, process = self._running[-1]
            code = process.wait(None if until is None else max(0.0, until - time.monotonic()))
            if code is None:
                return None
            self._running.pop()
            with process:
                if code == 0:
                    self._take(prefix, process.output())
                else:
                    self.failure = failed(process.failure(), what="cannot compare the work tree with HEAD", where=self._git.work_tree, mend="see git status")
        return None if self.failure else tuple(sorted(self._found))

    def _take(self, prefix: bytes, output: bytes) -> None:
        for difference in parse_status(output):
            path = prefix + difference.path
            git = self._inside(path) if difference.inside else None
            if git is None:
                self._found.add(path)
            else:
                self._running.append((path + b"/", git.start(*_WORDS, stdout="memory")))

    def close(self) -> None:
        for _, process in self._running:
            process.close()
        self._running.clear()

    def __enter__(self) -> Status:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def parse_status(output: bytes) -> Iterator[Difference]:
    """`git status --porcelain=v2 -z`, headers and ignored files left out."""
    records = iter(output.split(b"\0"))
    for record in records:
        kind = record[:1]
        if kind == b"?":
            yield Difference(record[2:])
        elif kind in _FIELDS:
            fields = record.split(b" ", _FIELDS[kind])
            submodule = fields[2]  # b"N...", or b"S" and C (commit), M (modified), U (untracked)
            if submodule.startswith(b"S") and submodule[2:] != b"..":
                yield Difference(fields[-1], inside=True)
            if not submodule.startswith(b"S") or submodule[2:] == b".." or submodule[1:2] == b"C":
                yield Difference(fields[-1])
            if kind == b"2":
                yield Difference(next(records))  # renamed: the path it had


def submodule_git(parent: Git) -> Callable[[bytes], Git | None]:
    """The git of the work tree at a path below `parent`'s, if there is one."""

    def find(path: bytes) -> Git | None:
        directory = os.path.join(parent.work_tree, os.fsdecode(path))
        dot_git = os.path.join(directory, ".git")
        return Git(dot_git, directory, parent.env, parent.running) if os.path.lexists(dot_git) else None

    return find
