"""Layer tars, read: anybody's, as a stream, trusting nothing.

Understood: ustar, V7, GNU long names and base-256 numbers, pax (global headers too), SCHILY.xattr and LIBARCHIVE.xattr, star's prefix.
Refused by name: sparse and multi-volume members. Owner names are ignored: an image's ids are numbers.
An archive may end without the two zero blocks (some tools leave them out); that nothing is missing is the diff id's business.
"""

from __future__ import annotations

import binascii
import io
import re
from collections.abc import Iterator
from typing import BinaryIO, cast

from layerwright.errors import LayerwrightError
from layerwright.layers.entry import BLOCK as BLOCK_DEVICE
from layerwright.layers.entry import CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.shown import cut
from layerwright.layers.ustar import BLOCK, ZEROS, BadField, Header, decode_decimal, decode_header, decode_records, decode_size, decode_time, padding
from layerwright.layers.xattrs import Xattrs, is_kept
from layerwright.limits import HEADER_BYTES, NAME_BYTES, PATH_BYTES, VARIABLES, XATTR_LIST_BYTES, XATTR_NAME_BYTES, XATTR_VALUE_BYTES, Limits

_CHUNK = 1 << 18
_ID_MAX = 2**32 - 2  # the highest is "no id" to chown
_TIME_MAX_NS = 10**21  # 30,000 years; further off is nonsense, but no harm
_MAJOR_MAX, _MINOR_MAX = 2**12 - 1, 2**20 - 1  # what Linux has
_GLOBAL_RECORDS = 100  # that mean something to us; each costs time at every member
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"1": HARDLINK,
    b"2": SYMLINK,
    b"3": CHAR,
    b"4": BLOCK_DEVICE,
    b"5": DIRECTORY,
    b"6": FIFO,
}
_REFUSED = {b"S": "a sparse file", b"M": "a continued multi-volume file", b"D": "a GNU incremental directory"}
_SCHILY, _LIBARCHIVE, _SPARSE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr.", b"GNU.sparse."
_USED = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"))
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_MEND = "the image is damaged or hostile; pull it again, or ask whoever published it"


class BadLayer(LayerwrightError):
    """A layer that cannot be read, or that asks for what no layer may. `where` says at which byte of the uncompressed tar."""


def read_tar(stream: BinaryIO, limits: Limits | None = None) -> Iterator[tuple[Entry, BinaryIO]]:
    """The entries of an uncompressed layer in its order, each with its content, which is valid until the next is asked for.

    Entries come as written: duplicates, missing parents and dangling hard links are the caller's to judge. Paths are cleaned (`./a`, `/a`
    and `a/` are `a`); `..` is refused. The stream is read to its end. Memory is bounded by what one header may hold. Raises BadLayer.
    """
    return _TarReader(stream, limits or Limits()).entries()


def over(limit: str, what: str, *, where: str) -> BadLayer:
    """What is refused for its size alone, and which variable allows more."""
    variable = next(name for name, field in VARIABLES.items() if field == limit)
    return BadLayer(what, where=where, mend=f"if you trust the image and have the room, set {variable} to a higher number")


def bad_layer(what: str, offset: int, *, mend: str = _MEND) -> BadLayer:
    return BadLayer(what, where=_byte(offset), mend=mend)


def _byte(offset: int) -> str:
    return f"byte {offset} of the layer"


class _Source:
    """The stream in pieces of our own size, and how far it is read."""

    def __init__(self, stream: BinaryIO, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._chunk = b""
        self._at = 0
        self._before = 0

    @property
    def offset(self) -> int:
        return self._before + self._at

    def piece(self, size: int) -> bytes:
        """1 to `size` bytes; none at the end."""
        at = self._at
        if at >= len(self._chunk):
            self._before += at
            self._at = at = 0
            self._chunk = self._stream.read(_CHUNK)
            if self._before + len(self._chunk) > self._limit_bytes:
                raise over("layer_bytes", f"the layer is larger than {self._limit_bytes:,} bytes", where=_byte(self._before))
        piece = self._chunk[at : at + size]
        self._at = at + len(piece)
        return piece

    def take(self, size: int) -> bytes:
        """`size` bytes; fewer only at the end."""
        piece = self.piece(size)
        if len(piece) == size or not piece:
            return piece
        pieces = [piece]
        left = size - len(piece)
        while left and (piece := self.piece(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


class _MemberContent(io.RawIOBase):
    """The content of the entry that was read last."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self.left = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """All that is left when no size is given, else at most `size` bytes, none only at the end."""
        left = self.left
        if size is None or size < 0:
            piece = self._source.take(left)
            short = len(piece) < left
        else:
            piece = self._source.piece(min(size, left)) if left else b""
            short = not piece and left > 0 and size > 0
        if short:
            raise bad_layer("the layer ends in the middle of a file", self._source.offset)
        self.left = left - len(piece)
        return piece

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def skip(self) -> None:
        while self.left:
            self.read(_CHUNK)


class _TarReader:
    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._source = _Source(stream, limits.layer_bytes)
        self._content = _MemberContent(self._source)
        self._limits = limits
        self._global: dict[bytes, bytes] = {}
        self._records: dict[bytes, bytes] = {}
        self._payload = 0  # what follows the header read last
        self._count = 0  # of headers, extended ones included
        self._members = 0
        self._metadata = 0  # bytes of names, targets and attributes

    def entries(self) -> Iterator[tuple[Entry, BinaryIO]]:
        source, content = self._source, self._content
        given = cast(BinaryIO, content)
        while True:
            at = source.offset
            block = source.take(BLOCK)
            if not block or block == ZEROS:
                self._end(at, block)
                return
            if len(block) < BLOCK:
                raise bad_layer("the layer ends in the middle of a header", at)
            try:
                entry = self._entry(block)
            except BadField as error:
                raise bad_layer(f"{error}", at) from None
            size = self._payload
            self._count_in(entry, at)
            filler = padding(size)
            content.left = size
            if entry is not None:
                yield entry, given
            content.skip()
            if filler and len(source.take(filler)) < filler:
                raise bad_layer("the layer ends in the middle of a file", source.offset)

    def _count_in(self, entry: Entry | None, at: int) -> None:
        self._count += 1
        most = self._limits.layer_entries
        if self._count > 3 * most or self._members > most:
            raise over("layer_entries", f"the layer has more than {most:,} entries", where=_byte(at))
        if entry is not None:
            self._metadata += len(entry.path) + len(entry.link)
            if entry.xattrs:
                self._metadata += sum(len(name) + len(value) for name, value in entry.xattrs)
            if self._metadata > self._limits.metadata_bytes:
                what = f"the layer's names and attributes are larger than {self._limits.metadata_bytes:,} bytes"
                raise over("metadata_bytes", what, where=_byte(at))

    def _end(self, at: int, block: bytes) -> None:
        if block and self._source.take(BLOCK) not in (ZEROS, b""):
            raise bad_layer("one zero block where two end a tar", at)
        while self._source.piece(_CHUNK):
            pass

    def _entry(self, block: bytes) -> Entry | None:
        """The entry of a header block; None for a header that only prepares the next one, or stands for nothing."""
        self._payload = 0
        flag = block[156:157]
        if flag in _KINDS:
            records = {**self._global, **self._records} if self._global else self._records
            self._records = {}
            return self._member(decode_header(block), records)
        match flag:
            case b"x" | b"X":
                self._records.update(_used_records(self._body(block)))
            case b"g":
                self._global.update(_used_records(self._body(block)))
                if len(self._global) > _GLOBAL_RECORDS:
                    raise BadField(f"more than {_GLOBAL_RECORDS} records in global extended headers")
            case b"L":
                self._records[b"path"] = self._body(block).partition(b"\0")[0]
            case b"K":
                self._records[b"linkpath"] = self._body(block).partition(b"\0")[0]
            case b"V":
                self._body(block)
            case _:
                raise BadField(f"{cut(decode_header(block).name)!r} is {_REFUSED.get(flag, f'of the unknown type {flag!r}')}, which is not supported")
        return None

    def _body(self, block: bytes) -> bytes:
        size = decode_size(block)
        if not 0 <= size <= HEADER_BYTES:
            raise BadField(f"an extended header of {size:,} bytes")
        body = self._source.take(size + padding(size))
        if len(body) < size + padding(size):
            raise BadField("the layer ends in the middle of an extended header")
        return body[:size]

    def _member(self, header: Header, records: dict[bytes, bytes]) -> Entry | None:
        name, mode, uid, gid, size, mtime, flag, link, device = header
        kind = _KINDS[flag]
        mtime_ns = mtime * 10**9
        xattrs: Xattrs = ()
        if records:
            name = records.get(b"path") or name
            link = records.get(b"linkpath") or link
            if value := records.get(b"size"):
                size = decode_decimal(value, "size")
            if value := records.get(b"uid"):
                uid = decode_decimal(value, "uid")
            if value := records.get(b"gid"):
                gid = decode_decimal(value, "gid")
            if value := records.get(b"mtime"):
                mtime_ns = decode_time(value)
            xattrs = _xattrs(records)
        if not -_TIME_MAX_NS <= mtime_ns <= _TIME_MAX_NS:
            mtime_ns = _TIME_MAX_NS if mtime_ns > 0 else -_TIME_MAX_NS
        if kind == FILE and name[-1:] == b"/":
            kind = DIRECTORY  # V7 has no type for it
            if size:  # others read a file here, and go on behind its content
                raise BadField(f"{cut(name)!r} is a directory with a content")
        if kind != FILE:
            size = 0
        elif size < 0:
            raise BadField("a file of negative size")
        self._payload = size
        self._members += 1
        if not (0 <= uid <= _ID_MAX and 0 <= gid <= _ID_MAX):
            raise BadField(f"{cut(name)!r} has an owner out of range: {uid}:{gid}")
        if kind in (CHAR, BLOCK_DEVICE) and not (0 <= device[0] <= _MAJOR_MAX and 0 <= device[1] <= _MINOR_MAX):
            raise BadField(f"{cut(name)!r} is a device with an impossible number")
        path = self._clean(name)
        if kind in (SYMLINK, HARDLINK):
            link = self._clean(link) if kind == HARDLINK else self._checked_target(path, link)
        else:
            link = b""
        entry = Entry(path, kind, mode & 0o7777, uid, gid, mtime_ns, size, link, device, xattrs, "", self._source.offset if kind == FILE else -1)
        return _with_marks(entry) if b".wh." in path else self._checked_root(entry)

    def _checked_root(self, entry: Entry) -> Entry | None:
        if entry.path or entry.kind == DIRECTORY:
            return entry
        raise BadField(f"the root as a {entry.kind}")

    def _checked_target(self, path: bytes, target: bytes) -> bytes:
        if not target or b"\0" in target or len(target) > PATH_BYTES:
            raise BadField(f"{cut(path)!r} is a symlink whose target cannot be: {cut(target)!r}")
        return target

    def _clean(self, name: bytes) -> bytes:
        path = name.lstrip(b"/").rstrip(b"/")
        if path[:1] == b"." or b"//" in path or b"/." in path:
            names = [part for part in path.split(b"/") if part not in (b"", b".")]
            if b".." in names:
                raise BadField(f"{cut(name)!r} leads out of the root")
            path = b"/".join(names)
        if len(path) > PATH_BYTES:
            raise BadField(f"a name of {len(path):,} bytes: {name[:60]!r}...")
        if len(path) > NAME_BYTES and max(len(part.removeprefix(b".wh.")) for part in path.split(b"/")) > NAME_BYTES:
            raise BadField(f"a name with a part longer than {NAME_BYTES} bytes: {name[:60]!r}...")
        if b"\0" in path:
            raise BadField(f"a name with a NUL: {cut(name)!r}")
        return path


def _with_marks(entry: Entry) -> Entry | None:
    """Whiteouts and opaque marks for what they are; None for aufs's own files. Source: image-spec layer.md, "Whiteouts"."""
    parent, slash, name = entry.path.rpartition(b"/")
    if parent[:4] == b".wh." or b"/.wh." in parent:
        if b"/.wh..wh." in b"/" + parent:
            return None
        raise BadField(f"{cut(entry.path)!r} is below a whiteout")
    if not name.startswith(b".wh."):
        return entry
    if name == b".wh..wh..opq":
        return Entry(parent, OPAQUE, mtime_ns=entry.mtime_ns, mode=entry.mode, uid=entry.uid, gid=entry.gid)
    if name.startswith(b".wh..wh."):
        return None
    removed = name[4:]
    if removed in (b"", b".", b".."):
        raise BadField(f"{cut(entry.path)!r} is a whiteout of nothing that can be removed")
    return Entry(parent + slash + removed, WHITEOUT, mtime_ns=entry.mtime_ns, mode=entry.mode, uid=entry.uid, gid=entry.gid)


def _used_records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records that mean something to us; the others are not kept."""
    for key, value in decode_records(body):
        if key in _USED or key.startswith((_SCHILY, _LIBARCHIVE, _SPARSE)):
            yield key, value


def _xattrs(records: dict[bytes, bytes]) -> Xattrs:
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE):
            name = _PERCENT.sub(lambda hit: bytes([int(hit[1], 16)]), key[len(_LIBARCHIVE) :])
            try:
                found.setdefault(name, binascii.a2b_base64(value + b"=" * (-len(value) % 4)))
            except binascii.Error:
                raise BadField(f"an extended attribute that is not base64: {name[:60]!r}") from None
        elif key.startswith(_SCHILY):
            found[key[len(_SCHILY) :]] = value
        elif key.startswith(_SPARSE):
            raise BadField(f"a sparse file ({key[:60].decode(errors='replace')}), which is not supported")
    for name, value in found.items():
        if not name or b"\0" in name or len(name) > XATTR_NAME_BYTES:
            raise BadField(f"an extended attribute with an impossible name: {name[:60]!r}")
        if len(value) > XATTR_VALUE_BYTES:
            raise BadField(f"an extended attribute of {len(value):,} bytes: {name[:60]!r}")
    if sum(len(name) + 1 for name in found) > XATTR_LIST_BYTES:
        raise BadField(f"{len(found):,} extended attributes: Linux lists {XATTR_LIST_BYTES:,} bytes of their names")
    return tuple(sorted((name, value) for name, value in found.items() if is_kept(name)))
