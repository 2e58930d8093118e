"""A blob sent in chunks, going on after a failure from where the registry says it is. Source: OCI distribution-spec 1.1, "Pushing a blob in chunks".

Used after sending it whole has failed: not every registry takes chunks, and one request is quicker than several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.errors import RegistryError, Unreachable, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.options import Transfer
from layerwright.registry.retry import Tries, check_cancelled, few
from layerwright.registry.session import PUSH, Call, Session

CHUNK_BYTES = 16 << 20  # more than the least of any registry known (5 MiB)
_PIECE_BYTES = 1 << 20
_LARGEST_BYTES = 1 << 30  # a registry that asks for larger chunks than this gets these
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)\Z")


class BrokenSource(Exception):
    """What was to be uploaded could not be read. Carries the error through urllib3, which would take an OSError for one of the network."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Source:
    """The bytes of a blob that is sent, from any offset; opened anew only to go back. A context manager."""

    def __init__(self, session: Session, reference: Reference, descriptor: Descriptor, opened: Callable[[], BinaryIO]) -> None:
        self._session = session
        self._reference = reference
        self._descriptor = descriptor
        self._opened = opened
        self._stream: BinaryIO | None = None
        self._at = 0

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to `end`, which may be the blob's last. Raises BrokenSource, and WrongBytes if the blob has another size."""
        try:
            self._go_to(start)
            while self._at < end:
                check_cancelled(self._session.options)
                piece = self._next(min(_PIECE_BYTES, end - self._at))
                yield piece
                self._session.traffic.went(len(piece))
                self._tell()
            if end == self._descriptor.size and self._stream is not None and self._stream.read(1):
                raise self._wrong_size("more")
        except OSError as error:
            raise BrokenSource(error) from error

    def _go_to(self, start: int) -> None:
        if self._stream is None or self._at > start:
            self.close()
            self._stream, self._at = self._opened(), 0
        while self._at < start:
            self._next(min(_PIECE_BYTES, start - self._at))

    def _next(self, size: int) -> bytes:
        assert self._stream is not None
        piece = self._stream.read(size)
        if not piece:
            raise self._wrong_size(str(self._at))
        self._at += len(piece)
        return piece

    def _wrong_size(self, there: str) -> WrongBytes:
        what = f"blob {self._descriptor.digest} was to have {self._descriptor.size} bytes, and {there} were there to upload"
        return WrongBytes(what, where=str(self._reference), mend="build again; the store is checked where it is read")

    def _tell(self) -> None:
        self._session.tell(
            Transfer(direction="push", reference=str(self._reference), digest=self._descriptor.digest, done_bytes=self._at, total_bytes=self._descriptor.size)
        )


class ChunkedUpload:
    """One upload that the registry has started at `location`."""

    def __init__(self, session: Session, reference: Reference, descriptor: Descriptor, source: Source, started: Answer) -> None:
        self._session = session
        self._reference = reference
        self._size = descriptor.size
        self._doing = f"upload blob {descriptor.digest}"
        self._source = source
        self._location = started.header("Location")
        least = started.header("OCI-Chunk-Min-Length")
        self._chunk_bytes = max(CHUNK_BYTES, min(int(least), _LARGEST_BYTES)) if least.isascii() and least.isdigit() else CHUNK_BYTES
        self._at = 0

    def send(self) -> str:
        """Send all chunks, and return the address that ends the upload. Raises RegistryError if this upload is lost: another one may do."""
        tries = Tries(self._session.options)
        furthest = 0  # not where it was before: a registry may lose what it has again and again
        while self._at < self._size:
            was_cut = False
            try:
                self._send_chunk()
            except Unreachable as error:
                was_cut = True
                tries.failed(error)
                self._ask_where()
            if self._at > furthest:
                furthest = self._at
                tries.start_anew()
            elif not was_cut:
                tries.failed(self._stands_still())
        return self._location

    def _stands_still(self) -> RegistryError:
        """The error for a registry that says of each chunk that it took it, and has not got further."""
        what = f"cannot {self._doing}: the registry does not go on at byte {self._at}"
        return RegistryError(what, where=str(self._reference), mend="run it again", tries=few(self._session.options))

    def _send_chunk(self) -> None:
        start, end = self._at, min(self._at + self._chunk_bytes, self._size)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start), "Content-Range": f"{start}-{end - 1}"}
        answer = self._session.send(self._call("PATCH", headers, expect=(201, 202, 204, 416), body=lambda: self._source.pieces(start, end)))
        answer.close()
        if answer.status != 416:
            self._note(answer, otherwise=end)
            return
        self._ask_where()
        if self._at == start:
            what = f"cannot {self._doing}: the registry does not go on at byte {start}"
            raise RegistryError(what, where=str(self._reference), mend="run it again", tries=few(self._session.options))

    def _ask_where(self) -> None:
        """How far the registry has come. Some know it after a cut; others have lost the upload then."""
        try:
            answer = self._session.send(self._call("GET", {}, expect=(200, 202, 204)))
        except Unreachable:
            return  # the next chunk finds out
        answer.close()
        self._note(answer, otherwise=self._at)

    def _note(self, answer: Answer, *, otherwise: int) -> None:
        self._location = answer.header("Location") or self._location
        found = _RANGE.match(answer.header("Range").strip())
        at = otherwise if found is None else 0 if found[1] == "0" else int(found[1]) + 1  # "0-0" is said of nothing at all
        if at > self._size:
            raise RegistryError(f"cannot {self._doing}: the registry has {at} bytes of {self._size}", where=str(self._reference), mend="run it again", tries=2)
        self._at = at

    def _call(self, method: str, headers: dict[str, str], *, expect: tuple[int, ...], body: Callable[[], Iterator[bytes]] | None = None) -> Call:
        return Call(reference=self._reference, doing=self._doing, path=self._location, method=method, actions=PUSH, headers=headers, body=body, expect=expect)
