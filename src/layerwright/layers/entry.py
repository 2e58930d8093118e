"""One entry of a layer, as every module of this room speaks of it. Source: OCI image-spec 1.1 layer.md; POSIX pax."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple, Protocol

# Kinds. A whiteout's path is the path it removes; an opaque mark's path is the directory whose lower content it hides.
FILE, DIRECTORY, SYMLINK, HARDLINK, CHAR, BLOCK, FIFO, WHITEOUT, OPAQUE = "file", "dir", "symlink", "hardlink", "char", "block", "fifo", "whiteout", "opaque"


class Entry(NamedTuple):
    """`path` is relative to the root, no leading or trailing slash; b"" is the root directory itself.

    `mode`: permission bits with setuid, setgid, sticky (0o7777). `link`: a symlink's target as written; for a hard link the path of its
    first name. `xattrs` sorted by name (b"security.capability" included). `digest`: "sha256:…" of a file's content, "" otherwise.
    `offset`: of a file's content in the uncompressed tar, -1 where there is none. `size` is 0 for all but files.
    """

    path: bytes
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    digest: str = ""
    offset: int = -1


class Content(Protocol):
    """Opens the bytes of one file, from its start; whoever opens closes."""

    def __call__(self) -> BinaryIO: ...


class NewEntry(NamedTuple):
    """An entry to be written, and for a file how to read it."""

    entry: Entry
    content: Content | None = None
