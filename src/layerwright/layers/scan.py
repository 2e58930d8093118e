"""One pass over an uncompressed layer: its diff id, and an index entry for everything in it."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO, cast

from layerwright.layers.entry import FILE, Entry
from layerwright.layers.index import FileIndex
from layerwright.layers.tar_reader import read_tar
from layerwright.layers.texts import is_kept_text
from layerwright.limits import Limits
from layerwright.oci.digest import DiffId

_PIECE = 1 << 20


def index_tar(stream: BinaryIO, limits: Limits | None = None) -> FileIndex:
    """The file index of an uncompressed layer. Entries stand as the tar has them, in its order, odd ones included. Raises BadLayer."""
    hashed = HashedStream(stream)
    indexer = Indexer()
    for entry, content in read_tar(cast(BinaryIO, hashed), limits):
        indexer.read(entry, content)
    return indexer.index(hashed.diff_id)


class HashedStream(io.RawIOBase):
    """Hands `stream` through; knows the diff id of what was read, once that is all."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        piece = self._stream.read(-1 if size is None else size)
        self._hash.update(piece)
        return piece

    @property
    def diff_id(self) -> DiffId:
        return DiffId("sha256:" + self._hash.hexdigest())


class CountedStream:
    """Hands a stream through; `size` bytes were read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self.size += len(piece)
        return piece


class DigestedContent(io.RawIOBase):
    """Hands the content of `entry` through, digesting it."""

    def __init__(self, entry: Entry, content: BinaryIO) -> None:
        self._entry = entry
        self._content = content
        self._hash = hashlib.sha256()
        self._kept: list[bytes] | None = [] if is_kept_text(entry) else None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        piece = self._content.read(-1 if size is None else size)
        self._hash.update(piece)
        if self._kept is not None:
            self._kept.append(piece)
        return piece

    def finish(self) -> tuple[Entry, bytes]:
        """Read what is left; the entry with its digest, and the text if the index keeps it."""
        if self._entry.kind != FILE:
            return self._entry, b""
        while self.read(_PIECE):
            pass
        return self._entry._replace(digest="sha256:" + self._hash.hexdigest()), b"".join(self._kept or ())


class Indexer:
    """Collects entries, their digests and the texts that an index keeps."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._texts: dict[bytes, bytes] = {}

    def read(self, entry: Entry, content: BinaryIO) -> None:
        """Take in an entry, reading its content to the end."""
        self.add(*DigestedContent(entry, content).finish())

    def add(self, entry: Entry, text: bytes = b"") -> None:
        """Take in an entry whose digest is known, with its content if the index keeps it."""
        self._entries.append(entry)
        if is_kept_text(entry):
            self._texts[entry.path] = text
        else:
            self._texts.pop(entry.path, None)

    def index(self, diff_id: DiffId) -> FileIndex:
        return FileIndex(diff_id, tuple(self._entries), self._texts)
