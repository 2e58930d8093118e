"""A git layer: the files an update adds and removes, written as a tar straight from git objects."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from layerwright.build.git_update import Owner, Update
from layerwright.config.model import GitMapping
from layerwright.errors import UsageError
from layerwright.git.repo import Repo
from layerwright.git.values import CommitId, TreeEntry
from layerwright.layers.compose import compose
from layerwright.layers.entry import SYMLINK, Entry, NewEntry
from layerwright.layers.stack import StackedIndex

SMALL_BYTES = 1 << 20  # blobs below are read ahead, many at a time; larger ones are streamed


class LfsNotSupported(UsageError):
    """A file whose content is kept by Git LFS would enter an image as its pointer."""


def resolve_owner(mapping: GitMapping, below: StackedIndex, *, where: str) -> Owner:
    """Numbers stand for themselves; names are looked up in /etc/passwd and /etc/group `below` the sources, whatever came since. Raises UsageError."""
    uid = account_number(mapping.owner, below.uid_of, kind="owner", file="/etc/passwd", where=where)
    gid = account_number(mapping.group, below.gid_of, kind="group", file="/etc/group", where=where)
    to = below.resolve(mapping.to.strip("/").encode("utf-8", "surrogateescape"), follow_last=True)
    return Owner(to=to, uid=uid or 0, gid=gid or 0)


def account_number(name: str, look_up: Callable[[str], int | None], *, kind: str, file: str, where: str) -> int | None:
    """None for an empty name."""
    if not name:
        return None
    if name.isdigit():
        return int(name)
    found = look_up(name)
    if found is None:
        raise UsageError(
            f"{kind} {name!r} is not in the image's {file}",
            where=where,
            mend=f"write a number, or create {name!r} in an earlier stage (beforeInstall) or in the base image",
        )
    return found


class GitEntries(NamedTuple):
    """What a git layer is made of: its entries in order, sizes filled in; contents are read from git when the tar is written, in this order.

    `objects`: the git object of each file, by path.
    """

    entries: list[NewEntry]
    objects: Mapping[bytes, str]

    def key(self) -> str:
        """Equal for equal layers, whatever they lie upon, and only for those: a hash over every entry and its git object."""
        total = hashlib.sha256()
        for entry, _ in self.entries:
            total.update(tuple.__repr__((*entry, self.objects.get(entry.path, ""))).encode("ascii", "backslashreplace"))
        return total.hexdigest()


def git_entries(repo: Repo, commit: CommitId, update: Update, below: StackedIndex, *, time_s: int, where: str) -> GitEntries:
    """Raises LfsNotSupported."""
    sources = {entry.path: source for entry, source in update.adds if source is not None}
    refuse_lfs(repo, commit, sources.values(), where=where)
    sizes = repo.blob_sizes(sources.values())
    links: dict[str, bytes] = {
        source.oid: content for source, content in repo.read_blobs(sources[entry.path] for entry, _ in update.adds if entry.kind == SYMLINK)
    }
    adds = [NewEntry(_filled(entry, source, sizes, links)) for entry, source in update.adds]
    composed = compose(adds=adds, removals=update.removals, below=below, time_s=time_s)
    files = [one.entry for one in composed if one.entry.path in sources and one.entry.kind == "file"]
    opener = _Opener(repo, [(sources[entry.path], entry.size) for entry in files])
    entries = [
        NewEntry(one.entry, opener.content(sources[one.entry.path], one.entry.size)) if one.entry.kind == "file" and one.entry.path in sources else one
        for one in composed
    ]
    return GitEntries(entries, {entry.path: sources[entry.path].oid for entry in files})


def _filled(entry: Entry, source: TreeEntry | None, sizes: dict[tuple[bytes, str], int], links: dict[str, bytes]) -> Entry:
    if source is None:
        return entry
    if entry.kind == SYMLINK:
        return entry._replace(link=links[source.oid])
    return entry._replace(size=sizes[source.repository, source.oid])


def refuse_lfs(repo: Repo, commit: CommitId, sources: Iterable[TreeEntry], *, where: str) -> None:
    paths = repo.lfs_paths(commit, sources)
    if paths:
        shown = ", ".join(path.decode("utf-8", "backslashreplace") for path in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        raise LfsNotSupported(
            f"{shown}: kept by Git LFS, which is not supported yet", where=where, mend="exclude the files with excludePaths, or store them in git itself"
        )


class _Opener:
    """Hands out contents in the order given: small blobs from one pipelined read, large ones each from a stream of its own."""

    def __init__(self, repo: Repo, ordered: Sequence[tuple[TreeEntry, int]]) -> None:
        self._repo = repo
        self._small: Iterator[tuple[TreeEntry, bytes]] = iter(repo.read_blobs(source for source, size in ordered if size < SMALL_BYTES))

    def content(self, source: TreeEntry, size: int) -> Callable[[], BinaryIO]:
        return (lambda: self._next(source)) if size < SMALL_BYTES else (lambda: self._stream(source))

    def _next(self, source: TreeEntry) -> BinaryIO:
        given, content = next(self._small)
        assert given.oid == source.oid, "contents are read in the order of the layer"
        return io.BytesIO(content)

    def _stream(self, source: TreeEntry) -> BinaryIO:
        return BlobStream(self._repo, source)


class BlobStream(io.RawIOBase, BinaryIO):
    """One large blob as a stream that closes its git process."""

    def __init__(self, repo: Repo, source: TreeEntry) -> None:
        self._opened = repo.open_blob(source)
        self._stream = self._opened.__enter__()[1]

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        return self._stream.read(-1 if size is None else size)

    def close(self) -> None:
        if not self.closed:
            self._opened.__exit__(None, None, None)
        super().close()
