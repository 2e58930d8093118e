"""Large objects that git keeps as a file of their own, read as a stream: git itself maps such a file whole, hundreds of MiB of it.

Source: gitformat-loose(5): a zlib stream of `<type> <size>\\0<content>`, at `<first two digits of the id>/<the others>`.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO

from layerwright.git.program import GitFailed

LARGE_BYTES = 8 << 20  # of the file; what is smaller git may map
_CHUNK_BYTES = 1 << 16


def is_large_loose(objects_directory: str, oid: str) -> bool:
    try:
        return os.stat(_path(objects_directory, oid)).st_size >= LARGE_BYTES
    except OSError:
        return False


@contextmanager
def open_loose(objects_directory: str, oid: str, where: str) -> Iterator[tuple[int, BinaryIO]]:
    """Size and content of the loose object. Reading raises GitFailed where the file is damaged."""
    with open(_path(objects_directory, oid), "rb") as file, closing(_Inflated(file, oid, where)) as stream:
        size_bytes = stream.left_bytes
        yield size_bytes, io.BufferedReader(stream, _CHUNK_BYTES)


def _path(objects_directory: str, oid: str) -> str:
    return os.path.join(objects_directory, oid[:2], oid[2:])


class _Inflated(io.RawIOBase):
    """The content of a loose object."""

    def __init__(self, file: BinaryIO, oid: str, where: str) -> None:
        self._file = file
        self._inflate = zlib.decompressobj()
        self._oid = oid
        self._where = where
        header, end, self._ready = self._next(_CHUNK_BYTES).partition(b"\0")
        size = header.partition(b" ")[2]
        if not end or not size.isdigit():
            raise self._damaged()
        self.left_bytes = int(size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer)
        if not self.left_bytes or not len(into):
            return 0
        content = self._ready or self._next(len(into))
        content, self._ready = content[: len(into)], content[len(into) :]
        if not content or len(content) > self.left_bytes:
            raise self._damaged()
        into[: len(content)] = content
        self.left_bytes -= len(content)
        return len(content)

    def _next(self, most: int) -> bytes:
        """Up to `most` bytes; none at the end only."""
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(_CHUNK_BYTES)
            try:
                content = self._inflate.decompress(packed, most)
            except zlib.error as error:
                raise self._damaged() from error
            if content or not packed:
                return content
        return b""

    def _damaged(self) -> GitFailed:
        return GitFailed(
            f"git object {self._oid} is damaged",
            where=self._where,
            mend=f"fetch it again (git -C {self._where} fetch --refetch), or look at what git -C {self._where} fsck says",
        )
