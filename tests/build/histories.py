"""Projects that exist only in memory: commits as values, a stand-in for git, and a build over a store of the test's own. No base image, no container."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from layerwright.build.bases import Bases
from layerwright.build.cabinet import Cabinet
from layerwright.build.events import Event
from layerwright.build.options import BuildOptions, Cancel, Traffic
from layerwright.build.result import BuildResult
from layerwright.build.run import build
from layerwright.build.session import Session
from layerwright.build.tiers import LocalTier
from layerwright.build.trees import Trees
from layerwright.config.load import load_config
from layerwright.git.values import EXECUTABLE, FILE, SYMLINK, BlobId, Commit, CommitId, TreeEntry, TreeId
from layerwright.oci.platform import Platform
from layerwright.storage.local import LocalStore
from layerwright.storage.records import Record

FIRST_COMMIT_S = 1_700_000_000
PLATFORM = Platform("linux", "amd64")


class Node(NamedTuple):
    """A file or symlink of a commit, without its path."""

    mode: int
    content: bytes


Tree = Mapping[str, Node]


def file(content: str | bytes = "", *, executable: bool = False) -> Node:
    return Node(EXECUTABLE if executable else FILE, content if isinstance(content, bytes) else content.encode())


def link(target: str) -> Node:
    return Node(SYMLINK, target.encode())


class MemoryRepo:
    """What a build asks of `git.repo.Repo`, over commits given as trees; the last one is HEAD."""

    def __init__(self, commits: Sequence[Tree]) -> None:
        self._blobs = {_blob_id(node.content): node.content for tree in commits for node in tree.values()}
        self._trees: dict[str, tuple[TreeEntry, ...]] = {}
        self.commits: list[Commit] = []
        for number, tree in enumerate(commits):
            entries = tuple(sorted(TreeEntry(os.fsencode(path), node.mode, _blob_id(node.content)) for path, node in tree.items()))
            name = hashlib.sha1(repr((number, entries)).encode()).hexdigest()
            self._trees[name] = entries
            self.commits.append(Commit(id=CommitId(name), tree=TreeId(name), time_s=FIRST_COMMIT_S + number))

    def list_tree(self, commit: CommitId, *, skip: object = None) -> tuple[TreeEntry, ...]:
        return self._trees[commit]

    def blob_sizes(self, entries: Iterable[TreeEntry]) -> dict[tuple[bytes, str], int]:
        return {(b"", entry.oid): len(self._blobs[entry.oid]) for entry in entries}

    def read_blobs(self, entries: Iterable[TreeEntry]) -> Iterator[tuple[TreeEntry, bytes]]:
        return ((entry, self._blobs[entry.oid]) for entry in entries)

    def open_blob(self, entry: TreeEntry) -> _Blob:
        return _Blob(self._blobs[entry.oid])

    def lfs_paths(self, commit: CommitId, entries: Iterable[TreeEntry]) -> tuple[bytes, ...]:
        return ()


@dataclass(slots=True)
class _Blob:
    content: bytes

    def __enter__(self) -> tuple[int, BinaryIO]:
        return len(self.content), io.BytesIO(self.content)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


def _blob_id(content: bytes) -> BlobId:
    return BlobId(hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest())


class Shown(NamedTuple):
    """What a container would see at a path; no times."""

    kind: str
    mode: int
    uid: int
    gid: int
    content: str


class Store:
    """A store of its own on a RAM disk where there is one, and builds in it."""

    def __init__(self) -> None:
        shm = "/dev/shm"
        self._directory = tempfile.TemporaryDirectory(prefix="lw-law-", dir=shm if os.access(shm, os.W_OK) else None)
        self.store = LocalStore(str(Path(self._directory.name) / "home"))
        self.events: list[Event] = []

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self._directory.cleanup()

    def build(self, werf: str, repo: MemoryRepo, commit: Commit, names: Sequence[str]) -> BuildResult:
        """Build images of `werf` (the whole text of a werf.yaml) at one commit."""
        self.events = []
        with self._session(werf, repo, commit) as session:
            return build(session, names)

    def root(self, record: Record) -> dict[str, Shown]:
        """The root file system of a finished image, as the indexes of its layers say."""
        view = Cabinet(self.store, _no_registry).stack(record.chain)
        return {os.fsdecode(one.path): Shown(one.kind, one.mode, one.uid, one.gid, one.digest or os.fsdecode(one.link)) for one in view.walk() if one.path}

    @contextmanager
    def _session(self, werf: str, repo: MemoryRepo, commit: Commit) -> Iterator[Session]:
        cabinet = Cabinet(self.store, _no_registry)
        fake: Any = repo
        yield Session(
            repo=fake,
            commit=commit,
            config=load_config({"werf.yaml": werf.encode()}.get),
            platform=PLATFORM,
            platform_forced=False,
            store=self.store,
            cabinet=cabinet,
            trees=Trees(self.store, cabinet, _no_worker),
            bases=Bases(self.store, _no_registry, lambda text: None),
            options=BuildOptions(parallel=1),
            cancel=Cancel(),
            tell=self.events.append,
            clock_ms=lambda: 0,
            traffic=Traffic,
            tiers=LocalTier(self.store),
        )


def _no_registry() -> Any:
    raise AssertionError("images of scratch and git need no registry")


def _no_worker(argv: Sequence[str]) -> Any:
    raise AssertionError("images of declared stages need no worker")
