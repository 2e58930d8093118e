"""From what a layer shall change to its entries in order: parents, opaque marks, whiteouts, hard links. Pure; no bytes are read.

Order: a directory's entry; in it the opaque mark, then whiteouts, then entries in byte order of their names, each directory's content
following it. A name that the layer holds gets no whiteout: an entry replaces whatever is below it, a directory with all it holds included.
That is so in containerd, Docker, umoci and containers/storage, and overlayfs does not look further down below a directory that lies over
something else. Only a directory over a directory merges; where its old content must go, it gets an opaque mark.
"""

from __future__ import annotations

from collections.abc import Iterable

from layerwright.errors import BugError, LayerwrightError
from layerwright.layers.entry import DIRECTORY, FILE, HARDLINK, OPAQUE, WHITEOUT, Entry, NewEntry
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex


class PathBlocked(LayerwrightError):
    """Something stands where a directory is needed, or a directory with content where a file shall go."""


def compose(*, adds: Iterable[NewEntry], removals: Iterable[bytes] = (), opaque: Iterable[bytes] = (), below: StackedIndex, time_s: int) -> list[NewEntry]:
    """The entries of the layer that puts `adds` on `below`, takes `removals` away, and hides what `below` has inside the directories `opaque`.

    Paths are resolved already. Every directory above an entry gets one: as in `below`, time included, or 0755, root and `time_s` where it
    is new. The root gets one only if `adds` has it. A removed path that is added again, itself or something in it, starts empty. Removals
    of what is not visible vanish. Of hard links the first in the order is the file. Raises PathBlocked.
    """
    return _Composer(_wanted(adds), set(removals), set(opaque), below, time_s * 10**9).entries()


def _wanted(adds: Iterable[NewEntry]) -> dict[bytes, NewEntry]:
    """By path; the later of two wins, and hard links to what it displaces keep their content. In the end a link names a file of `adds`."""
    wanted: dict[bytes, NewEntry] = {}
    links: dict[bytes, list[bytes]] = {}
    waiting: list[NewEntry] = []

    def add_link(new: NewEntry, first: bytes) -> None:
        links.setdefault(first, []).append(new.entry.path)
        wanted[new.entry.path] = NewEntry(new.entry._replace(link=first))

    for new in adds:
        path, kind = new.entry.path, new.entry.kind
        assert kind not in (WHITEOUT, OPAQUE), new.entry
        displaced = wanted.get(path)
        if displaced is not None and (names := links.pop(path, None)):
            _rehome(wanted, links, displaced, names)
        if kind != HARDLINK:
            wanted[path] = new
        elif (first := _first_name(wanted, new.entry)) is not None:
            add_link(new, first)
        else:
            wanted.pop(path, None)
            waiting.append(new)
    for new in waiting:  # their first name came after them
        if new.entry.path in wanted:
            continue
        first = _first_name(wanted, new.entry)
        if first is None:
            raise BugError(f"{new.entry.path!r} is a hard link to {new.entry.link!r}, which is no file of this layer")
        add_link(new, first)
    return wanted


def _first_name(wanted: dict[bytes, NewEntry], entry: Entry) -> bytes | None:
    first = wanted.get(entry.link)
    if first is not None and first.entry.kind == HARDLINK:
        first = wanted.get(first.entry.link)
    return first.entry.path if first is not None and first.entry.kind == FILE else None


def _rehome(wanted: dict[bytes, NewEntry], links: dict[bytes, list[bytes]], file: NewEntry, names: list[bytes]) -> None:
    """Give `file` to the first of the hard links that named it."""
    left = [name for name in dict.fromkeys(names) if wanted[name].entry.kind == HARDLINK and wanted[name].entry.link == file.entry.path]
    for name in left:
        wanted[name] = NewEntry(_link_to(file.entry, name, left[0]))
    if left:
        wanted[left[0]] = NewEntry(file.entry._replace(path=left[0]), file.content)
        links[left[0]] = left[1:]


def _link_to(file: Entry, path: bytes, first: bytes) -> Entry:
    return file._replace(path=path, kind=HARDLINK, link=first, size=0, digest="", offset=-1)


class _Composer:
    """One layer in the making. `gone`: removed paths that are visible below; `hidden`: directories that get an opaque mark."""

    def __init__(self, wanted: dict[bytes, NewEntry], removals: set[bytes], opaque: set[bytes], below: StackedIndex, time_ns: int) -> None:
        self.wanted = wanted
        self.below = below
        self.time_ns = time_ns
        if b"" in removals or b"" in opaque:  # overlayfs knows no opaque root
            removals |= set(below.children(b""))
        self.gone = {path for path in removals if path and below.find(path, digest=False) is not None}
        self.needed: dict[bytes, bytes] = {}  # each directory above something wanted, and one such path
        for path in wanted:
            self.need_parents(path)
        self.hidden: set[bytes] = set()
        self.whiteouts: list[bytes] = []
        self.mark_removed()
        self.mark_opaque(opaque - {b""} - self.gone)

    def mark_removed(self) -> None:
        for path in sorted(self.gone):
            new = self.wanted.get(path)
            if self.is_covered(path):
                continue
            if (new is not None and new.entry.kind == DIRECTORY) or path in self.needed:
                if self.below.children(path):
                    self.hidden.add(path)
            elif new is None:
                self.whiteouts.append(path)

    def mark_opaque(self, opaque: Iterable[bytes]) -> None:
        for path in sorted(opaque):  # above before below
            new = self.wanted.get(path)
            if not self.is_covered(path) and (new is None or new.entry.kind == DIRECTORY) and self.below.children(path):
                self.hidden.add(path)
        self.whiteouts = [path for path in self.whiteouts if not any(parent in self.hidden for parent in _above(path))]
        self.hidden = {path for path in self.hidden if not any(parent in self.hidden for parent in _above(path))}

    def is_covered(self, path: bytes) -> bool:
        """Whether `path` is out of sight already by what happens to a directory above it."""
        return any(parent in self.gone or parent in self.hidden or self.is_leaf(parent) for parent in _above(path))

    def is_leaf(self, path: bytes) -> bool:
        new = self.wanted.get(path)
        return new is not None and new.entry.kind != DIRECTORY

    def need_parents(self, path: bytes) -> None:
        directory = path.rpartition(b"/")[0]
        while directory and directory not in self.needed:
            self.needed[directory] = path
            directory = directory.rpartition(b"/")[0]

    def entries(self) -> list[NewEntry]:
        for path in (*self.whiteouts, *self.hidden):
            self.need_parents(path)
        for path in self.hidden:
            self.needed.setdefault(path, path)
        keyed = [(_entry_key(path), new) for path, new in self.wanted.items()]
        keyed += [(_entry_key(path), NewEntry(self.directory(path, inner))) for path, inner in self.needed.items() if path not in self.wanted]
        keyed += [(_entry_key(path) + b"\0", NewEntry(Entry(path, OPAQUE, 0o644, mtime_ns=self.time_ns))) for path in self.hidden]
        keyed += [(_whiteout_key(path), NewEntry(Entry(path, WHITEOUT, 0o644, mtime_ns=self.time_ns))) for path in self.whiteouts]
        keyed.sort(key=lambda pair: pair[0])
        for path in self.needed:
            if self.is_leaf(path):
                raise _blocked(path, self.wanted[path].entry.kind, self.needed[path])
        return _with_first_names([new for _, new in keyed])

    def directory(self, path: bytes, inner: bytes) -> Entry:
        """The entry of a directory that nobody asked for."""
        if path not in self.gone and not self.is_covered(path):
            found = self.below.find(path, digest=False)
            if found is not None and found.entry.kind != DIRECTORY:
                raise _blocked(path, found.entry.kind, inner)
            if found is not None:
                return found.entry._replace(path=path)
        return Entry(path, DIRECTORY, 0o755, mtime_ns=self.time_ns)


def _blocked(path: bytes, kind: str, inner: bytes) -> PathBlocked:
    return PathBlocked(
        f"{shown(path)} is a {kind}, and {shown(inner)} would have to be in it",
        where=shown(path),
        mend="choose another target path, or remove what is there in an earlier stage",
    )


def _with_first_names(ordered: list[NewEntry]) -> list[NewEntry]:
    """Hard links turned so that the first name of each group in this order is the file."""
    files = {new.entry.path: new for new in ordered if new.entry.kind == FILE}
    linked = {new.entry.link for new in ordered if new.entry.kind == HARDLINK}
    firsts: dict[bytes, bytes] = {}
    turned: list[NewEntry] = []
    for new in ordered:
        entry = new.entry
        name = entry.link if entry.kind == HARDLINK else entry.path
        if entry.kind not in (FILE, HARDLINK) or name not in linked:
            turned.append(new)
            continue
        file = files[name]
        first = firsts.setdefault(name, entry.path)
        is_first = first == entry.path
        turned.append(NewEntry(file.entry._replace(path=first), file.content) if is_first else NewEntry(_link_to(file.entry, entry.path, first)))
    return turned


def _above(path: bytes) -> list[bytes]:
    """The directories above `path`, the nearest first; not the root."""
    found = []
    directory = path.rpartition(b"/")[0]
    while directory:
        found.append(directory)
        directory = directory.rpartition(b"/")[0]
    return found


def _entry_key(path: bytes) -> bytes:
    """Sorts as the order of a layer: 0 before the end of a name, 1 before a whiteout's name, 2 before an entry's."""
    return b"\2" + path.replace(b"/", b"\0\2") + b"\0" if path else b""


def _whiteout_key(path: bytes) -> bytes:
    parent, _, name = path.rpartition(b"/")
    return _entry_key(parent) + b"\1" + name + b"\0"
