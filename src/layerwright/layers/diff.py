"""The upper directory of an overlay, after a stage's commands ran, as the entries of its layer.

What a command only touched without changing it is copied up all the same; such entries are left out of the layer, and removed from the
upper, so that the directory is the layer's tree from then on. A changed time alone is a change: build tools go by it. Times are cut to
seconds, in the tree as in the tar, so that the next stage sees what it would see after a pull.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from layerwright.errors import BugError, LayerwrightError
from layerwright.host.files import telling_full
from layerwright.layers.entry import BLOCK, CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry, NewEntry
from layerwright.layers.filesystem import Directories, is_whiteout_stat, keepable_time, open_plain
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex
from layerwright.layers.xattrs import Xattrs, kept_xattrs, list_xattrs, overlay_name

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO,
}
_SECOND = 10**9


class UnreadableEntry(LayerwrightError):
    """Something in the upper directory that cannot be read, or that no layer can hold. `where` is its path in the image."""


def read_upper(
    upper: str,
    below: StackedIndex,
    *,
    created_mount_points: Collection[bytes] = (),
    user_xattr: bool = False,
    notice: Callable[[str], None] = lambda text: None,
) -> list[NewEntry]:
    """The layer that `upper` makes over `below`, in the order that every layer of ours has; afterwards `upper` is that layer's tree.

    In each directory come the opaque mark, then whiteouts, then entries in byte order, depth first. Left out, and removed from `upper`:
    what equals `below`, whiteouts of nothing, sockets (each with a `notice`), and the empty `created_mount_points` (paths resolved, parents
    too) that the image does not have. The contents are read later, when the layer is written. Raises UnreadableEntry.
    """
    with telling_full(upper):
        return _Upper(upper, below, user_xattr=user_xattr, notice=notice).read(created_mount_points)


class _Level(NamedTuple):
    """A directory being read: whether `below` shows through it, and what is left of it."""

    merges: bool
    rest: Iterator[os.DirEntry[bytes]]


class _Upper:
    def __init__(self, upper: str, below: StackedIndex, *, user_xattr: bool, notice: Callable[[str], None]) -> None:
        self._root = os.fsencode(upper)
        self._below = below
        self._user_xattr = user_xattr
        self._opaque = overlay_name("opaque", user_xattr=user_xattr).encode()
        self._misplaced = {overlay_name(mark, user_xattr=user_xattr).encode() for mark in ("redirect", "metacopy")}
        self._notice = notice
        self._found: list[Entry] = []
        self._equal: set[bytes] = set()  # directories that are as in `below`
        self._first_names: dict[tuple[int, int], bytes] = {}
        self._times: dict[bytes, int] = {}  # to be set in the end: cut to seconds, or changed by our own removals
        self._with_mounts: set[bytes] = set()

    def read(self, created_mount_points: Collection[bytes]) -> list[NewEntry]:
        self._remove_mount_points(created_mount_points)
        pending = [self._enter_root()]
        while pending:
            level = pending[-1]
            for item in level.rest:
                inner = self._visit(item, merges=level.merges)
                if inner is not None:
                    pending.append(inner)
                    break
            else:
                pending.pop()
        kept = self._without_needless_parents()
        self._set_times({entry.path for entry in kept})
        return [NewEntry(entry, partial(open_plain, self._on_disk(entry.path)) if entry.kind == FILE else None) for entry in kept]

    def _on_disk(self, path: bytes) -> bytes:
        return self._root + b"/" + path if path else self._root

    def _enter_root(self) -> _Level:
        """The root enters the layer when its owner, mode or attributes were changed; its time says nothing, mounts change it."""
        state = os.lstat(self._root)
        names = list_xattrs(self._root)
        known = self._below.lookup(b"")
        entry = _entry(b"", DIRECTORY, state, self._with_unseen(kept_xattrs(self._root, names), known))
        if known is not None and known[2:5] == entry[2:5] and known.xattrs == entry.xattrs:
            self._equal.add(b"")
        self._keep(entry, state)
        return self._level(b"", merges=True)

    def _level(self, path: bytes, *, merges: bool) -> _Level:
        """List a directory; its whiteouts are noted at once, for they come first in the layer."""
        with os.scandir(self._on_disk(path)) as found:
            items = sorted(found, key=lambda item: item.name)
        return _Level(merges, iter(items if not items else self._without_whiteouts(path, items, merges=merges)))

    def _without_whiteouts(self, parent: bytes, items: list[os.DirEntry[bytes]], *, merges: bool) -> list[os.DirEntry[bytes]]:
        others = []
        for item in items:
            if item.is_file(follow_symlinks=False) or item.is_dir(follow_symlinks=False) or not is_whiteout_stat(state := item.stat(follow_symlinks=False)):
                others.append(item)
                continue
            path = self._path_of(item)
            if merges and self._below.find(path, digest=False) is not None:
                self._found.append(Entry(path, WHITEOUT, mtime_ns=state.st_mtime_ns // _SECOND * _SECOND))
            else:
                self._remove(path)
        return others

    def _path_of(self, item: os.DirEntry[bytes]) -> bytes:
        return item.path[len(self._root) + 1 :]

    def _visit(self, item: os.DirEntry[bytes], *, merges: bool) -> _Level | None:
        """Take in one entry; for a directory that holds anything, what to read next."""
        path = self._path_of(item)
        try:
            state = item.stat(follow_symlinks=False)
            names = list_xattrs(item.path)
            if not self._misplaced.isdisjoint(names):
                raise BugError(f"{item.path!r} was moved or copied by reference: the overlay was mounted without redirect_dir=off,metacopy=off")
            if stat.S_ISDIR(state.st_mode):
                return self._visit_directory(path, state, names, merges=merges)
            if stat.S_ISSOCK(state.st_mode):
                self._notice(f"{shown(path)} is a socket, which no layer can hold: left out")
                self._remove(path)
            else:
                self._visit_other(path, state, names, merges=merges)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UnreadableEntry(f"cannot be read: {error.strerror}", where=shown(path), mend="let the commands remove it, or look why") from error
        return None

    def _visit_directory(self, path: bytes, state: os.stat_result, names: list[bytes], *, merges: bool) -> _Level:
        known = self._below.lookup(path) if merges else None
        if known is not None and known.kind != DIRECTORY:
            known = None
        opaque = self._opaque in names
        if opaque and (known is None or not self._below.children(path)):
            os.removexattr(self._on_disk(path), self._opaque)
            opaque = False
        entry = _entry(path, DIRECTORY, state, self._with_unseen(kept_xattrs(self._on_disk(path), names), known))
        if known is not None and self._same(entry, state, known):
            self._equal.add(path)
        self._keep(entry, state)
        if opaque:
            self._found.append(Entry(path, OPAQUE, mtime_ns=entry.mtime_ns))
        return self._level(path, merges=known is not None and not opaque)

    def _visit_other(self, path: bytes, state: os.stat_result, names: list[bytes], *, merges: bool) -> None:
        on_disk = self._on_disk(path)
        kind = _KINDS[stat.S_IFMT(state.st_mode)]
        link = os.readlink(on_disk) if kind == SYMLINK else b""
        entry = _entry(path, kind, state, self._with_unseen(kept_xattrs(on_disk, names), self._below.lookup(path) if merges else None, kind), link)
        if state.st_nlink > 1:
            # Links are only ever made by the stage itself (index=off breaks the lower layers' ones), so none of the names is left out.
            first = self._first_names.setdefault((state.st_dev, state.st_ino), path)
            if first != path:
                self._found.append(Entry(path, HARDLINK, entry.mode, entry.uid, entry.gid, entry.mtime_ns, link=first))
                return
        elif merges and self._equals_below(entry, state):
            self._remove(path)
            return
        self._keep(entry, state)

    def _equals_below(self, entry: Entry, state: os.stat_result) -> bool:
        if entry.kind != FILE:
            known = self._below.lookup(entry.path)
            return known is not None and self._same(entry, state, known)
        found = self._below.file_of(entry.path, digest=False)
        if found is None or not self._same(entry, state, found.entry):
            return False
        digested = self._below.file_of(entry.path)
        return digested is not None and digested.entry.digest == _digest_of(self._on_disk(entry.path))

    def _same(self, entry: Entry, state: os.stat_result, known: Entry) -> bool:
        """Whether all but the content is equal. The time is that on the disk, which a copy-up keeps to the nanosecond."""
        same_time = state.st_mtime_ns == keepable_time(known.mtime_ns) or entry.path in self._with_mounts
        mode = entry.mode if entry.kind == SYMLINK else known.mode  # a symlink's means nothing, and tars differ in it
        return same_time and entry[1:5] == (known.kind, mode, known.uid, known.gid) and entry[6:10] == known[6:10]

    def _with_unseen(self, found: Xattrs, known: Entry | None, kind: str = DIRECTORY) -> Xattrs:
        """With the `trusted.*` attributes that are known of what it was: a user namespace shows none, and commands can neither make nor remove one."""
        if not self._user_xattr or known is None or known.kind != kind:
            return found
        unseen = tuple(one for one in known.xattrs if one[0].startswith(b"trusted."))
        return tuple(sorted((*found, *unseen))) if unseen else found

    def _keep(self, entry: Entry, state: os.stat_result) -> None:
        self._found.append(entry)
        if state.st_mtime_ns != entry.mtime_ns:
            self._times[entry.path] = entry.mtime_ns

    def _remove(self, path: bytes) -> None:
        os.unlink(self._on_disk(path))
        self._note_removal_in(path.rpartition(b"/")[0])

    def _note_removal_in(self, directory: bytes) -> None:
        """Our own removal changed the directory's time; its entry, found before, has the right one."""
        self._times.setdefault(directory, -1)

    def _without_needless_parents(self) -> list[Entry]:
        """What was found, without the directories that are only there because something in them was copied up."""
        needed: set[bytes] = set()
        kept: list[Entry] = []
        for entry in reversed(self._found):
            path = entry.path
            if entry.kind == DIRECTORY and path in self._equal and path not in needed:
                if path:
                    os.rmdir(self._on_disk(path))
                    self._note_removal_in(path.rpartition(b"/")[0])
                continue
            if entry.kind == DIRECTORY and not path and path in self._equal:
                continue
            kept.append(entry)
            needed.add(path if entry.kind == OPAQUE else path.rpartition(b"/")[0])
        kept.reverse()
        return kept

    def _set_times(self, kept: set[bytes]) -> None:
        seconds = {entry.path: entry.mtime_ns for entry in self._found if entry.path in self._times}
        for path in self._times:
            if path in kept:
                mtime_ns = keepable_time(seconds[path])
                os.utime(self._on_disk(path), ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def _remove_mount_points(self, paths: Collection[bytes]) -> None:
        with Directories(self._root) as directories:
            for path in sorted(paths, reverse=True):
                if path and self._below.find(path, digest=False) is None:
                    self._remove_mount_point(directories, path)

    def _remove_mount_point(self, directories: Directories, path: bytes) -> None:
        """Remove an empty file or directory; what is not empty is the commands' own."""
        parent, _, name = path.rpartition(b"/")
        with suppress(OSError):  # not there, or not empty
            fd = directories.fd(parent)
            before = os.fstat(fd)
            state = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode):
                directories.forget(path)
                os.rmdir(name, dir_fd=directories.fd(parent))
            elif stat.S_ISREG(state.st_mode) and not state.st_size:
                os.unlink(name, dir_fd=fd)
            else:
                return
            os.utime(directories.fd(parent), ns=(before.st_atime_ns, before.st_mtime_ns))
            self._with_mounts.add(parent)


def _digest_of(path: bytes) -> str:
    digest = sha256()
    with open_plain(path) as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return "sha256:" + digest.hexdigest()


def _entry(path: bytes, kind: str, state: os.stat_result, xattrs: tuple[tuple[bytes, bytes], ...], link: bytes = b"") -> Entry:
    mode = 0o777 if kind == SYMLINK else stat.S_IMODE(state.st_mode)
    device = (os.major(state.st_rdev), os.minor(state.st_rdev)) if kind in (CHAR, BLOCK) else (0, 0)
    size = state.st_size if kind == FILE else 0
    return Entry(path, kind, mode, state.st_uid, state.st_gid, state.st_mtime_ns // _SECOND * _SECOND, size, link, device, xattrs)
