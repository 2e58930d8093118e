"""Files that are visible whole or not at all, and removal that stays inside one mount."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TypeVar

from layerwright.errors import MachineLacks

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK)
_NO_ROOM_BYTES = 65536
_MADE_AGAIN = 8
_DEEP = 48  # levels of directories open at once while removing; what is deeper is moved up first
T = TypeVar("T")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DiskFull(MachineLacks):
    """No space, no inodes, or no quota left where something was to be written."""


class NotWritable(MachineLacks):
    """A place that this user may not write."""


@contextmanager
def telling_full(path: str, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn "no space" inside the block into DiskFull, which names `path` and what was needed."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(path, needed_bytes, error) from error
        raise


def refuse_full(path: str) -> None:
    """Raises DiskFull if the file system of `path` has no room left: for a program that failed and may have said so in words only."""
    state = os.statvfs(_existing(path))
    if state.f_bavail * state.f_frsize < _NO_ROOM_BYTES or (state.f_files and not state.f_favail):
        raise _disk_full(path, None, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def _disk_full(path: str, needed_bytes: int | None, error: OSError) -> DiskFull:
    place = _existing(os.path.dirname(path))
    lacking = "the quota is used up" if error.errno == errno.EDQUOT else "no space left on the file system"
    free_bytes = -1
    with suppress(OSError):
        state = os.statvfs(place)
        free_bytes = state.f_bavail * state.f_frsize
        if error.errno == errno.ENOSPC and state.f_files and not state.f_favail:
            lacking = "no inodes left on the file system"
    needed = "" if needed_bytes is None else f", {needed_bytes} bytes needed"
    free = "" if free_bytes < 0 else f", {free_bytes} bytes free"
    mend = f"free some space (`df -h {_mount_point(place)}` shows the file system), or choose another one; the store goes where LAYERWRIGHT_HOME says"
    return DiskFull(f"{lacking}{needed}{free}", where=path, mend=mend)


def _mount_point(path: str) -> str:
    """Where the file system of the directory `path` begins: it is still there when what lay in it has been removed."""
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _existing(path: str) -> str:
    """The nearest directory above `path` that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


class Pending:
    """A file being written under a temporary name: `out`. It gets its own name by `become` or `become_once`, or is gone after the block."""

    def __init__(self, out: BinaryIO, temporary: str) -> None:
        self.out = out
        self._temporary = temporary

    def become(self, path: str, *, durable: bool = True) -> None:
        """Take the name `path`, replacing what has it; `durable`: survive a power cut, content and name."""
        self._finish(durable)
        with_parent(path, lambda: os.rename(self._temporary, path))
        if durable:
            sync_directory(os.path.dirname(path))

    def become_once(self, path: str, *, durable: bool = True) -> bool:
        """Take the name `path` unless something has it: then False. Raises MachineLacks on a file system without hard links."""
        self._finish(durable)
        try:
            with_parent(path, lambda: os.link(self._temporary, path))
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                mend = "use another file system; the store goes where LAYERWRIGHT_HOME says"
                raise MachineLacks(f"the file system makes no hard links: {error.strerror}", where=path, mend=mend) from error
            raise
        if durable:
            sync_directory(os.path.dirname(path))
        return True

    def _finish(self, durable: bool) -> None:
        self.out.flush()
        if durable:
            os.fsync(self.out.fileno())
        self.out.close()


@contextmanager
def pending_file(directory: str, *, shown: str = "", mode: int = 0o644, needed_bytes: int | None = None) -> Iterator[Pending]:
    """A new file in `directory`, which is made if missing; `shown` is the path to name when the disk is full. Raises DiskFull, NotWritable."""
    temporary = os.path.join(directory or ".", f".tmp-{os.urandom(8).hex()}")
    with telling_full(shown or temporary, needed_bytes=needed_bytes):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.fdopen(with_parent(temporary, lambda: os.open(temporary, flags, mode)), "wb", buffering=1 << 16)
        try:
            yield Pending(out, temporary)
        finally:
            with suppress(OSError):  # a full disk fails a second time while closing; the first failure is the one to tell
                out.close()
            with suppress(OSError):
                os.unlink(temporary)


@contextmanager
def replacing(path: str, *, scratch: str | None = None, durable: bool = True, mode: int = 0o644, needed_bytes: int | None = None) -> Iterator[BinaryIO]:
    """A new file that becomes `path` when the block ends well, replacing what was there: a reader sees the old one or the whole new one.

    Written in `scratch` (a directory of the same file system; default: beside `path`); missing directories above `path` are made.
    Leaving the block: fsync file, rename, fsync directory; `durable=False` skips both, for what is checked where it is read.
    Raises DiskFull, NotWritable.
    """
    with pending_file(scratch or os.path.dirname(path), shown=path, mode=mode, needed_bytes=needed_bytes) as new:
        yield new.out
        new.become(path, durable=durable)


def write_once(path: str, content: bytes, *, scratch: str | None = None, durable: bool = True, mode: int = 0o644) -> bool:
    """Make `path` with `content` unless it exists already; False if it does. Of many at once exactly one gets True.

    Raises DiskFull, NotWritable, MachineLacks.
    """
    with pending_file(scratch or os.path.dirname(path), shown=path, mode=mode, needed_bytes=len(content)) as new:
        new.out.write(content)
        return new.become_once(path, durable=durable)


def with_parent(path: str, act: Callable[[], T]) -> T:
    """Do `act`, which makes `path`; if its directory is missing, make that and do it again. Raises NotWritable.

    More than once: a clean-up removes empty directories, the one just made among them.
    """
    try:
        for _ in range(_MADE_AGAIN):
            try:
                return act()
            except FileNotFoundError:
                with suppress(FileNotFoundError):
                    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        return act()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS):
            mend = "give yourself write permission there, or choose another place; the store goes where LAYERWRIGHT_HOME says"
            raise NotWritable(f"cannot write here: {error.strerror}", where=path, mend=mend) from error
        raise


def make_private(path: str) -> None:
    """The directory `path`, made if it is not there, and closed to other users: what an image brings along, programs with the setuid bit and
    device nodes among it, is not for them to use. Raises NotWritable."""
    try:
        if os.stat(path).st_mode & 0o077 == 0:
            return
        os.chmod(path, 0o700)
    except FileNotFoundError:
        with_parent(path, lambda: os.makedirs(path, mode=0o700, exist_ok=True))
    except PermissionError:
        pass  # another's: whoever owns it decides


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut, where the file system can."""
    fd = os.open(path or ".", _DIRECTORY)
    try:
        with suppress(OSError):  # some file systems refuse to sync a directory; then names are as safe as they get
            os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(path: str) -> tuple[str, ...]:
    """Remove `path` and all below it; return the mount points that were left, with the directories above them.

    No symbolic link is followed. Nothing behind a mount point (a bind mount of the same device too) or on another device is touched.
    Directories without permissions are opened up. A path that is not there is no error. Raises OSError for what may not be removed.
    """
    parent, name = os.path.split(os.path.abspath(path))
    try:
        parent_fd = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    try:
        removal = _Removal(device=os.fstat(parent_fd).st_dev)
        removal.remove(parent_fd, name, path)
    finally:
        os.close(parent_fd)
    return tuple(removal.kept)


class _Removal:
    """One removal: the device it stays on, and what it had to leave."""

    def __init__(self, *, device: int) -> None:
        self.kept: list[str] = []
        self._device = device
        self._top_fd = -1
        self._hoisted: list[tuple[str, str]] = []  # name in the top directory, path it had

    def remove(self, parent_fd: int, name: str, shown: str) -> None:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                self._directory(parent_fd, name, shown, depth=0)
            else:
                self._file(parent_fd, name, shown)

    def _file(self, parent_fd: int, name: str, shown: str) -> None:
        try:
            os.unlink(name, dir_fd=parent_fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY:  # busy: a file is mounted over it
                raise
            self.kept.append(shown)

    def _directory(self, parent_fd: int, name: str, shown: str, *, depth: int) -> None:
        fd = _open_directory(name, parent_fd)
        try:
            if os.fstat(fd).st_dev != self._device or not _same_mount(parent_fd, fd):
                self.kept.append(shown)
                return
            if depth > _DEEP:
                self._hoist(parent_fd, name, fd, shown)
                return
            if depth == 0:
                self._top_fd = fd
            self._empty(fd, shown, depth)
        finally:
            os.close(fd)
        try:
            os.rmdir(name, dir_fd=parent_fd)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT) or not (self.kept or error.errno == errno.ENOENT):
                raise

    def _empty(self, fd: int, shown: str, depth: int) -> None:
        listing_fd = _open_up(fd)
        try:
            with os.scandir(listing_fd) as found:
                entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
            for name, is_directory in entries:
                if is_directory:
                    self._directory(listing_fd, name, os.path.join(shown, name), depth=depth + 1)
                else:
                    self._file(listing_fd, name, os.path.join(shown, name))
        finally:
            os.close(listing_fd)
        while depth == 0 and self._hoisted:
            moved, was = self._hoisted.pop()
            self._directory(fd, moved, was, depth=1)

    def _hoist(self, parent_fd: int, name: str, fd: int, shown: str) -> None:
        """Move a deep directory to the top, so that no depth needs more open directories than a process may have."""
        os.close(_open_up(fd))
        moved = f".removed-{os.urandom(8).hex()}"
        os.rename(name, moved, src_dir_fd=parent_fd, dst_dir_fd=self._top_fd)
        self._hoisted.append((moved, shown))


def _open_directory(name: str, parent_fd: int) -> int:
    """A handle on a directory whose permissions may forbid reading it."""
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)


def _open_up(fd: int) -> int:
    """The directory of the handle `fd`, opened for reading and, where the owner had no full permissions, given them."""
    if os.geteuid() != 0 and os.fstat(fd).st_mode & 0o700 != 0o700:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    return os.open(".", _DIRECTORY, dir_fd=fd)


def _same_mount(one_fd: int, other_fd: int) -> bool:
    """Whether two directories are reached through the same mount.

    Source: rename(2), EXDEV: "rename() does not work across different mount points, even if the same filesystem is mounted on both";
    the kernel says so before it looks for the name. Six times faster than reading two files of /proc for each directory.
    """
    name = f".no-such-{os.urandom(8).hex()}"
    try:
        os.rename(name, name, src_dir_fd=other_fd, dst_dir_fd=one_fd)
    except OSError as error:
        if error.errno == errno.EACCES:  # a directory without permissions: it may not be asked that way
            return _mount_id(one_fd) == _mount_id(other_fd)
        return error.errno == errno.ENOENT
    return False


def _mount_id(fd: int) -> bytes:
    """Source: proc_pid_fdinfo(5), mnt_id."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))
