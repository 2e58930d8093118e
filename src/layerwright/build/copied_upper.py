"""From a copied root that a command has changed to an upper directory as overlayfs would have left it: the fallback where overlays are refused."""

from __future__ import annotations

import os
import stat

from layerwright.runtime.copied import Stamp, changes_since


def upper_of_copy(root: str, before: dict[bytes, Stamp], upper: str) -> None:
    """Move what changed in `root` into the empty directory `upper`, and mark there what was removed. `root` is of no use afterwards."""
    changes = changes_since(root, before)
    source, target = os.fsencode(root), os.fsencode(upper)
    _dress(source, target)
    for path in changes.written:
        if path:
            _move(source, target, path)
    for path in changes.removed:
        _with_parents(target, path)
        os.mknod(os.path.join(target, path), stat.S_IFCHR | 0o600, os.makedev(0, 0))
    for path in sorted({b"", *_directories(target)}, key=len, reverse=True):
        if os.path.isdir(os.path.join(source, path)):
            _dress(os.path.join(source, path), os.path.join(target, path))


def _move(source: bytes, target: bytes, path: bytes) -> None:
    _with_parents(target, path)
    found = os.lstat(os.path.join(source, path))
    if stat.S_ISDIR(found.st_mode):
        os.makedirs(os.path.join(target, path), exist_ok=True)
    else:
        os.rename(os.path.join(source, path), os.path.join(target, path))


def _with_parents(target: bytes, path: bytes) -> None:
    os.makedirs(os.path.dirname(os.path.join(target, path)), exist_ok=True)


def _directories(target: bytes) -> list[bytes]:
    return [os.path.relpath(os.path.join(folder, name), target) for folder, names, _ in os.walk(target) for name in names]


def _dress(source: bytes, target: bytes) -> None:
    """Give the directory `target` the owner, mode, xattrs and times of `source`."""
    found = os.lstat(source)
    os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
