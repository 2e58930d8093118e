"""What differs between two commits, submodules looked into."""

from __future__ import annotations

from collections.abc import Callable

from layerwright.git.listing import inside, relative
from layerwright.git.source import Source
from layerwright.git.submodules import Submodules
from layerwright.git.trees import RawChange, changed_files
from layerwright.git.values import GITLINK, TreeEntry

Change = tuple[bytes, TreeEntry | None, TreeEntry | None]
Skip = Callable[[bytes], bool] | None


def changed_paths(submodules: Submodules, source: Source, old: str, new: str, skip: Skip) -> tuple[Change, ...]:
    """Sorted by path; see Repo.changed_paths."""
    comparison = _Comparison(submodules, skip)
    comparison.add(source, old, new)
    return comparison.changes()


class _Comparison:
    """Both sides of what differs, by path: a file and the same file in a submodule that took the place of its directory are one path."""

    def __init__(self, submodules: Submodules, skip: Skip) -> None:
        self._submodules = submodules
        self._skip = skip
        self._before: dict[bytes, TreeEntry] = {}
        self._after: dict[bytes, TreeEntry] = {}

    def add(self, source: Source, old: str, new: str) -> None:
        """Compare two commits of one repository."""
        if old == new:
            return
        for raw in changed_files(source.git, source.root(old), source.root(new), below=source.path, repository=source.path, where=source.objects.where):
            if not self._is_one_submodule(source, old, new, raw):
                self._put(self._before, source, old, raw.old)
                self._put(self._after, source, new, raw.new)

    def _is_one_submodule(self, source: Source, old: str, new: str, raw: RawChange) -> bool:
        """Whether the path is a submodule with the same repository at both commits; then it is compared within that."""
        if raw.old is None or raw.new is None or raw.old.mode != GITLINK or raw.new.mode != GITLINK or self._skips(raw.path):
            return False
        path = relative(source, raw.path)
        before = self._submodules.source(source, source.root(old), path, raw.old.oid)
        after = self._submodules.source(source, source.root(new), path, raw.new.oid)
        if before is not after:
            return False
        self.add(after, raw.old.oid, raw.new.oid)
        return True

    def _put(self, side: dict[bytes, TreeEntry], source: Source, commit: str, entry: TreeEntry | None) -> None:
        if entry is None:
            return
        if entry.mode != GITLINK:
            side[entry.path] = entry
        elif not self._skips(entry.path):
            side.update((one.path, one) for one in inside(self._submodules, source, source.root(commit), [entry], self._skip))

    def _skips(self, path: bytes) -> bool:
        return self._skip is not None and self._skip(path)

    def changes(self) -> tuple[Change, ...]:
        paths = sorted(self._before.keys() | self._after.keys())
        return tuple((path, old, new) for path in paths if _state(old := self._before.get(path)) != _state(new := self._after.get(path)))


def _state(entry: TreeEntry | None) -> tuple[int, str] | None:
    return None if entry is None else (entry.mode, entry.oid)
