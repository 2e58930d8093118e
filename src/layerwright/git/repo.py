"""Reads commits of one repository through git's objects; nothing is ever checked out, and the work tree is looked at only for the warning.

`git` itself does the reading (it alone is right for partial clones, sha256, linked work trees), through few processes that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby
from types import TracebackType
from typing import BinaryIO

from layerwright.git.attributes import is_attributes_file, lfs_among, may_filter
from layerwright.git.changes import changed_paths
from layerwright.git.commits import parse_commit
from layerwright.git.discover import discover
from layerwright.git.listing import list_below
from layerwright.git.loose import is_large_loose, open_loose
from layerwright.git.program import GitFailed
from layerwright.git.resolve import locate
from layerwright.git.source import Source
from layerwright.git.status import Status, submodule_git
from layerwright.git.submodules import Submodules
from layerwright.git.trees import DIRECTORY
from layerwright.git.values import EXECUTABLE, FILE, Commit, CommitId, TreeEntry

_LISTS = 8  # listings kept: 50,000 entries weigh about 15 MB
Skip = Callable[[bytes], bool]


class Repo:
    """An open repository, for the length of a `with` block. Safe to use from several threads. `prefix`: the project directory in the work tree."""

    def __init__(self, source: Source, prefix: bytes, head: Commit) -> None:
        self.work_tree = source.work_tree
        self.prefix = prefix
        self._source = source
        self._head = head
        self._submodules = Submodules()
        self._listed: dict[tuple[str, bytes], tuple[TreeEntry, ...]] = {}

    def head(self) -> Commit:
        """The commit that HEAD named when the repository was opened."""
        return self._head

    def find_commit(self, revision: str) -> Commit | None:
        """The commit that an id, tag or branch names here; None if there is none."""
        if "\n" in revision or not revision:
            return None
        answer = self._source.objects.read(revision + "^{commit}")
        return None if answer is None else parse_commit(answer[0].oid, answer[1])

    def has_commit(self, commit: CommitId) -> bool:
        """Whether the commit is here (shallow clones and rebased history lose some), or a partial clone could fetch it."""
        try:
            header = self._source.objects.info(commit)
        except GitFailed:  # a partial clone asked its remote in vain
            return False
        return header is not None and header.type == "commit"

    def list_tree(self, commit: CommitId, scope: bytes = b"", *, skip: Skip | None = None) -> tuple[TreeEntry, ...]:
        """Every file and symlink of the commit, sorted by path, submodules looked into; with `scope` only that path or what is below it.

        A submodule whose path `skip` answers with True is left out, and need not be here. Raises SubmoduleAbsent, GitFailed.
        """
        key = (commit, scope)
        if skip is None and (known := self._listed.get(key)) is not None:
            return known
        listed = list_below(self._submodules, self._source, commit, scope, skip)
        if skip is None:
            while len(self._listed) >= _LISTS:
                self._listed.pop(next(iter(self._listed)), None)
            self._listed[key] = listed
        return listed

    def changed_paths(self, old: CommitId, new: CommitId, *, skip: Skip | None = None) -> tuple[tuple[bytes, TreeEntry | None, TreeEntry | None], ...]:
        """(path, entry at `old`, entry at `new`) of what differs, sorted by path; None where it is absent. Submodules are looked into.

        Raises SubmoduleAbsent (the commit recorded at `old` may be gone: a caller with a recorded state compares lists), GitFailed.
        """
        return changed_paths(self._submodules, self._source, old, new, skip)

    def is_directory(self, commit: CommitId, path: bytes) -> bool | None:
        """True for a directory or submodule, False for a file or symlink, None for nothing; symlinks are not followed."""
        place = locate(self._submodules, self._source, self._source.root(commit), path, follow=False)
        return None if place is None else place.mode == DIRECTORY

    def read_file(self, commit: CommitId, path: bytes) -> bytes | None:
        """The content of a file, `path` relative to the work tree; committed symlinks inside the work tree are followed.

        None if nothing is there, or a directory, or a symlink that is absolute or leads out. Raises UsageError for a loop, SubmoduleAbsent.
        """
        place = locate(self._submodules, self._source, self._source.root(commit), path, follow=True)
        if place is None or place.mode == DIRECTORY:
            return None
        answer = place.source.objects.read(place.oid)
        if answer is None:
            raise place.source.objects.missing(place.oid)
        return answer[1]

    def read_blobs(self, entries: Iterable[TreeEntry]) -> Iterator[tuple[TreeEntry, bytes]]:
        """The entries, in their order, with their contents, each held whole. Raises ObjectMissing."""
        for source, group in groupby(entries, key=self._holder):
            wanted = list(group)
            source.prepare(entry.oid for entry in wanted)
            yield from ((entry, content) for content, entry in zip(source.objects.contents(entry.oid for entry in wanted), wanted, strict=True))

    def open_blob(self, entry: TreeEntry) -> AbstractContextManager[tuple[int, BinaryIO]]:
        """Size and content of one file, never held whole; several threads may each have one open. Raises ObjectMissing."""
        source = self._holder(entry)
        if is_large_loose(source.objects_directory, entry.oid):
            return open_loose(source.objects_directory, entry.oid, source.objects.where)
        return source.objects.open(entry.oid)

    def blob_sizes(self, entries: Iterable[TreeEntry]) -> dict[tuple[bytes, str], int]:
        """(repository, blob id) -> size in bytes. Raises ObjectMissing."""
        wanted = {(entry.repository, entry.oid): entry for entry in entries}
        sizes: dict[tuple[bytes, str], int] = {}
        for source, group in groupby(wanted.values(), key=self._holder):
            asked = list(group)
            source.prepare(entry.oid for entry in asked)
            for entry, size in zip(asked, source.objects.sizes(entry.oid for entry in asked), strict=True):
                sizes[entry.repository, entry.oid] = size
        return sizes

    def _holder(self, entry: TreeEntry) -> Source:
        """Whose objects hold the entry's blob."""
        if not entry.repository:
            return self._source
        known = self._submodules.at.get(entry.repository)
        if known is None:
            locate(self._submodules, self._source, self._source.root(self._head.id), entry.repository, follow=False)
            known = self._submodules.at.get(entry.repository, [self._source])
        if len(known) == 1:
            return known[0]
        return next((source for source in known if source.objects.info(entry.oid) is not None), known[0])

    def lfs_paths(self, commit: CommitId, entries: Iterable[TreeEntry]) -> tuple[bytes, ...]:
        """Paths of those entries that the commit's .gitattributes give to Git LFS, sorted: their blobs are pointers, not the files."""
        by_repository: dict[bytes, list[TreeEntry]] = {}
        for entry in entries:
            by_repository.setdefault(entry.repository, []).append(entry)
        if not by_repository:
            return ()
        listed = self._listed.get((commit, b""))
        if listed is None:  # only the submodules asked about need to be here
            listed = self.list_tree(commit, skip=lambda path: not any(path == one or one.startswith(path + b"/") for one in by_repository))
        attributes = [entry for entry in listed if is_attributes_file(entry.path) and entry.mode in (FILE, EXECUTABLE)]
        found: list[bytes] = []
        for repository, wanted in by_repository.items():
            own = [entry for entry in attributes if entry.repository == repository]
            found += self._lfs_in(wanted, own)
        return tuple(sorted(found))

    def _lfs_in(self, wanted: list[TreeEntry], attributes: list[TreeEntry]) -> list[bytes]:
        """The same within one repository."""
        if not may_filter(content for _, content in self.read_blobs(attributes)):
            return []
        start = len(wanted[0].repository) + 1 if wanted[0].repository else 0
        source = self._holder(wanted[0])
        lfs = lfs_among(
            [entry.path[start:] for entry in wanted],
            [(entry.path[start:], entry.mode, entry.oid) for entry in attributes],
            objects_directory=source.objects_directory,
            sha256=len(wanted[0].oid) == 64,
            env=source.git.env,
        )
        return [wanted[0].repository + b"/" + path for path in lfs] if start else lfs

    def start_status(self) -> Status:
        """Begin to compare the work tree with HEAD; it goes on by itself and holds nobody up."""
        return Status(self._source.git, submodule_git(self._source.git))

    def stop(self) -> None:
        """End what git does for this repository, and what it begins in the block of `going_on`; whoever waits for it gets GitFailed.

        From any thread, or a signal handler.
        """
        self._source.git.running.stop()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """A block that `stop` may stop; before it and after it git works, whatever was stopped."""
        running = self._source.git.running
        running.go_on()
        try:
            yield
        finally:
            running.go_on()

    def close(self) -> None:
        self._submodules.close()
        self._source.close()

    def __enter__(self) -> Repo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_repo(directory: str, *, work_tree: str | None = None, env: Mapping[str, str]) -> Repo:
    """The repository that the project `directory` belongs to; `env` is the environment that git gets, less what would mislead it.

    Raises NoGitWorkTree, ProjectOutsideWorkTree, NoCommit (each a UsageError), MachineLacks, GitFailed.
    """
    found = discover(directory, work_tree, env)
    return Repo(found.source, found.prefix, parse_commit(found.head, found.content))
