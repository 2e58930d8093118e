"""A blob on its way in: resumed after a cut, its size and digest checked before the last byte is given away."""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.errors import RegistryError, Unreachable, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.options import Transfer
from layerwright.registry.retry import check_cancelled, pause, with_retries
from layerwright.registry.session import Call, Session

_PIECE_BYTES = 1 << 20
_TOLD_BYTES = 1 << 20  # progress is told after each so many
_PROGRESS_BYTES = 256 << 10  # a cut after so many new bytes does not count as a further try
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)\Z")


def open_blob(session: Session, reference: Reference, descriptor: Descriptor) -> io.BufferedReader:
    """The blob as a stream. Raises NotFound and others now, and while reading WrongBytes instead of the last bytes."""
    return io.BufferedReader(BlobStream(session, reference, descriptor), _PIECE_BYTES)


def blob_bytes(session: Session, reference: Reference, descriptor: Descriptor) -> bytes:
    """The whole blob, checked; fetched a second time if the first bytes were wrong."""

    def fetch() -> bytes:
        with open_blob(session, reference, descriptor) as stream:
            return stream.read()

    return with_retries(fetch, session.options)


class BlobStream(io.RawIOBase):
    """The bytes of one blob. Asks again from where it was cut, as long as the registry gives more each time."""

    def __init__(self, session: Session, reference: Reference, descriptor: Descriptor) -> None:
        super().__init__()
        self._session = session
        self._reference = reference
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._at = 0
        self._told = 0
        self._tries = 0  # failed ones since `_tried_at`
        self._tried_at = 0
        self._answer: Answer | None = None
        self._answer = with_retries(self._open, session.options)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._descriptor.size - self._at
        if left == 0 and self._answer is None:
            return 0
        piece = self._read(min(len(buffer), left))
        self._hash.update(piece)
        self._at += len(piece)
        if self._at == self._descriptor.size:
            self._finish()
        self._tell()
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()
        super().close()

    def _read(self, size: int) -> bytes:
        """At least one of the next `size` bytes (none if `size` is 0), after as many new connections as it takes."""
        while True:
            check_cancelled(self._session.options)
            try:
                if self._answer is None:
                    self._answer = self._open()
                if (piece := self._answer.read_some(size)) or not size:
                    self._session.traffic.came(len(piece))
                    return piece
                raise self._ended()
            except WrongBytes:
                raise
            except RegistryError as error:
                self._drop()
                self._wait(error)

    def _drop(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _wait(self, error: RegistryError) -> None:
        if self._at - self._tried_at >= _PROGRESS_BYTES:
            self._tries, self._tried_at = 0, self._at
        self._tries += 1
        pause(error, self._tries, self._session.options)

    def _open(self) -> Answer:
        """Ask for the bytes from `_at` on."""
        headers = {"Range": f"bytes={self._at}-"} if self._at else {}
        doing = f"read blob {self._descriptor.digest}"
        answer = self._session.send(
            Call(reference=self._reference, doing=doing, path=f"blobs/{self._descriptor.digest}", headers=headers, expect=(200, 206) if self._at else (200,))
        )
        try:
            if answer.status == 206:
                self._check_range(answer)
            else:
                self._check_length(answer)
                self._skip(answer, self._at)
        except RegistryError:
            answer.close()
            raise
        return answer

    def _check_range(self, answer: Answer) -> None:
        found = _RANGE.match(answer.header("Content-Range").strip())
        if found is None or int(found[1]) != self._at:
            raise self._wrong(f"asked for byte {self._at} on, the answer is {answer.header('Content-Range') or 'unknown'!r}", tries=2)

    def _check_length(self, answer: Answer) -> None:
        length = answer.header("Content-Length")
        if length.isdigit() and int(length) != self._descriptor.size:
            raise self._wrong(f"its size is {length} bytes, {self._descriptor.size} were announced", tries=2)

    def _skip(self, answer: Answer, size: int) -> None:
        """Pass over what is here already: this server does not resume."""
        while size:
            piece = answer.read(min(size, _PIECE_BYTES))
            if not piece:
                raise self._ended()
            size -= len(piece)

    def _ended(self) -> Unreachable:
        mend = "build again; if it stays so, ask who runs the registry"
        return Unreachable(f"blob {self._descriptor.digest} ended too early", where=str(self._reference), mend=mend, tries=self._session.options.attempts)

    def _finish(self) -> None:
        """All bytes are here: hold them against the digest, and see that no more follow."""
        extra = self._answer.read(1) if self._answer is not None else b""
        self._drop()
        digest = f"sha256:{self._hash.hexdigest()}"
        if extra:
            raise self._wrong(f"more than the {self._descriptor.size} bytes announced", tries=2)
        if digest != self._descriptor.digest:
            raise self._wrong(f"its bytes have digest {digest}", tries=2)

    def _wrong(self, why: str, *, tries: int) -> WrongBytes:
        mend = "build again; if it stays so, the registry or a proxy before it damages what it sends, or the image was pushed damaged"
        return WrongBytes(f"blob {self._descriptor.digest} came damaged: {why}", where=str(self._reference), mend=mend, tries=tries)

    def _tell(self) -> None:
        if self._at - self._told >= _TOLD_BYTES or self._at == self._descriptor.size:
            self._told = self._at
            self._session.tell(
                Transfer(
                    direction="pull", reference=str(self._reference), digest=self._descriptor.digest, done_bytes=self._at, total_bytes=self._descriptor.size
                )
            )
