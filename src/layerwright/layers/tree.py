"""An unpacked layer against its index: to write its tar again, and to see whether it is still what it was."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import BinaryIO, NamedTuple

from layerwright.layers.entry import BLOCK, CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry, NewEntry
from layerwright.layers.filesystem import Directories, is_opaque, is_whiteout_stat, keepable_time, open_plain
from layerwright.layers.index import FileIndex
from layerwright.layers.index_parts import replaced_until
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex
from layerwright.layers.xattrs import CAPABILITY

_TYPES = {
    FILE: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    CHAR: stat.S_IFCHR,
    BLOCK: stat.S_IFBLK,
    FIFO: stat.S_IFIFO,
}


def tree_entries(tree: str, index: FileIndex) -> Iterator[NewEntry]:
    """The entries of a layer that we made, in its order, with contents from its unpacked tree: written again they are the same bytes.

    The entries carry the digests of their contents, so TarWriter refuses a content that is no longer the layer's.
    """
    root = os.fsencode(tree)
    for entry in index.entries:
        content: partial[BinaryIO] | None = partial(open_plain, root + b"/" + entry.path) if entry.kind == FILE else None
        yield NewEntry(entry, content)


def tree_matches(tree: str, index: FileIndex, *, below: StackedIndex | None = None, user_xattr: bool = False) -> str | None:
    """What is wrong with the unpacked `tree` of a layer, in words; None if names, types, sizes, modes, owners, times and links are its own.

    Contents and extended attributes are not read. `below`: for a tree that was unpacked with it (`unpack.needs_below`); without it, what
    such a layer puts into directories it has no entry for is not looked at.
    """
    expected = _expect(index, below)
    try:
        with Directories(tree) as directories:
            return next(_differences(directories, expected, user_xattr=user_xattr), None)
    except OSError as error:
        return f"{tree} cannot be read: {error.strerror}"


class _Expected(NamedTuple):
    """What stands where: None for a directory that the layer only implies. `names` by directory; not `complete`: there may be others."""

    complete: bool
    entries: dict[bytes, Entry | None]
    names: dict[bytes, set[bytes]]
    opaque: set[bytes]
    targets: dict[bytes, bytes]


class _Landings:
    """Where paths of the layer lie in the tree; None where only the layers below could tell."""

    def __init__(self, index: FileIndex, below: StackedIndex | None) -> None:
        self._implied = frozenset(index.implied)
        self._whole = below.on_top(index) if below is not None else None
        self._known: dict[bytes, bytes | None] = {b"": b""}

    def directory(self, path: bytes) -> bytes | None:
        if path not in self._known:
            self._known[path] = self._land(path)
        return self._known[path]

    def _land(self, path: bytes) -> bytes | None:
        if not self._implied or (path not in self._implied and not _is_within(path, self._implied)):
            return path
        return self._whole.resolve(path, follow_last=True) if self._whole is not None else None

    def entry(self, path: bytes) -> bytes | None:
        parent, _, name = path.rpartition(b"/")
        landed = self.directory(parent)
        return landed + b"/" + name if landed else None if landed is None else name


def _expect(index: FileIndex, given: StackedIndex | None) -> _Expected:
    landings = _Landings(index, given)
    below = given or StackedIndex(())
    entries: dict[bytes, Entry | None] = {}
    targets: dict[bytes, bytes] = {}
    whiteouts: dict[bytes, Entry] = {}
    opaque: set[bytes] = set()
    written: dict[bytes, int] = {}  # the last position of each path
    parents: set[bytes] = set()
    replaced: dict[bytes, int] = {}  # directories of this layer that a later entry made something else: what was in them is gone
    for position, entry in enumerate(index.listed):
        path = landings.directory(entry.path) if entry.kind == OPAQUE else landings.entry(entry.path)
        if path is None:
            continue
        written[path] = position
        above = path
        while above and (above := above.rpartition(b"/")[0]) not in parents:
            parents.add(above)
        if entry.kind == OPAQUE:
            opaque.add(path)
            entries.setdefault(path, None)
        elif entry.kind == WHITEOUT:
            whiteouts[path] = entry
        elif path:
            if entry.kind != DIRECTORY and path in parents:
                replaced[path] = position
            entries[path] = entry
            targets.pop(path, None)
            if entry.kind == HARDLINK:
                targets[path] = landings.entry(entry.link) or b""
    for gone in _replaced_with_parents(written, replaced):
        opaque.discard(gone)
        for of_path in (entries, targets, whiteouts):
            of_path.pop(gone, None)
    root_hides = below.children(b"") if b"" in opaque else ()
    opaque.discard(b"")  # not a mark on the disk: see unpack
    opaque.update(name for name in root_hides if name in entries)
    for path, entry in whiteouts.items():
        if path in entries:
            opaque.add(path)
        elif not _is_within(path, opaque):
            entries[path] = entry
    for name in root_hides:
        entries.setdefault(name, Entry(name, WHITEOUT))
    return _Expected(given is not None or not index.implied, entries, _names(entries), opaque, targets)


def _replaced_with_parents(written: Mapping[bytes, int], replaced: Mapping[bytes, int]) -> list[bytes]:
    until: dict[bytes, int] = {}
    return [path for path, position in written.items() if replaced and position < replaced_until(path.rpartition(b"/")[0], replaced, until)]


def _is_within(path: bytes, directories: Collection[bytes]) -> bool:
    while path:
        path = path.rpartition(b"/")[0]
        if path in directories:
            return True
    return False


def _names(entries: dict[bytes, Entry | None]) -> dict[bytes, set[bytes]]:
    """The names in each directory; directories that no entry stands for are added to `entries`."""
    names: dict[bytes, set[bytes]] = {b"": set()}
    for path in list(entries):
        while path:
            parent, _, name = path.rpartition(b"/")
            known = parent in names
            names.setdefault(parent, set()).add(name)
            entries.setdefault(path, None)
            if known:
                break
            path = parent
    return names


def _differences(directories: Directories, expected: _Expected, *, user_xattr: bool) -> Iterator[str]:
    inodes: dict[bytes, tuple[int, int]] = {}
    linked = set(expected.targets.values())
    for directory, names in expected.names.items():
        fd = directories.fd(directory)
        found = {os.fsencode(name) for name in os.listdir(fd)}
        if expected.complete:
            yield from (f"{shown(directory)} holds {name!r}, which the layer does not" for name in sorted(found - names))
        for name in sorted(names):
            path = directory + b"/" + name if directory else name
            entry = expected.entries[path]
            if name not in found:
                if not (user_xattr and _is_device(expected, path)):  # a user namespace makes none
                    yield f"{shown(path)} is missing"
                continue
            state = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if path in linked or path in expected.targets:
                inodes[path] = (state.st_dev, state.st_ino)
            wrong = _wrong(entry, state, name, fd)
            if wrong:
                yield f"{shown(path)}: {wrong}"
    for path, target in expected.targets.items():
        if target in expected.entries and inodes.get(path) != inodes.get(target):
            yield f"{shown(path)} is not the same file as {shown(target)}"
    for path in sorted(expected.opaque):
        entry = expected.entries[path]
        is_directory = entry is None or entry.kind == DIRECTORY
        if is_directory and not is_opaque(directories.fd(path), user_xattr=user_xattr):
            yield f"{shown(path)} does not hide the layers below"


def _is_device(expected: _Expected, path: bytes) -> bool:
    """Whether the layer has a device there, by whatever name."""
    for _ in expected.targets:
        if path not in expected.targets:
            break
        path = expected.targets[path]
    entry = expected.entries.get(path)
    return entry is not None and entry.kind in (CHAR, BLOCK)


def _wrong(entry: Entry | None, state: os.stat_result, name: bytes, fd: int) -> str:
    """How what is on the disk differs from its entry; "" if it does not."""
    if entry is None:
        return "" if stat.S_ISDIR(state.st_mode) else "is not a directory"
    if entry.kind == HARDLINK:
        return "is a directory" if stat.S_ISDIR(state.st_mode) else ""
    if entry.kind == WHITEOUT:
        return "" if is_whiteout_stat(state) else "is not the mark of a removal"
    if stat.S_IFMT(state.st_mode) != _TYPES[entry.kind]:
        return f"is not a {entry.kind}"
    if (state.st_uid, state.st_gid) != (entry.uid, entry.gid):
        return f"belongs to {state.st_uid}:{state.st_gid} instead of {entry.uid}:{entry.gid}"
    if state.st_mtime_ns != keepable_time(entry.mtime_ns):
        return f"has the time {state.st_mtime_ns} ns instead of {entry.mtime_ns}"
    if entry.kind == SYMLINK:
        return "" if os.readlink(name, dir_fd=fd) == entry.link else "leads elsewhere"
    if stat.S_IMODE(state.st_mode) != entry.mode:
        return f"has mode {stat.S_IMODE(state.st_mode):04o} instead of {entry.mode:04o}"
    if entry.kind == FILE and state.st_size != entry.size:
        return f"has {state.st_size} bytes instead of {entry.size}"
    if entry.kind in (CHAR, BLOCK) and state.st_rdev != os.makedev(*entry.device):
        return "is another device"
    return ""


def tree_content_matches(tree: str, index: FileIndex, *, below: StackedIndex | None = None, user_xattr: bool = False) -> str | None:
    """As `tree_matches`, and every file is read: what is wrong with contents and extended attributes, too; None if nothing is."""
    wrong = tree_matches(tree, index, below=below, user_xattr=user_xattr)
    if wrong is not None:
        return wrong
    index.entries  # noqa: B018  (loads the digests, which what follows would do without)
    try:
        with Directories(tree) as directories:
            return next(_changed_contents(directories, _expect(index, below).entries, user_xattr=user_xattr), None)
    except OSError as error:
        return f"{tree} cannot be read: {error.strerror}"


def _changed_contents(directories: Directories, entries: dict[bytes, Entry | None], *, user_xattr: bool) -> Iterator[str]:
    for path, entry in entries.items():
        if entry is None or entry.kind != FILE:
            continue
        parent, _, name = path.rpartition(b"/")
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directories.fd(parent))
        with open(fd, "rb", buffering=0) as file:
            if entry.digest and f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != entry.digest:
                yield f"{shown(path)} has other contents"
            if not user_xattr:
                yield from (f"{shown(path)} has another {attribute}" for attribute in _changed_xattrs(file.fileno(), entry))


def _changed_xattrs(fd: int, entry: Entry) -> Iterator[str]:
    """Attributes of other values; those that a file system could not keep are no damage, a lost capability is."""
    found = set(os.listxattr(fd)) if entry.xattrs else set()
    for name, value in entry.xattrs:
        text = os.fsdecode(name)
        if (text in found and os.getxattr(fd, name) != value) or (text not in found and name == CAPABILITY):
            yield text
