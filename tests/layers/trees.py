"""Layers for tests: short ways to write entries, strategies that make them, and a slow model that applies layers one entry at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hypothesis import assume
from hypothesis import strategies as st

from layerwright.layers.entry import CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.index import FileIndex
from layerwright.layers.stack import StackedIndex
from layerwright.oci.digest import DiffId, digest_of


def file(path: str, content: str = "", *, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime_ns: int = 0, offset: int = 512, **more: object) -> Entry:
    entry = Entry(path.encode(), FILE, mode, uid, gid, mtime_ns, len(content), digest=digest_of(content.encode()), offset=offset)
    return entry._replace(**more)  # type: ignore[arg-type]


def directory(path: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0, mtime_ns: int = 0) -> Entry:
    return Entry(path.encode(), DIRECTORY, mode, uid, gid, mtime_ns)


def symlink(path: str, target: str) -> Entry:
    return Entry(path.encode(), SYMLINK, 0o777, link=target.encode())


def hardlink(path: str, first: str) -> Entry:
    return Entry(path.encode(), HARDLINK, 0o644, link=first.encode())


def whiteout(path: str) -> Entry:
    return Entry(path.encode(), WHITEOUT)


def opaque(path: str) -> Entry:
    return Entry(path.encode(), OPAQUE)


def layer(*entries: Entry, texts: Mapping[bytes, bytes] | None = None, name: str = "layer") -> FileIndex:
    return FileIndex(DiffId(str(digest_of(name.encode()))), entries, texts or {})


def stack(*layers: Iterable[Entry]) -> StackedIndex:
    return StackedIndex([layer(*entries, name=str(number)) for number, entries in enumerate(layers)])


def parents(path: bytes) -> list[bytes]:
    """The directories above, the highest first; not the root."""
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[: count + 1]) for count in range(len(parts))]


NAMES = [b"a", b"b", b"c", b"a-"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
TARGETS = st.sampled_from([b"a", b"b/c", b"/b", b"../c", b"/c/a", b"..", b"../../b"])


@st.composite
def entries_at(draw: st.DrawFn, path: bytes, kinds: str = "fdlpc") -> Entry:
    mode, uid, gid = draw(st.sampled_from([0o644, 0o755, 0o4755, 0o1777])), draw(st.sampled_from([0, 7])), draw(st.sampled_from([0, 8]))
    xattrs = draw(st.sampled_from([(), ((b"user.a", b"\0\1"),)]))
    base = Entry(path, DIRECTORY, mode, uid, gid, draw(st.sampled_from([0, 10**18 + 5])), xattrs=xattrs)
    match draw(st.sampled_from(kinds)):
        case "f":
            content = draw(st.sampled_from([b"", b"x", b"yy"]))
            return base._replace(kind=FILE, size=len(content), digest=digest_of(content), offset=1024)
        case "l":
            return base._replace(kind=SYMLINK, link=draw(TARGETS), mode=0o777)
        case "p":
            return base._replace(kind=FIFO)
        case "c":
            return base._replace(kind=CHAR, device=(1, 3))
    return base


@st.composite
def plain_layers(draw: st.DrawFn, kinds: str = "ffddlpc") -> tuple[Entry, ...]:
    """One layer in the order of a writer, whiteouts first in each directory; parents may be missing."""
    found: dict[bytes, Entry] = {}
    for path in draw(st.lists(PATHS, max_size=6, unique=True)):
        found[path] = draw(entries_at(path, kinds))
    found = {path: entry for path, entry in found.items() if not _below_leaf(path, found)}
    marks = [Entry(path, WHITEOUT) for path in draw(st.lists(PATHS, max_size=3, unique=True)) if not _below_leaf(path, found)]
    hidden = draw(st.lists(PATHS, max_size=2, unique=True))
    marks += [Entry(path, OPAQUE) for path in hidden if not _below_leaf(path + b"/x", found)]
    return tuple(sorted((*found.values(), *marks), key=_order))


def _below_leaf(path: bytes, found: Mapping[bytes, Entry]) -> bool:
    return any(parent in found and found[parent].kind != DIRECTORY for parent in parents(path))


def _order(entry: Entry) -> list[tuple[int, bytes]]:
    """In each directory: opaque mark, whiteouts, entries."""
    above, _, name = entry.path.rpartition(b"/")
    key = [(2, part) for part in above.split(b"/") if part]
    if entry.kind == OPAQUE:
        return [(2, part) for part in entry.path.split(b"/")] + [(0, b"")]
    return [*key, (1 if entry.kind == WHITEOUT else 2, name)]


class Node(NamedTuple):
    layer: int
    entry: Entry


class Model:
    """A tree as a dictionary, layers applied entry by entry as an unpacker would. Layers that contradict themselves are assumed away."""

    def __init__(self) -> None:
        self.tree: dict[bytes, Node] = {b"": Node(0, Entry(b"", DIRECTORY, 0o755))}
        self.number = -1
        self.snapshots: list[dict[bytes, Node]] = []
        self.marks: list[list[tuple[str, bytes]]] = []

    def apply(self, entries: Iterable[Entry]) -> None:
        self.number += 1
        self.before = dict(self.tree)
        self.mine: set[bytes] = set()
        marks: list[tuple[str, bytes]] = []
        for entry in entries:
            landing = self.landing(entry.path, whole=entry.kind == OPAQUE)
            if entry.kind == WHITEOUT:
                self.make_parents(landing)
                self.take_away(landing, itself=True)
            elif entry.kind == OPAQUE:
                self.make_parents(landing + b"/x")
                self.take_away(landing, itself=False)
            else:
                self.put(entry._replace(path=landing))
            marks.append((entry.kind, landing))
        self.snapshots.append(dict(self.tree))
        self.marks.append(marks)

    def put(self, entry: Entry) -> None:
        assume(entry.path not in self.mine)
        self.make_parents(entry.path)
        there = self.tree.get(entry.path)
        if there is not None and not (there.entry.kind == entry.kind == DIRECTORY):
            self.clear(entry.path)
        self.tree[entry.path] = Node(self.number, entry)
        self.mine.add(entry.path)

    def make_parents(self, path: bytes) -> None:
        for parent in parents(path):
            there = self.tree.get(parent)
            if there is None or there.entry.kind != DIRECTORY:
                self.clear(parent)
                self.tree[parent] = Node(self.number, Entry(parent, DIRECTORY, 0o755))

    def clear(self, path: bytes) -> None:
        for known in [known for known in self.tree if known == path or known.startswith(path + b"/")]:
            assume(known not in self.mine and self.tree[known].layer != self.number)
            del self.tree[known]

    def take_away(self, path: bytes, *, itself: bool) -> None:
        inside = path + b"/" if path else b""
        for known in [known for known in self.tree if known and ((known != path and known.startswith(inside)) or (itself and known == path))]:
            assume(known not in self.mine and self.tree[known].layer != self.number)
            del self.tree[known]

    def landing(self, path: bytes, *, whole: bool) -> bytes:
        """Where an entry's directory leads, `whole`: it is the directory itself. What a layer reaches through a symlink it must not also hide."""
        parent, slash, name = (path, b"", b"") if whole else path.rpartition(b"/")
        if not whole and not slash:
            return path
        found = resolve(self.tree, parent)
        if found != parent:
            assume(found == resolve(self.before, parent))
            self.mine.update((*parents(found), found, *parents(parent), parent))
        return found if whole else (found + b"/" + name if found else name)

    def changes(self, path: bytes) -> tuple[int, str] | None:
        """The last layer that changed `path`, and whether it "wrote" or took away."""
        for number in range(len(self.snapshots) - 1, -1, -1):
            now, then = self.snapshots[number].get(path), self.snapshots[number - 1].get(path) if number else None
            if now is not None and now.layer == number:
                return number, "wrote"
            if now is None and then is not None:
                return number, "gone"
        return None


def resolve(tree: Mapping[bytes, Node], path: bytes) -> bytes:
    done: list[bytes] = []
    waiting = path.split(b"/")[::-1]
    for _ in range(200):
        if not waiting:
            return b"/".join(done)
        name = waiting.pop()
        if name in (b"", b".", b".."):
            done = done[:-1] if name == b".." else done
            continue
        node = tree.get(b"/".join((*done, name)))
        if node is None or node.entry.kind != SYMLINK:
            done.append(name)
            continue
        done = [] if node.entry.link.startswith(b"/") else done
        waiting += node.entry.link.split(b"/")[::-1]
    assume(False)
    raise AssertionError
