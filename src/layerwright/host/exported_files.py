"""Files that a user asked for by name, outside of the store: whole or not there, and with nothing beside them if the process is killed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from layerwright.errors import UsageError
from layerwright.host import pipes
from layerwright.host.files import NotWritable, replacing, sync_directory, telling_full

_BUFFER_BYTES = 1 << 20
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)  # what kernels and file systems say that have no O_TMPFILE
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class NoDirectory(UsageError):
    """The directory of a file to be written is not there."""


def refuse_unwritable(path: str) -> None:
    """Raises NoDirectory, UsageError or NotWritable where no file can be written as `path`: asked before work is done for it."""
    place = os.path.realpath(path)
    parent = os.path.dirname(place)
    if os.path.isdir(place):
        raise UsageError("this is a directory, and a file is to be written", where=path, mend="name a file in it")
    if not os.path.isdir(parent):
        raise NoDirectory(f"there is no directory {parent}", where=path, mend=f"mkdir -p {parent}")
    target = place if os.path.exists(place) and not os.path.isfile(place) else parent
    if not os.access(target, os.W_OK):
        raise NotWritable(f"{target} may not be written", where=path, mend="give yourself write permission there, or name another place")


@contextmanager
def exported_file(
    path: str, *, durable: bool = True, needed_bytes: int | None = None, check: Callable[[], object] = lambda: None
) -> Iterator[BinaryIO | pipes.PipeWriter]:
    """A new file that becomes `path` when the block ends well, replacing a file that is there; through symbolic links.

    Until then it has no name at all (open(2), O_TMPFILE), so nothing is left of it however the process ends; where the file system has no such
    files it has a temporary name beside `path`. What is no regular file (a pipe, /dev/null) is written to as it is; `check`, which may raise,
    is called while a pipe has no reader, or one that does not read.
    Raises UsageError, NotWritable, DiskFull.
    """
    refuse_unwritable(path)
    place = os.path.realpath(path)
    with telling_full(path, needed_bytes=needed_bytes), _telling_denied(path):
        if _is_fifo(place):
            with pipes.fifo(place, check) as pipe:
                yield pipe
        elif os.path.exists(place) and not os.path.isfile(place):
            with open(os.open(place, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=_BUFFER_BYTES) as special:
                yield special
        elif (fd := _unnamed(os.path.dirname(place))) is None:
            with replacing(place, durable=durable, needed_bytes=needed_bytes) as named:
                yield named
        else:
            with open(fd, "wb", buffering=_BUFFER_BYTES) as out:
                yield out
                out.flush()
                if durable:
                    os.fsync(fd)
                _give_name(fd, place)
            if durable:
                sync_directory(os.path.dirname(place))


def _is_fifo(path: str) -> bool:
    return os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)


@contextmanager
def _telling_denied(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DENIED:
            raise NotWritable(f"cannot write here: {error.strerror}", where=path, mend="give yourself write permission there, or name another place") from error
        raise


def _unnamed(directory: str) -> int | None:
    if not os.path.isdir("/proc/self/fd"):
        return None  # no way to give it a name later
    try:
        return os.open(directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in _NO_UNNAMED:
            return None
        raise


def _give_name(fd: int, path: str) -> None:
    """Source: open(2), O_TMPFILE: linkat(2) through /proc, which Python only calls when it is given a directory."""
    directory_fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = os.path.basename(path)
        try:
            os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd, follow_symlinks=True)
            return
        except FileExistsError:
            pass
        temporary = f".tmp-{os.urandom(8).hex()}"
        os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=directory_fd, dst_dir_fd=directory_fd, follow_symlinks=True)
        try:
            os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory_fd)
            raise
    finally:
        os.close(directory_fd)


def is_terminal(out: BinaryIO) -> bool:
    """Whether what is written to `out` would end on a screen."""
    try:
        return stat.S_ISCHR(os.fstat(out.fileno()).st_mode) and out.isatty()
    except (OSError, ValueError, AttributeError):
        return False
