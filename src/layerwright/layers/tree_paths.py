"""Where the paths of a layer lead in the tree being unpacked: through its own symlinks and those of the layers below, never out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from layerwright.layers.entry import DIRECTORY, SYMLINK, Entry
from layerwright.layers.filesystem import Directories, is_whiteout_stat, remove_at
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar_reader import BadLayer
from layerwright.limits import PATH_BYTES, SYMLINKS

_MEND = "the image is damaged or hostile; pull it again, or ask whoever published it"


class NeedsBelow(Exception):
    """A question that only the layers below can answer, and they are not given."""


class TreePaths:
    """The directories, symlinks and removals made so far in one tree. `below` is None where the layers below are not known."""

    def __init__(self, on_disk: Directories, below: StackedIndex | None) -> None:
        self._on_disk = on_disk
        self._below = below
        self.directories: dict[bytes, Entry] = {b"": Entry(b"", DIRECTORY, 0o755)}  # parents before what is in them
        self.symlinks: dict[bytes, bytes] = {}
        self.opaque: set[bytes] = set()
        self._whiteouts: set[bytes] = set()
        if below is not None and (root := below.lookup(b"")) is not None:
            self.directories[b""] = root

    def directories_last_first(self) -> Iterator[tuple[bytes, Entry]]:
        return reversed(self.directories.items())

    def parent(self, entry: Entry) -> tuple[bytes, bytes]:
        """The directory that `entry` goes into, made if need be, and its name there."""
        parent, _, name = entry.path.rpartition(b"/")
        if parent not in self.directories:
            parent = self.directory(parent)
        return parent, name

    def directory(self, path: bytes) -> bytes:
        """Where the directory `path` lies. What is missing is made, like it is in the layers below; what is new to them is 0755."""
        resolved = self._resolve(path)
        end = 0
        while end < len(resolved):
            end = resolved.find(b"/", end + 1)
            end = len(resolved) if end < 0 else end
            step = resolved[:end]
            if step in self.directories:
                continue
            if self.is_here(step):
                raise BadLayer(f"{shown(path)} is meant to be a directory, but {shown(step)} is none", where=shown(path), mend=_MEND)
            found = self._seen_below(step)
            implicit = found if found is not None and found.kind == DIRECTORY else Entry(step, DIRECTORY, 0o755)
            self.make_directory(step, implicit)
        return resolved

    def target(self, link: bytes) -> bytes:
        """Where the first name of a hard link lies; there need be nothing."""
        parent, _, name = link.rpartition(b"/")
        if parent not in self.directories:
            parent = self._resolve(parent)
        return parent + b"/" + name if parent else name

    def is_here(self, path: bytes) -> bool:
        """Whether this tree holds something at `path`; a whiteout is nothing."""
        if path in self.directories:
            return True
        parent, _, name = path.rpartition(b"/")
        if parent not in self.directories:
            return False
        try:
            return not is_whiteout_stat(os.stat(name, dir_fd=self._on_disk.fd(parent), follow_symlinks=False))
        except FileNotFoundError:
            return False

    def ends_here(self, path: bytes) -> bool:
        """Whether this layer has something else than a directory above `path`."""
        while path:
            path = path.rpartition(b"/")[0]
            if path not in self.directories and self.is_here(path):
                return True
        return False

    def make_directory(self, path: bytes, entry: Entry) -> None:
        """Make `path`, whose parent is there, or give the directory that is there another entry."""
        if path not in self.directories:
            parent, _, name = path.rpartition(b"/")
            try:
                os.mkdir(name, 0o700, dir_fd=self._on_disk.fd(parent))
            except FileExistsError:
                self.clear(path)
                os.mkdir(name, 0o700, dir_fd=self._on_disk.fd(parent))
            if path in self._whiteouts:
                self.opaque.add(path)
        self.directories[path] = entry

    def white_out(self, path: bytes) -> bool:
        """Note that `path` is removed from the layers below. False if there is nothing to be made: this layer holds the name itself."""
        known = path in self._whiteouts
        self._whiteouts.add(path)
        if path in self.directories:
            self.opaque.add(path)
        return not known and not self.is_here(path)

    def clear(self, path: bytes) -> None:
        """Remove what this layer put at `path`."""
        for gone in remove_at(self._on_disk, path):
            self.symlinks.pop(gone, None)
            if self.directories.pop(gone, None) is not None:
                self.opaque.discard(gone)

    def needless_whiteouts(self) -> list[bytes]:
        """Those made inside a directory that hides the layers below as a whole; overlayfs would show them as files there."""
        return [path for path in self._whiteouts if self.opaque and path not in self.opaque and self._is_within_opaque(path)]

    def _is_within_opaque(self, path: bytes) -> bool:
        while path:
            path = path.rpartition(b"/")[0]
            if path in self.opaque and path:
                return True
        return False

    def is_hidden(self, path: bytes) -> bool:
        """Whether this layer hides what the layers below have at `path`."""
        if path in self._whiteouts:
            return True
        if not self._whiteouts and not self.opaque:
            return False
        while path:
            path = path.rpartition(b"/")[0]
            if path in self.opaque or path in self._whiteouts:
                return True
        return False

    def _resolve(self, path: bytes) -> bytes:
        """`path` with all symlinks followed, as seen by a process whose root the image is."""
        names = path.split(b"/")[::-1]
        at = b""
        links = 0
        while names:
            name = names.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                at = at.rpartition(b"/")[0]
                continue
            step = at + b"/" + name if at else name
            if len(step) > PATH_BYTES:
                raise BadLayer(f"{shown(path)} leads to a path longer than {PATH_BYTES:,} bytes", where=shown(path), mend=_MEND)
            target = None if step in self.directories else self._symlink(step)
            if target is None:
                at = step
                continue
            links += 1
            if links > SYMLINKS:
                raise BadLayer(f"{shown(path)} leads through more than {SYMLINKS} symlinks", where=shown(path), mend=_MEND)
            if target.startswith(b"/"):
                at = b""
            names += target.split(b"/")[::-1]
        return at

    def _symlink(self, path: bytes) -> bytes | None:
        if (target := self.symlinks.get(path)) is not None:
            return target
        found = self._seen_below(path)
        return found.link if found is not None and found.kind == SYMLINK else None

    def _seen_below(self, path: bytes) -> Entry | None:
        if self._below is None:
            raise NeedsBelow
        return None if self.is_hidden(path) else self._below.lookup(path)
