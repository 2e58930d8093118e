"""Layer tars, written: our own writer, because the bytes are the identity of a layer. `read_tar` reads anybody's.

The bytes depend on the entries and contents alone: ustar, with a pax header only before an entry that needs one, records in byte order,
whole seconds, numeric owners, no names of them. Names that are not ASCII go into a pax record as they are: GNU tar, Go's archive/tar
(podman, umoci, containerd) and Python read them back byte for byte, valid UTF-8 or not; `hdrcharset` would only make GNU tar warn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType
from typing import NamedTuple, Protocol

from layerwright.errors import LayerwrightError
from layerwright.layers.entry import BLOCK as BLOCK_DEVICE
from layerwright.layers.entry import CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Content, Entry, NewEntry
from layerwright.layers.shown import shown
from layerwright.layers.tar_reader import BadLayer, read_tar
from layerwright.layers.texts import is_kept_text
from layerwright.layers.ustar import NAME_MAX, OCTAL_7, OCTAL_11, ZEROS, encode_header, encode_record, padding, split_name
from layerwright.limits import Limits
from layerwright.oci.digest import DiffId

__all__ = ["BadLayer", "LayerSummary", "Limits", "SupportsWrite", "TarWriter", "UnwritableEntry", "read_tar"]

PIECE = 1 << 20  # what is hashed and handed on at once
WHITEOUT_PREFIX, OPAQUE_NAME = b".wh.", b".wh..wh..opq"

_TYPEFLAGS = {
    FILE: b"0",
    HARDLINK: b"1",
    SYMLINK: b"2",
    CHAR: b"3",
    BLOCK_DEVICE: b"4",
    DIRECTORY: b"5",
    FIFO: b"6",
    WHITEOUT: b"0",
    OPAQUE: b"0",
}


class UnwritableEntry(LayerwrightError):
    """An entry that no layer tar can hold, or whose content is not what its entry promises. `where` is its path."""


class SupportsWrite(Protocol):
    def write(self, piece: bytes, /) -> object: ...


class LayerSummary(NamedTuple):
    """A written layer: `size` in bytes of the uncompressed tar, `entries` in its order, `texts` as the file index keeps them."""

    diff_id: DiffId
    size: int
    entries: tuple[Entry, ...]
    texts: Mapping[bytes, bytes]


class TarWriter:
    """Writes entries to `out` in the order given, streaming; hashes as it goes. After an error it is of no more use."""

    def __init__(self, out: SupportsWrite) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._flushed = 0
        self._entries: list[Entry] = []
        self._texts: dict[bytes, bytes] = {}

    def add(self, new: NewEntry) -> Entry:
        """Write one entry; give it back as the file index will hold it: whole seconds, digest and offset filled.

        Raises UnwritableEntry: a name no tar can hold, a content shorter or longer than `size`, or not of `digest` where one is given.
        """
        entry = new.entry
        entry = entry._replace(
            mtime_ns=entry.mtime_ns // 10**9 * 10**9, xattrs=tuple(sorted(entry.xattrs)), size=entry.size if entry.kind == FILE else 0, offset=-1
        )
        name = _name_in_tar(entry)
        self._header(name, entry)
        if entry.kind == FILE:
            offset = self._flushed + self._pending_bytes
            digest = self._content(entry, new.content)
            if entry.digest not in ("", digest):
                raise _unwritable(entry.path, f"the content of {shown(entry.path)} is {digest} instead of {entry.digest}", "it changed since it was indexed")
            entry = entry._replace(digest=digest, offset=offset)
        self._entries.append(entry)
        return entry

    def close(self) -> LayerSummary:
        """Write the end mark and what is pending. Does not close `out`."""
        self._put(ZEROS + ZEROS)
        self._flush()
        diff_id = DiffId("sha256:" + self._hash.hexdigest())
        return LayerSummary(diff_id, self._flushed, tuple(self._entries), MappingProxyType(self._texts))

    def _header(self, name: bytes, entry: Entry) -> None:
        mtime = entry.mtime_ns // 10**9
        link = entry.link if entry.kind in (SYMLINK, HARDLINK) else b""
        records = _records(name, link, mtime, entry)
        if records:
            body = b"".join(encode_record(key, value) for key, value in sorted(records))
            self._put(encode_header(name=b"././@PaxHeader", typeflag=b"x", mode=0o644, size=len(body)))
            self._put(body + bytes(padding(len(body))))
        self._put(
            encode_header(
                name=name,
                typeflag=_TYPEFLAGS[entry.kind],
                mode=entry.mode,
                uid=entry.uid,
                gid=entry.gid,
                size=entry.size,
                mtime=mtime,
                link=link,
                device=entry.device,
            )
        )

    def _content(self, entry: Entry, content: Content | None) -> str:
        digest = hashlib.sha256()
        left = entry.size
        kept: list[bytes] | None = [] if is_kept_text(entry) else None
        if content is not None:
            with closing(content()) as stream:
                # One byte more than is left is asked for, so that a content that grew is noticed.
                while piece := stream.read(min(PIECE, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        raise _unwritable(entry.path, f"{shown(entry.path)} has more than the {entry.size} bytes of its entry", "it grew while it was read")
                    digest.update(piece)
                    self._put(piece)
                    if kept is not None:
                        kept.append(piece)
        if left:
            raise _unwritable(entry.path, f"{shown(entry.path)} has {entry.size - left} bytes instead of {entry.size}", "it shrank while it was read")
        if filler := padding(entry.size):
            self._put(ZEROS[:filler])
        if kept is not None:
            self._texts[entry.path] = b"".join(kept)
        return "sha256:" + digest.hexdigest()

    def _put(self, piece: bytes) -> None:
        self._pending.append(piece)
        self._pending_bytes += len(piece)
        if self._pending_bytes >= PIECE:
            self._flush()

    def _flush(self) -> None:
        piece = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending = []
        self._flushed += self._pending_bytes
        self._pending_bytes = 0
        self._hash.update(piece)
        self._out.write(piece)


def _records(name: bytes, link: bytes, mtime: int, entry: Entry) -> list[tuple[bytes, bytes]]:
    """What the ustar header cannot hold."""
    records: list[tuple[bytes, bytes]] = []
    if not name.isascii() or (len(name) > NAME_MAX and split_name(name) is None):
        records.append((b"path", name))
    if len(link) > NAME_MAX or not link.isascii():
        records.append((b"linkpath", link))
    if entry.size >= OCTAL_11:
        records.append((b"size", b"%d" % entry.size))
    if entry.uid >= OCTAL_7:
        records.append((b"uid", b"%d" % entry.uid))
    if entry.gid >= OCTAL_7:
        records.append((b"gid", b"%d" % entry.gid))
    if not 0 <= mtime < OCTAL_11:
        records.append((b"mtime", b"%d" % mtime))
    for key, value in entry.xattrs:
        if b"=" in key or b"\0" in key:
            raise _unwritable(entry.path, f"the extended attribute {key!r} of {shown(entry.path)} has a name that a pax record cannot hold", "remove it")
        records.append((b"SCHILY.xattr." + key, value))
    return records


def _name_in_tar(entry: Entry) -> bytes:
    path = entry.path
    if not path:
        if entry.kind == OPAQUE:
            return OPAQUE_NAME
        if entry.kind == DIRECTORY:
            return b"./"
        raise _unwritable(path, "the root can only be a directory", "")
    _check_path(path, entry.kind)
    if entry.kind == HARDLINK:
        _check_path(entry.link, HARDLINK)
    elif entry.kind == SYMLINK and (not entry.link or b"\0" in entry.link):
        raise _unwritable(path, f"the symlink {shown(path)} has a target that no tar can hold: {entry.link!r}", "")
    if entry.kind == DIRECTORY:
        return path + b"/"
    if entry.kind == OPAQUE:
        return path + b"/" + OPAQUE_NAME
    if entry.kind == WHITEOUT:
        parent, slash, name = path.rpartition(b"/")
        return parent + slash + WHITEOUT_PREFIX + name
    return path


def _check_path(path: bytes, kind: str) -> None:
    names = path.split(b"/")
    if b"\0" in path or not {b"", b".", b".."}.isdisjoint(names):
        raise _unwritable(path, f"{path!r} is not a path relative to the root", "")
    # A name of the image's own would be read as a removal. Source: image-spec layer.md, "Whiteouts".
    if b".wh." in path and any(name.startswith(WHITEOUT_PREFIX) for name in names):
        raise _unwritable(path, f"a layer cannot hold {shown(path)}: names beginning with .wh. mean removals there", "rename or remove the file")


def _unwritable(path: bytes, what: str, mend: str) -> UnwritableEntry:
    return UnwritableEntry(what, where=shown(path), mend=mend)
