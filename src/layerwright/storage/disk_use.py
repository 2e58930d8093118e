"""How much room things take: blocks of the disk, each file once however many names it has; directories too."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import NamedTuple

_BLOCK = 512  # the unit of st_blocks, whatever the file system's own is. Source: stat(2)


class Volume(NamedTuple):
    """The file system that holds a store. `size_bytes` is what an ordinary user could fill, as df(1) counts."""

    size_bytes: int
    used_bytes: int

    @property
    def used_percent(self) -> float:
        return 100 * self.used_bytes / self.size_bytes if self.size_bytes else 0.0


def volume_of(path: str) -> Volume:
    """Of the directory `path`, or the nearest one above it that exists."""
    path = os.path.abspath(path)
    while True:
        try:
            found = os.statvfs(path)
            break
        except FileNotFoundError:
            path = os.path.dirname(path)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return Volume(size_bytes=used + found.f_bavail * found.f_frsize, used_bytes=used)


def disk_use(path: str) -> int:
    """Bytes that `path` and all below it take on the disk; nothing of other devices, nothing of what cannot be read or is gone meanwhile."""
    try:
        top = os.lstat(path)
    except OSError:
        return 0
    total = top.st_blocks * _BLOCK
    seen: set[int] = set()
    pending = [path] if stat.S_ISDIR(top.st_mode) else []
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev != top.st_dev or found.st_ino in seen:
                        continue
                    if stat.S_ISDIR(found.st_mode):
                        pending.append(entry.path)
                    elif found.st_nlink > 1:
                        seen.add(found.st_ino)
                    total += found.st_blocks * _BLOCK
    return total
