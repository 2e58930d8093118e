"""What git knows, as values: commits, tree entries, filters, and the change from one state of a mapping to another.

Paths are raw bytes, relative, without a leading slash, separated by "/". Source: gitformat-tree (git ls-tree -r -z).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, NewType

from layerwright.globs import Globs

CommitId = NewType("CommitId", str)  # 40 or 64 hex digits
TreeId = NewType("TreeId", str)
BlobId = NewType("BlobId", str)

FILE, EXECUTABLE, SYMLINK, GITLINK = 0o100644, 0o100755, 0o120000, 0o160000


class TreeEntry(NamedTuple):
    """A file or symlink of a commit, submodules looked into. `repository` is the path of the submodule whose object it is, b"" for this one's."""

    path: bytes
    mode: int  # FILE, EXECUTABLE or SYMLINK
    oid: BlobId
    repository: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """`time_s`: committer time, Unix seconds; `zone_minutes` east of UTC."""

    id: CommitId
    tree: TreeId
    time_s: int
    zone_minutes: int = 0


@dataclass(frozen=True, kw_only=True)
class PathFilter:
    """What a mapping takes of the repository: `base` (b"" is the whole), then globs relative to it.

    Semantics: werf.yaml reference, "Path filters".
    """

    base: bytes = b""
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    @cached_property
    def _include(self) -> Globs:
        return Globs(self.includes)

    @cached_property
    def _exclude(self) -> Globs:
        return Globs(self.excludes)

    def relative(self, path: bytes) -> bytes | None:
        """`path` relative to `base` if it is base or below, else None."""
        if not self.base:
            return path
        if path == self.base:
            return b""
        return path[len(self.base) + 1 :] if path.startswith(self.base + b"/") else None

    def takes(self, path: bytes) -> bool:
        relative = self.relative(path)
        if relative is None:
            return False
        if self.includes and not self._include.match(relative):
            return False
        return not (self.excludes and self._exclude.match(relative))

    def may_take_below(self, directory: bytes) -> bool:
        """Whether a file in `directory` can be among those taken, as far as base and excludes tell."""
        relative = self.relative(directory)
        if relative is None:
            return self.base.startswith(directory + b"/")
        return not (self.excludes and self._exclude.match(relative))


def state_digest(entries: Iterable[tuple[bytes, int, str]]) -> str:
    """64 hex digits that name a mapping's state: SHA-256 over `<mode, octal> <oid> <path>\\0`, the entries sorted by path."""
    total = hashlib.sha256()
    for path, mode, oid in sorted(entries):
        total.update(b"%o %s %s\0" % (mode, oid.encode(), path))
    return total.hexdigest()
