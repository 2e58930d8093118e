"""Which extended attributes belong to an image, and their way on and off the disk.

Kept: `user.*`, `trusted.*`, file capabilities and ACLs. Not the image's: overlayfs's own marks, and labels that a machine's
security module puts on every file (SELinux, AppArmor, IMA); they would make equal files differ from host to host.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

CAPABILITY = b"security.capability"
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
_KEPT = (b"user.", b"trusted.", CAPABILITY, b"system.posix_acl_access", b"system.posix_acl_default")
_ALWAYS_FITS = 1024  # bytes; ext4 says "no space" of an attribute larger than what is left of one block
_NOT_HERE = (errno.ENOTSUP, errno.EPERM, errno.EACCES)

Xattrs = tuple[tuple[bytes, bytes], ...]


def is_kept(name: bytes) -> bool:
    return name.startswith(_KEPT) and not name.startswith(_OVERLAY)


def overlay_name(mark: str, *, user_xattr: bool) -> str:
    """The attribute that holds overlayfs's `mark` ("opaque"); in a user namespace it may only use `user.`."""
    return f"{'user' if user_xattr else 'trusted'}.overlay.{mark}"


def list_xattrs(path: bytes) -> list[bytes]:
    """The names of all attributes of `path`, itself if it is a symlink."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    return [os.fsencode(name) for name in names] if names else []


def kept_xattrs(path: bytes, names: Iterable[bytes]) -> Xattrs:
    """Those of the attributes `names` that belong to the image, sorted."""
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names) if is_kept(name))


class UnfitXattr(OSError):
    """An attribute that the kernel or this file system refuses for what it is: malformed, or larger than there is room for at a file."""


def apply_xattrs(xattrs: Iterable[tuple[bytes, bytes]], setter: Callable[[bytes, bytes], None]) -> None:
    """Set what the file system and our rights allow. Only a capability that cannot be set is an error: programs would break unseen.

    Raises UnfitXattr for what is malformed or too large.
    """
    for name, value in xattrs:
        try:
            setter(name, value)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.E2BIG, errno.ERANGE) or (error.errno == errno.ENOSPC and len(value) > _ALWAYS_FITS):
                raise UnfitXattr(error.errno, f"{os.fsdecode(name)!r}, {len(value):,} bytes: {error.strerror}") from error
            if name == CAPABILITY or error.errno not in _NOT_HERE:
                raise
