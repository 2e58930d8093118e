"""Immutable bytes by their digest."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from layerwright.host.files import pending_file
from layerwright.host.locks import is_at
from layerwright.oci.digest import BlobDigest
from layerwright.storage.contract import DamagedBlob, MissingBlob
from layerwright.storage.paths import StorePaths
from layerwright.storage.work import WorkArea

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_CHUNK_BYTES = 1 << 18


class BlobWriter:
    """Takes a blob's bytes; `digest` and `size` are of what was written so far, and final after the block of `Blobs.new`."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> BlobDigest:
        return BlobDigest(f"sha256:{self._hash.hexdigest()}")

    def write(self, content: ReadableBuffer) -> int:
        self._hash.update(content)
        written = self._out.write(content)
        self.size += written
        return written

    def copy(self, stream: BinaryIO) -> None:
        """Write all that is left of `stream`."""
        while chunk := stream.read(_CHUNK_BYTES):
            self.write(chunk)


class Blobs:
    """The folder `blobs/` of a store."""

    def __init__(self, paths: StorePaths, area: WorkArea) -> None:
        self._paths = paths
        self._area = area

    def has(self, digest: str, *, size: int = -1) -> bool:
        """Whether the blob is here, and of this size if one is given; its content is checked when it is read."""
        try:
            found = os.stat(self._paths.blob(digest))
        except OSError:
            return False
        return size < 0 or found.st_size == size

    @contextmanager
    def new(self, expected: str | None = None, *, size: int | None = None) -> Iterator[BlobWriter]:
        """A blob to be written; it exists under its digest once the block ends well, and after an exception not at all.

        Raises DamagedBlob if it is not the `expected` one, DiskFull.
        """
        with pending_file(self._area.scratch(), shown=os.path.join(self._paths.home, "blobs"), mode=0o444, needed_bytes=size) as new:
            writer = BlobWriter(new.out)
            yield writer
            if expected is not None and writer.digest != expected:
                mend = "fetch it again; if it happens again, what holds it is damaged"
                raise DamagedBlob(f"expected {expected}, got {writer.digest} ({writer.size} bytes)", mend=mend)
            new.become(self._paths.blob(writer.digest))

    def put(self, content: bytes) -> BlobDigest:
        """Keep `content` and return its digest."""
        with self.new() as writer:
            writer.write(content)
        return writer.digest

    def size(self, digest: str) -> int:
        """Raises MissingBlob."""
        try:
            return os.stat(self._paths.blob(digest)).st_size
        except OSError as error:
            raise self._missing(digest, error) from error

    def read(self, digest: str) -> bytes:
        """A small blob's bytes, verified. Raises MissingBlob; DamagedBlob, and then it is no longer here."""
        with self.open(digest) as stream:
            return stream.read()

    @contextmanager
    def open(self, digest: str, *, verify: bool = True) -> Iterator[BinaryIO]:
        """A blob's bytes from the start. Raises MissingBlob.

        `verify`: the read that reaches the end raises DamagedBlob if the content is not what the digest says, or cannot be read; the blob is then
        removed, so that it is a miss from there on. Without `verify` the stream can seek.
        """
        if verify:
            with self.opened(digest) as stream:
                yield stream
            return
        try:
            file = open(self._paths.blob(digest), "rb", buffering=_CHUNK_BYTES)  # noqa: SIM115  (closed below)
        except OSError as error:
            raise self._missing(digest, error) from error
        with file:
            yield file

    def opened(self, digest: str) -> BinaryIO:
        """A blob's bytes from the start, verified as `open` does, for the caller to close. Raises MissingBlob."""
        path = self._paths.blob(digest)
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115  (closed with the stream)
        except OSError as error:
            raise self._missing(digest, error) from error
        return io.BufferedReader(_Verified(file, digest, lambda: self._remove(path, file.fileno())), _CHUNK_BYTES)

    def remove(self, digest: str) -> int:
        """Remove a blob; the bytes it had, 0 if it was not here."""
        path = self._paths.blob(digest)
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def _missing(self, digest: str, error: OSError) -> MissingBlob:
        mend = "build or pull again: what is missing is made or fetched anew"
        return MissingBlob(f"no blob {digest} in the store: {error.strerror}", where=self._paths.blob(digest), mend=mend)

    def _remove(self, path: str, fd: int) -> None:
        """Unlink the damaged file `fd`, unless a good one took its place already."""
        if is_at(fd, path):
            with suppress(OSError):
                os.unlink(path)


class _Verified(io.RawIOBase):
    """A blob's file that is hashed while it is read."""

    def __init__(self, file: io.FileIO, digest: str, remove: Callable[[], None]) -> None:
        self._file = file
        self._digest = digest
        self._remove = remove
        self._hash = hashlib.sha256()
        self._left = os.fstat(file.fileno()).st_size
        self._checked = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        super().close()
        self._file.close()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        try:
            count = self._file.readinto(view) or 0
        except OSError as error:  # a bad sector
            self._remove()
            raise self._damaged(error.strerror or "unreadable") from error
        self._hash.update(view[:count])
        self._left -= count
        if (count == 0 or self._left <= 0) and not self._checked:
            self._check()
        return count

    def _check(self) -> None:
        self._checked = True
        if f"sha256:{self._hash.hexdigest()}" != self._digest:
            self._remove()
            raise self._damaged("its bytes have another digest")

    def _damaged(self, reason: str) -> DamagedBlob:
        return DamagedBlob(f"blob {self._digest} in the store was damaged and is removed: {reason}", mend="build or pull again: it is made or fetched anew")
