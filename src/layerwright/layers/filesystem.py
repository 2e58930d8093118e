"""Working inside one directory tree by descriptors, so that nothing in it can lead out of it; and what a file system can hold."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import BinaryIO, cast

from layerwright.layers.xattrs import overlay_name

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_AT_ONCE = 256
_MILESTONE = 16  # every so many levels a directory on the way stays open, or deep trees would be walked from the root again and again
_EARLIEST_NS, _LATEST_NS = -(2**31) * 10**9, 15_032_385_535 * 10**9  # what ext4 keeps, the narrowest in use

WHITEOUT_MODE, WHITEOUT_DEVICE = stat.S_IFCHR, os.makedev(0, 0)


def keepable_time(mtime_ns: int) -> int:
    """The nearest time that a file system keeps. Times on disk are compared with this, not with what a tar claims."""
    return min(max(mtime_ns, _EARLIEST_NS), _LATEST_NS)


def is_whiteout_stat(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == WHITEOUT_DEVICE


def is_opaque(path: str | bytes | int, *, user_xattr: bool) -> bool:
    try:
        return os.getxattr(path, overlay_name("opaque", user_xattr=user_xattr)) in (b"y", b"x")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def open_plain(path: bytes) -> BinaryIO:
    """A file to be read unbuffered, itself and nothing it may lead to."""
    return cast(BinaryIO, open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)))


def write_fully(fd: int, piece: bytes) -> None:
    written = os.write(fd, piece)
    while written < len(piece):
        written += os.write(fd, memoryview(piece)[written:])


def copy_fully(source: int, target: int) -> None:
    while os.sendfile(target, source, None, 1 << 30):
        pass


class Directories:
    """Descriptors of the directories of one tree; every step is taken without following a symlink."""

    def __init__(self, tree: str | bytes) -> None:
        self.root = os.open(tree, _OPEN_DIRECTORY)
        self._open: dict[bytes, int] = {b"": self.root}

    def __enter__(self) -> Directories:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for fd in self._open.values():
            os.close(fd)

    def fd(self, path: bytes) -> int:
        """A descriptor of the directory `path`, valid until the next call."""
        found = self._open.get(path)
        return self._walk(path) if found is None else found

    def _walk(self, path: bytes) -> int:
        known, rest = path, []
        while known not in self._open:
            known, _, name = known.rpartition(b"/")
            rest.append(name)
        if len(self._open) > _OPEN_AT_ONCE:
            self._close_older(known)
        fd = self._open[known]
        for name in reversed(rest):
            try:
                child = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
            finally:
                if known not in self._open:
                    os.close(fd)
            known, fd = known + b"/" + name if known else name, child
            if known == path or known.count(b"/") % _MILESTONE == 0:
                self._open[known] = fd
        return fd

    def forget(self, path: bytes) -> None:
        """Close what is open at and below `path`, which is about to be removed."""
        for gone in [known for known in self._open if known == path or known.startswith(path + b"/")]:
            os.close(self._open.pop(gone))

    def _close_older(self, kept: bytes) -> None:
        """Close the half that was opened first."""
        for path in list(self._open)[: _OPEN_AT_ONCE // 2]:
            if path not in (b"", kept):
                os.close(self._open.pop(path))


def open_lower(trees: Sequence[str], path: bytes, *, user_xattr: bool) -> int | None:
    """A descriptor of the regular file that an overlay of `trees`, top first, shows at the literal `path`; None if it shows none."""
    for tree in trees:
        with Directories(tree) as directories:
            found, ends = _look(directories, path, user_xattr=user_xattr)
        if found is not None or ends:
            return found
    return None


def _look(directories: Directories, path: bytes, *, user_xattr: bool) -> tuple[int | None, bool]:
    """The file in one tree, and whether this tree hides those below it."""
    names = path.split(b"/")
    opaque = False
    for depth, name in enumerate(names):
        parent = directories.fd(b"/".join(names[:depth]))
        opaque = opaque or (depth > 0 and is_opaque(parent, user_xattr=user_xattr))
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None, opaque
        if depth == len(names) - 1 and stat.S_ISREG(found.st_mode):
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent), True
        if not stat.S_ISDIR(found.st_mode):
            return None, True
    return None, True


def remove_at(directories: Directories, path: bytes) -> Iterator[bytes]:
    """Remove what stands at `path`, if anything does, with all that is below it; to be run to its end. Gives the paths that are gone."""
    parent, _, name = path.rpartition(b"/")
    directories.forget(path)
    try:
        os.unlink(name, dir_fd=directories.fd(parent))
        yield path
        return
    except FileNotFoundError:
        return
    except IsADirectoryError:
        pass
    pending = [path]
    while pending:
        directory = pending[-1]
        below, gone = _unlink_files(directories, directory)
        yield from gone
        if below:
            pending += below
            continue
        yield pending.pop()
        directories.forget(directory)
        parent, _, name = directory.rpartition(b"/")
        os.rmdir(name, dir_fd=directories.fd(parent))


def _unlink_files(directories: Directories, directory: bytes) -> tuple[list[bytes], list[bytes]]:
    """Unlink all but the directories in `directory`: those, and what is gone."""
    fd = directories.fd(directory)
    with os.scandir(fd) as found:
        entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
    prefix = directory + b"/"
    return [prefix + name for name, is_directory in entries if is_directory], [prefix + name for name, is_directory in entries if not is_directory]
