"""Where a layer's paths land: a layer that writes `lib/x` without an entry for `lib`, above `lib -> usr/lib`, writes `usr/lib/x`.

So unpackers do it: a missing parent is looked for in what is there, symlinks followed inside the root (containerd's `fs.RootPath`,
umoci's `SecureJoin`). A layer with an entry for the directory replaces the symlink instead.
"""

from __future__ import annotations

from typing import Protocol

from layerwright.layers.entry import HARDLINK, OPAQUE, Entry
from layerwright.layers.index import FileIndex


class Tree(Protocol):
    """What a stack of layers answers here."""

    def is_symlink(self, path: bytes) -> bool: ...

    def resolve(self, path: bytes, *, follow_last: bool = False) -> bytes: ...


def placed(layer: FileIndex, *, below: Tree, along: Tree) -> FileIndex:
    """`layer` with its paths as they land on what is `below`; the same object if nothing moves. `along`: the same with the layer on top."""
    moved: dict[bytes, bytes] = {}
    for directory in layer.implied:  # sorted: parents first
        parent, _, name = directory.rpartition(b"/")
        landing = _join(_landing(parent, moved), name)
        if layer.is_symlink(directory):
            landing = along.resolve(landing, follow_last=True)
        elif below.is_symlink(landing) and not _hides(layer, directory):
            landing = below.resolve(landing, follow_last=True)
        if landing != directory:
            moved[directory] = landing
    if not moved:
        return layer
    entries = [_moved_entry(entry, moved) for entry in layer.entries]
    texts = {_moved_path(path, moved): text for path, text in layer.texts.items()}
    return FileIndex(layer.diff_id, entries, texts)


def _hides(layer: FileIndex, path: bytes) -> bool:
    """Whether the layer takes away what layers below have at `path`."""
    while path:
        if layer.whiteout(path) is not None:
            return True
        path = path.rpartition(b"/")[0]
        if layer.opaque(path) is not None:
            return True
    return False


def _landing(directory: bytes, moved: dict[bytes, bytes]) -> bytes:
    """Where a directory of the layer lands: with the nearest one above it that moves."""
    above = directory
    while above:
        if (landing := moved.get(above)) is not None:
            return _join(landing, directory[len(above) + 1 :]) if len(directory) > len(above) else landing
        above = above.rpartition(b"/")[0]
    return directory


def _moved_path(path: bytes, moved: dict[bytes, bytes]) -> bytes:
    parent, slash, name = path.rpartition(b"/")
    return _join(_landing(parent, moved), name) if slash else path


def _moved_entry(entry: Entry, moved: dict[bytes, bytes]) -> Entry:
    path = _landing(entry.path, moved) if entry.kind == OPAQUE else _moved_path(entry.path, moved)
    return entry._replace(path=path, link=_moved_path(entry.link, moved) if entry.kind == HARDLINK else entry.link)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
