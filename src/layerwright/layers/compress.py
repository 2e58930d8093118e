"""Compression of layers on their way in and out. The codecs are loaded when first used and release the GIL.

A blob's digest is recorded once and never computed again to compare: codec versions differ, diff ids do not.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, cast

from layerwright.layers.tar_reader import BadLayer, over
from layerwright.limits import EMPTY_MEMBERS, ZSTD_WINDOW_LOG, Limits

if TYPE_CHECKING:
    from layerwright.layers.tar import SupportsWrite

Kind = Literal["gzip", "zstd", "none"]

PIECE = 1 << 20  # igzip's bytes depend on the size of the pieces fed in, so it is fixed
_INPUT = 1 << 18
GZIP_LEVEL = 2  # the best ratio of the levels whose bytes are the same on every CPU
ZSTD_LEVEL = 3
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}
_MEND = "the image is damaged; pull it again, or ask whoever published it"


class _Decoder(Protocol):
    """One gzip member or zstd frame: what igzip and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, piece: bytes, max_length: int = -1, /) -> bytes: ...


def decompressed(stream: BinaryIO, media_type: str = "", *, most: int = Limits().layer_bytes) -> BinaryIO:
    """The uncompressed bytes of `stream`: gzip and zstd, of one or many members, or plain, told apart by their first bytes.

    `media_type` is only named in errors: registries hold layers whose media type is wrong. Reading raises BadLayer where the bytes are
    damaged, end too early, or are more than `most`. Closing it closes `stream`.
    """
    head = _read_fully(stream, 6)
    if head[:2] == _GZIP:
        return cast(BinaryIO, _Decompressed(stream, head, "gzip", most))
    if head[:4] == _ZSTD or (head[1:4] == b"\x2a\x4d\x18" and head[:1] in b"PQRSTUVWXYZ[\\]^_"):
        return cast(BinaryIO, _Decompressed(stream, head, "zstd", most))
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise BadLayer(f"the layer is compressed with {name}{f' ({media_type})' if media_type else ''}", mend="publish it with gzip or zstd")
    return cast(BinaryIO, _Plain(stream, head))


def _read_fully(stream: BinaryIO, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := stream.read(size - len(found))):
        found += piece
    return found


def _new_decoder(kind: str) -> tuple[_Decoder, tuple[type[Exception], ...]]:
    if kind == "gzip":
        from isal import igzip_lib

        return cast(_Decoder, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)), (cast(type[Exception], igzip_lib.IsalError), EOFError, ValueError)
    zstd = _zstd()
    window = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    return cast(_Decoder, zstd.ZstdDecompressor(options=window)), (zstd.ZstdError, EOFError, ValueError)


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class _Plain(io.RawIOBase):
    def __init__(self, stream: BinaryIO, head: bytes) -> None:
        self._stream = stream
        self._head = head

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        head = self._head
        if not head:
            return self._stream.read(-1 if size is None else size)
        if size is None or size < 0:
            self._head = b""
            return head + self._stream.read()
        self._head = head[size:]
        return head[:size]

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        return _fill(buffer, self.read(len(buffer)))

    def close(self) -> None:
        super().close()
        self._stream.close()


class _Decompressed(io.RawIOBase):
    """Members one after another. Zero bytes after the last are padding, as gzip takes them; anything else is damage."""

    def __init__(self, stream: BinaryIO, head: bytes, kind: str, most: int) -> None:
        self._stream = stream
        self._kind = kind
        self._decoder, self._errors = _new_decoder(kind)
        self._input = head
        self._read_bytes = len(head)
        self._done = False
        self._most = self._left = most
        self._empty = 0  # members in a row that held nothing

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, none only at the end."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(PIECE), b""))
        while not self._done and size:
            if self._decoder.eof and not self._next_member():
                break
            if not self._input and self._decoder.needs_input:
                self._more()
            try:
                piece = self._decoder.decompress(self._input, size)
            except self._errors as error:
                raise self._bad(f"the layer's {self._kind} data is damaged: {error}") from error
            self._input = b""
            if piece:
                self._empty = 0
                self._left -= len(piece)
                if self._left < 0:
                    raise over("layer_bytes", f"the layer is larger than {self._most:,} bytes", where=f"byte {self._read_bytes:,} of the compressed layer")
                return piece
        return b""

    def _more(self) -> None:
        self._input = self._stream.read(_INPUT)
        self._read_bytes += len(self._input)
        if not self._input:
            raise self._bad(f"the layer's {self._kind} data ends too early")

    def _next_member(self) -> bool:
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest:
            piece = self._stream.read(_INPUT)
            self._read_bytes += len(piece)
            if not piece:
                self._done = True
                return False
            rest = piece.lstrip(b"\0")
        self._empty += 1
        if self._empty > EMPTY_MEMBERS:
            raise self._bad(f"the layer's {self._kind} data has more than {EMPTY_MEMBERS:,} empty members in a row")
        self._decoder, self._errors = _new_decoder(self._kind)
        self._input = rest
        return True

    def _bad(self, what: str) -> BadLayer:
        return BadLayer(what, where=f"near byte {self._read_bytes} of the compressed layer", mend=_MEND)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        return _fill(buffer, self.read(len(buffer)))

    def close(self) -> None:
        super().close()
        self._stream.close()


def _fill(buffer: bytearray | memoryview, piece: bytes) -> int:
    buffer[: len(piece)] = piece
    return len(piece)


class _Encoder(Protocol):
    def compress(self, piece: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _NoEncoder:
    def compress(self, piece: bytes, /) -> bytes:
        return piece

    def flush(self) -> bytes:
        return b""


def _new_encoder(kind: Kind) -> _Encoder:
    if kind == "gzip":
        from isal import isal_zlib

        return cast(_Encoder, isal_zlib.compressobj(level=GZIP_LEVEL, wbits=31))  # 31: a gzip header, with time 0 and no name
    if kind == "zstd":
        zstd = _zstd()
        names = zstd.CompressionParameter
        return cast(_Encoder, zstd.ZstdCompressor(options={names.compression_level: ZSTD_LEVEL, names.checksum_flag: 1}))
    return _NoEncoder()


class Compressor:
    """Compresses what is written to it into `out`, in pieces of 1 MiB whatever the pieces written: equal bytes in, equal bytes out."""

    def __init__(self, kind: Kind, out: SupportsWrite) -> None:
        self._encoder = _new_encoder(kind)
        self._out = out
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def write(self, piece: bytes, /) -> int:
        self._pending.append(piece)
        self._pending_bytes += len(piece)
        if self._pending_bytes >= PIECE:
            whole = b"".join(self._pending) if len(self._pending) > 1 else piece
            end = len(whole) - len(whole) % PIECE
            for at in range(0, end, PIECE):
                self._compress(whole[at : at + PIECE])
            self._pending = [whole[end:]] if end < len(whole) else []
            self._pending_bytes = len(whole) - end
        return len(piece)

    def close(self) -> None:
        """Finish the compressed stream. Does not close `out`."""
        if self._pending:
            self._compress(b"".join(self._pending))
            self._pending, self._pending_bytes = [], 0
        self._write_out(self._encoder.flush())

    def _compress(self, piece: bytes) -> None:
        self._write_out(self._encoder.compress(piece))

    def _write_out(self, piece: bytes) -> None:
        if piece:
            self._out.write(piece)
