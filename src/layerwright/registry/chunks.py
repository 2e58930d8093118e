"""A blob sent in chunks, going on after a failure from where the registry says it is. Source: OCI distribution-spec 1.1, "Pushing a blob in chunks".

Used after sending a blob whole has failed (not every registry takes chunks, and one request is quicker than several), and for a blob whose size is not
known when its first bytes are sent (registry.streaming).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO, Protocol

from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.errors import RegistryError, Unauthorized, Unreachable, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.options import Transfer
from layerwright.registry.retry import Tries, check_cancelled, few
from layerwright.registry.session import PUSH, Call, Session

PIECE_BYTES = 1 << 20
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)\Z")


class BrokenSource(Exception):
    """What was to be uploaded could not be read. Carries the error through urllib3, which would take an OSError for one of the network."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class UploadLost(RegistryError):
    """How far this upload is cannot be known, or it is where its bytes are not to be had any more: it has to begin anew."""


class Pieces(Protocol):
    """The bytes of a blob, to be sent from any offset that is still to be had."""

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to `end`; each is counted once it is sent. Raises UploadLost if they are gone."""


class Meter:
    """Counts and tells the bytes of one blob as they go."""

    def __init__(self, session: Session, reference: Reference, digest: str, total_bytes: int) -> None:
        self._session = session
        self._transfer = Transfer(direction="push", reference=str(reference), digest=digest, done_bytes=0, total_bytes=total_bytes)

    def went(self, size: int, at: int) -> None:
        """`size` bytes are sent, the last of them just before offset `at`."""
        self._session.traffic.went(size)
        self.tell(at)

    def tell(self, at: int, *, total_bytes: int | None = None) -> None:
        total = self._transfer.total_bytes if total_bytes is None else total_bytes
        self._session.tell(replace(self._transfer, done_bytes=at, total_bytes=total))


class Source:
    """The bytes of a blob that is sent, from any offset; opened anew only to go back. A context manager."""

    def __init__(self, session: Session, reference: Reference, descriptor: Descriptor, opened: Callable[[], BinaryIO]) -> None:
        self._session = session
        self._reference = reference
        self._descriptor = descriptor
        self._opened = opened
        self._meter = Meter(session, reference, descriptor.digest, descriptor.size)
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
                piece = self._next(min(PIECE_BYTES, end - self._at))
                yield piece
                self._meter.went(len(piece), self._at)
            if end == self._descriptor.size and self._stream is not None and self._stream.read(1):
                raise self._wrong_size("more")
        except OSError as error:
            raise BrokenSource(error) from error

    def _go_to(self, start: int) -> None:
        if self._stream is None or self._at > start:
            self.close()
            self._stream, self._at = self._opened(), 0
        while self._at < start:
            self._next(min(PIECE_BYTES, start - self._at))

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


def least_chunk_bytes(started: Answer) -> int:
    """How large all chunks but the last one have to be, as the registry says it when it starts an upload (OCI-Chunk-Min-Length); 0 if it does not."""
    least = started.header("OCI-Chunk-Min-Length")
    return int(least[:20]) if least.isascii() and least.isdigit() else 0


class ChunkedUpload:
    """One upload that the registry has started. `at`: how many bytes it has; `furthest`: had at most; `location`: where the next request goes."""

    def __init__(self, session: Session, reference: Reference, doing: str, source: Pieces, started: Answer) -> None:
        self._session = session
        self._reference = reference
        self._doing = doing
        self._source = source
        self._tries = Tries(session.options)
        self.location = started.header("Location")
        self.at = 0
        self.furthest = 0
        self._sent_to = 0

    def send(self, size: int, chunk_bytes: int) -> str:
        """Send the whole blob, and return the address that ends the upload. Raises as `go_on`."""
        while self.at < size:
            self.go_on(min(self.at + chunk_bytes, size))
        return self.location

    def go_on(self, end: int) -> None:
        """Send the bytes up to `end` as one chunk; `at` says then what came of it, which may be less.

        Raises Unreachable after enough tries that brought nothing, and another RegistryError if this upload is over: another one may do.
        """
        was_cut = False
        self._tries.begin()
        try:
            self._send_chunk(end)
        except Unreachable as error:
            was_cut = True
            self._tries.failed(error)
            self._ask_where()
        if self.at > self.furthest:  # not where it was before: a registry may lose what it has again and again
            self.furthest = self.at
            self._tries.start_anew()
        elif not was_cut:
            self._tries.failed(self._stands_still())

    def _stands_still(self) -> RegistryError:
        """The error for a registry that says of each chunk that it took it, and has not got further."""
        what = f"cannot {self._doing}: the registry does not go on at byte {self.at}"
        return RegistryError(what, where=str(self._reference), mend="run it again", tries=few(self._session.options))

    def _send_chunk(self, end: int) -> None:
        start = self.at
        self._sent_to = max(self._sent_to, end)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start), "Content-Range": f"{start}-{end - 1}"}
        answer = self._session.send(self._call("PATCH", headers, expect=(201, 202, 204, 416), body=lambda: self._source.pieces(start, end)))
        answer.close()
        if answer.status != 416:
            self._note(answer, otherwise=end)
            return
        self._ask_where()
        if self.at == start:
            raise self._stands_still()

    def _ask_where(self) -> None:
        """How far the registry has come. Some know it after a cut; others have lost the upload then."""
        try:
            answer = self._session.send(self._call("GET", {}, expect=(200, 202, 204)))
        except Unreachable:
            return  # the next chunk finds out
        except Unauthorized:
            raise
        except RegistryError as error:
            raise lost(error) from error
        answer.close()
        self._note(answer, otherwise=self.at)

    def _note(self, answer: Answer, *, otherwise: int) -> None:
        self.location = answer.header("Location") or self.location
        found = _RANGE.match(answer.header("Range").strip())
        at = otherwise if found is None else 0 if found[1] == "0" else int(found[1]) + 1  # "0-0" is said of nothing at all
        if at > self._sent_to:
            what = f"cannot {self._doing}: the registry has {at} bytes, and was sent {self._sent_to}"
            raise RegistryError(what, where=str(self._reference), mend="run it again", tries=2)
        self.at = at

    def _call(self, method: str, headers: dict[str, str], *, expect: tuple[int, ...], body: Callable[[], Iterator[bytes]] | None = None) -> Call:
        return Call(reference=self._reference, doing=self._doing, path=self.location, method=method, actions=PUSH, headers=headers, body=body, expect=expect)


def lost(error: RegistryError) -> UploadLost:
    """`error` as that of an upload which has to begin anew."""
    made = UploadLost(error.what, where=error.where, mend=error.mend, tries=error.tries)
    made.status, made.said = error.status, error.said
    return made
