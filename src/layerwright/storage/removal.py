"""Taking things out of a store: moved away at once, by a rename into `work/`, and removed from there at leisure.

A kill at any moment leaves a thing whole in its place or gone from it; what lies in `work/` by then is removed by whoever starts next.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from layerwright.host.files import remove_tree
from layerwright.host.locks import release, try_lock
from layerwright.storage.inventory import Thing
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import INDEX_PARTS

Remove = Callable[[str], object]
_NOT_NOW = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """How trees are measured and removed: what belongs to mapped owners only the worker can handle."""

    measure: Callable[[str], int]
    remove: Remove


class Removal:
    """Removes by path below home. `stayed`: paths that could not be moved or removed: behind a mount point, or not ours."""

    def __init__(self, home: str, doomed: str, remove: Remove) -> None:
        self._home = home
        self._doomed = doomed
        self._remove = remove
        self._moved = 0
        self.stayed: list[str] = []

    def take(self, name: str) -> bool:
        """Move a thing or root away; False if it was not there, or has to stay."""
        if name.startswith("indexes/"):
            moved = [self._move(f"{name}.{part}") for part in INDEX_PARTS]
            return any(moved)
        if name.startswith(("introspect/", "work/", "locks/")):
            return self._take_locked(name)
        return self._move(name)

    def empty(self) -> None:
        """Remove what was moved away so far."""
        for name in os.listdir(self._doomed):
            path = os.path.join(self._doomed, name)
            try:
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    self._remove(path)
                else:
                    os.unlink(path)
            except OSError:
                self.stayed.append(path)

    def _take_locked(self, name: str) -> bool:
        """What somebody may be in holds a lock on itself: it goes only if that is free, and stays locked until it is gone."""
        try:
            fd = os.open(os.path.join(self._home, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return try_lock(fd) is True and self._move(name)
        finally:
            release(fd)

    def _move(self, name: str) -> bool:
        path = os.path.join(self._home, name)
        self._moved += 1
        target = os.path.join(self._doomed, str(self._moved))
        try:
            _rename(path, target)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            self.stayed.append(path)
            return False
        return True


def _rename(path: str, target: str) -> None:
    """A directory that its owner may not write can be moved nowhere: rename(2), EACCES."""
    try:
        os.rename(path, target)
    except PermissionError:
        os.chmod(path, 0o700)
        os.rename(path, target)


@contextmanager
def removing(store: LocalStore, remove: Remove = remove_tree) -> Iterator[Removal]:
    """A Removal whose moved things are gone after the block."""
    with store.work() as work:
        removal = Removal(store.paths.home, work.path, remove)
        try:
            yield removal
        finally:
            removal.empty()


def is_unchanged(home: str, thing: Thing) -> bool:
    """Whether it is still what a survey found, and not put there anew since."""
    names = [f"{thing.name}.{part}" for part in INDEX_PARTS] if thing.kind == "index" else [thing.name]
    newest = 0
    for name in names:
        with suppress(OSError):
            newest = max(newest, os.lstat(os.path.join(home, name)).st_ctime_ns)
    return newest == thing.changed_ns


def remove_empty_folders(store: LocalStore) -> None:
    """Folders that hold nothing any more; whoever needs one makes it again."""
    home = store.paths.home
    for top in ("blobs", "records", "mounts"):
        for folder, _, _ in os.walk(os.path.join(home, top), topdown=False):
            if folder.count("/") <= home.count("/") + 3:
                with suppress(OSError):
                    os.rmdir(folder)
