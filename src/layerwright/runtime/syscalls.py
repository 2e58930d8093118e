"""The system calls that Python 3.11 has no function for, one thin function each: the only ctypes of the project.

Imported by worker processes only: no other process changes what it is mounted on, and loading ctypes costs some milliseconds.
Every function raises OSError with errno and, where there is one, the path. Source: man 2 mount, umount2, unshare, setns, prctl, syncfs.
"""

from __future__ import annotations

import ctypes
import os

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MS_SLAVE = 0x8_0000
MS_RELATIME = 0x20_0000

MNT_DETACH = 0x2

CLONE_NEWNS = 0x2_0000
CLONE_NEWCGROUP = 0x200_0000
CLONE_NEWUTS = 0x400_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.syncfs.argtypes = (ctypes.c_int,)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). `kind` is the file system type, "" for bind mounts, remounts and changes of propagation; `options` must fit in one page."""
    result = _libc.mount(os.fsencode(source), os.fsencode(target), os.fsencode(kind) or None, flags, os.fsencode(options) or None)
    _check(result, target)


def unmount(target: str, *, detach: bool = False) -> None:
    """umount2(2). `detach` takes it out of sight at once and ends it when its last user is gone."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH if detach else 0), target)


def unshare(flags: int) -> None:
    """Leave the given namespaces for new ones; with CLONE_NEWPID the next children enter it, not this process."""
    _check(_libc.unshare(flags))


def set_namespace(fd: int, kind: int) -> None:
    """setns(2): enter the namespace that `fd` stands for; with CLONE_NEWPID the next children enter it."""
    _check(_libc.setns(fd, kind))


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send `signal` to this process when the *thread* that made it ends: only for children of single-threaded processes."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0))


def become_subreaper() -> None:
    """Adopt every descendant whose parent ends."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def sync_file_system(path: str) -> None:
    """Write everything of the file system that holds `path` to its disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(fd), path)
    finally:
        os.close(fd)


def _check(result: int, path: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
