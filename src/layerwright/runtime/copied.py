"""A root file system without overlayfs: the layers' trees copied over one another, and what a command then changed found by looking.

The fallback where the upper's file system refuses overlays. Slower, and its cost grows with the image.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
# Marks of overlayfs, and labels that security modules put on every file by themselves.
_NOT_COPIED = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.apparmor", "security.SMACK64", "security.ima", "security.evm")
_COPY_BYTES = 1 << 26

Stamp = tuple[int, int, int, int]  # inode, change time (ns), mode, size: the kernel sets the change time, no program can


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Paths relative to the root, sorted; a removed directory stands for all below it."""

    written: tuple[bytes, ...]
    removed: tuple[bytes, ...]


def copy_root(lower: Sequence[str], target: str) -> None:
    """Fill the empty directory `target` with what an overlay of `lower` (top first) would show: whiteouts and opaque directories applied.

    Owners, modes, times, extended attributes, holes and hard links within one tree are kept.
    """
    for tree in reversed(lower):
        _lay_over(os.fsencode(tree), os.fsencode(target), {})


def snapshot(root: str) -> dict[bytes, Stamp]:
    """What is in `root` now, for a later `changes_since`."""
    return dict(_stamps(os.fsencode(root), b""))


def changes_since(root: str, before: dict[bytes, Stamp]) -> Changes:
    """What was written and removed in `root` since `before` was taken of it, compared by inode, kernel's change time, mode and size."""
    after = snapshot(root)
    written = sorted(path for path, stamp in after.items() if before.get(path) != stamp)
    removed = sorted(path for path in before if path not in after and (os.path.dirname(path) in after or b"/" not in path))
    return Changes(written=tuple(written), removed=tuple(removed))


def _stamps(root: bytes, below: bytes) -> Iterator[tuple[bytes, Stamp]]:
    with os.scandir(os.path.join(root, below)) as entries:
        for entry in entries:
            path = os.path.join(below, entry.name)
            found = entry.stat(follow_symlinks=False)
            yield path, (found.st_ino, found.st_ctime_ns, found.st_mode, found.st_size if not stat.S_ISDIR(found.st_mode) else 0)
            if entry.is_dir(follow_symlinks=False):
                yield from _stamps(root, path)


def _lay_over(source: bytes, target: bytes, links: dict[int, bytes]) -> None:
    """Copy the directory `source` over the directory `target`; `links` holds the first copy of each hard-linked inode of this tree."""
    if any(name in os.listxattr(source) for name in _OPAQUE):
        for name in os.listdir(target):
            _remove(os.path.join(target, name))
    with os.scandir(source) as entries:
        for entry in entries:
            _lay_entry(entry, os.path.join(target, entry.name), links)
    _copy_attributes(source, target, os.lstat(source))


def _lay_entry(entry: os.DirEntry[bytes], target: bytes, links: dict[int, bytes]) -> None:
    found = entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        if not _is_directory(target):
            _remove(target)
            os.mkdir(target, 0o700)
        _lay_over(entry.path, target, links)
        return
    _remove(target)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        return  # a whiteout
    if (first := links.get(found.st_ino)) is not None:
        os.link(first, target, follow_symlinks=False)
        return
    _copy_one(entry.path, target, found)
    _copy_attributes(entry.path, target, found)
    if found.st_nlink > 1:
        links[found.st_ino] = target


def _copy_one(source: bytes, target: bytes, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        _copy_content(source, target, found.st_size)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), target)
    else:
        os.mknod(target, found.st_mode, found.st_rdev)


def _copy_content(source: bytes, target: bytes, size_bytes: int) -> None:
    """Copy the parts of a file that hold something, shared with the original where the file system can."""
    with open(source, "rb", buffering=0) as reader, open(target, "xb", buffering=0) as writer:
        end = 0
        while (start := _next_content(reader.fileno(), end)) is not None:
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            _copy_range(reader.fileno(), writer.fileno(), start, end)
        os.ftruncate(writer.fileno(), size_bytes)


def _next_content(fd: int, offset: int) -> int | None:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # "no content after this offset"
            raise
        return None


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(reader, writer, min(_COPY_BYTES, end - start), start, start)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            copied = os.pwrite(writer, os.pread(reader, min(1 << 20, end - start), start), start)
        if not copied:
            return  # the file became shorter
        start += copied


def _copy_attributes(source: bytes, target: bytes, found: os.stat_result) -> None:
    """Owner before mode and capabilities, which a change of owner clears; times last."""
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith(_NOT_COPIED):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _remove(path: bytes) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
