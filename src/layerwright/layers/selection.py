"""What an import takes from another image, its checksum, and where it lands. From the indexes alone; bytes are read when the layer is written.

Semantics: werf's import (`rsync --archive --links --xattrs --keep-dirlinks`). The content of a directory is merged into `to`; a file gets
the name `to`; a symlink decides by what it leads to, and is taken as a symlink if that is no directory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from layerwright.errors import LayerwrightError
from layerwright.layers.compose import PathBlocked
from layerwright.layers.entry import DIRECTORY, FILE, HARDLINK, SYMLINK, Content, Entry, NewEntry
from layerwright.layers.shown import shown
from layerwright.layers.stack import Placed, StackedIndex


class NotInImage(LayerwrightError):
    """The path to take from an image is not in it."""


class BrokenHardLink(LayerwrightError):
    """A hard link of an image leads to no file."""


class Selected(NamedTuple):
    """One thing taken. `path` is relative to what was asked for, b"" that itself; `entry` what to write there.

    `entry.path` is `path`; of hard links among the selected the first is the file, the others' `link` is its relative path. For a file,
    layer `layer` of the source stack holds the bytes, by `source`'s offset and digest.
    """

    path: bytes
    entry: Entry
    layer: int
    source: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """In the order of a walk: a directory before what is in it. `add`: the path taken, symlinks resolved."""

    add: bytes
    is_directory: bool
    items: tuple[Selected, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it takes nothing, or no more than the bare directory."""
        return not any(item.path or not self.is_directory for item in self.items)


def select(view: StackedIndex, add: bytes, takes: Callable[[bytes], bool]) -> Selection:
    """What is at `add` and below, of which `takes` accepts the relative path; directories above something accepted come along.

    Raises NotInImage, BrokenHardLink; SymlinkLoop and BadIndex as the view does.
    """
    followed = view.resolve(add, follow_last=True)
    found = view.find(followed, digest=False)
    is_directory = found is not None and found.entry.kind == DIRECTORY
    start = followed if is_directory else view.resolve(add)
    if view.find(start, digest=False) is None:
        raise NotInImage(
            f"{shown(start)} is not in the image", where=shown(add.strip(b"/")), mend="correct `add`, or create the path in the image it is taken from"
        )
    items = _Selector(view, start, takes).items()
    return Selection(add=start, is_directory=is_directory, items=tuple(items))


class _Selector:
    def __init__(self, view: StackedIndex, start: bytes, takes: Callable[[bytes], bool]) -> None:
        self.view = view
        self.start = start
        self.takes = takes
        self.firsts: dict[tuple[int, bytes], bytes] = {}  # by the layer and path that hold a file's bytes: the relative path of its first name

    def items(self) -> Iterable[Selected]:
        cut = len(self.start) + 1 if self.start else 0
        above: list[tuple[bytes, Placed]] = []  # directories on the way here that nothing has needed yet
        for found in self.view.walk_placed(self.start):
            path = found.entry.path[cut:]
            while above and not _is_inside(path, above[-1][0]):
                above.pop()
            if not self.takes(path):
                if found.entry.kind == DIRECTORY:
                    above.append((path, found))
                continue
            for waiting, directory in above:
                yield self.item(waiting, directory)
            above.clear()
            yield self.item(path, found)

    def item(self, path: bytes, found: Placed) -> Selected:
        layer, entry = found
        if entry.kind in (FILE, HARDLINK):
            return self.file(path, found)
        return Selected(path, entry._replace(path=path), layer, entry)

    def file(self, path: bytes, found: Placed) -> Selected:
        held = found if found.entry.kind == FILE else self.view.file_of(found.entry.path)
        if held is None:
            name = shown(found.entry.path)
            raise BrokenHardLink(f"{name} is a hard link to {shown(found.entry.link)}, which is no file", where=name, mend="build or pull the image anew")
        layer, source = held
        first = self.firsts.setdefault((layer, source.path), path)
        entry = source._replace(path=path, offset=-1)
        if first != path:
            entry = entry._replace(kind=HARDLINK, link=first, size=0, digest="")
        return Selected(path, entry, layer, source)


def _is_inside(path: bytes, directory: bytes) -> bool:
    return not directory or path.startswith(directory + b"/")


def files_checksum(selection: Selection) -> str:
    """64 hex digits over what is taken: paths, types, modes, owners, contents, targets, devices, xattrs and which names are one file.

    Not over times, nor over which layer holds what. What may hold any byte is preceded by its length.
    """
    total = hashlib.sha256(b"directory\n" if selection.is_directory else b"file\n")
    for item in sorted(selection.items, key=lambda item: item.path):
        path, kind, mode, uid, gid, _, size, link, (major, minor), xattrs, digest, _ = item.entry
        assert kind != FILE or digest, item
        if kind == SYMLINK:
            mode = 0o777  # as written by some tar; no file system keeps it
        row = (len(path), path, kind.encode(), mode, uid, gid, size, major, minor, digest.encode(), len(link), link, len(xattrs))
        total.update(b"%d:%s %s %o %d %d %d %d,%d %s %d:%s %d\n" % row)
        for name, value in xattrs:
            total.update(b"%d:%s %d:%s\n" % (len(name), name, len(value), value))
    return total.hexdigest()


def graft(
    selection: Selection,
    *,
    to: bytes,
    uid: int | None = None,
    gid: int | None = None,
    below: StackedIndex,
    content: Callable[[Selected], Content],
) -> list[NewEntry]:
    """The selected at their places in another image, for `compose`: `to` and directories of the selection follow the symlinks of `below`.

    `uid` and `gid` replace the owners. Directories get the source's metadata, only `to` itself keeps its own if it exists. A directory
    replaces a file; a file in the way of a directory that holds something raises PathBlocked. `content` tells how to read a file.
    """
    if selection.is_directory:
        landings = _directory_landings(selection, to, below)
    else:
        parent, _, name = to.strip(b"/").rpartition(b"/")
        landings = {b"": _join(below.resolve(parent, follow_last=True), name)}
        _refuse_directory(landings[b""], below, even_empty=True)
    grafted = []
    for item in selection.items:
        landing = landings.get(item.path)
        if landing is None:
            continue
        owner = (item.entry.uid if uid is None else uid, item.entry.gid if gid is None else gid)
        entry = item.entry._replace(path=landing, uid=owner[0], gid=owner[1], offset=-1)
        if entry.kind == HARDLINK:
            entry = entry._replace(link=landings[entry.link])
        grafted.append(NewEntry(entry, content(item) if entry.kind == FILE else None))
    return grafted


def _directory_landings(selection: Selection, to: bytes, below: StackedIndex) -> dict[bytes, bytes]:
    """By relative path. Without b"" if `to` is a directory already."""
    top = below.resolve(to, follow_last=True)
    there = below.find(top, digest=False)
    if there is not None and there.entry.kind != DIRECTORY:
        raise PathBlocked(f"{shown(top)} is a {there.entry.kind}, and a directory shall go there", where=shown(top), mend="choose another `to`")
    landings = {b"": top}
    for item in selection.items:
        if not item.path:
            continue
        parent, _, name = item.path.rpartition(b"/")
        landing = _join(landings[parent], name)
        if item.entry.kind == DIRECTORY:
            landing = _through_symlink(landing, below)
        else:
            _refuse_directory(landing, below, even_empty=False)
        landings[item.path] = landing
    if there is not None:
        del landings[b""]
    return landings


def _through_symlink(path: bytes, below: StackedIndex) -> bytes:
    """Where a symlink at `path` leads if that is a directory, else `path`."""
    if not below.is_symlink(path):
        return path
    led = below.resolve(path, follow_last=True)
    found = below.find(led, digest=False)
    return led if found is not None and found.entry.kind == DIRECTORY else path


def _refuse_directory(path: bytes, below: StackedIndex, *, even_empty: bool) -> None:
    found = below.find(path, digest=False)
    if found is not None and found.entry.kind == DIRECTORY and (even_empty or below.children(path)):
        raise PathBlocked(
            f"{shown(path)} is a directory in the image, and something else shall take its place",
            where=shown(path),
            mend="end `to` with the name the file shall have, or remove the directory in an earlier stage",
        )


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
