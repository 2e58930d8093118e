"""A blob on its way in: resumed after a cut, its size and digest checked before the last byte is given away."""

from __future__ import annotations

import hashlib
import io
import re
import time
import zlib
from typing import Any

from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.errors import NotFound, RegistryError, Unreachable, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.options import Transfer
from layerwright.registry.retry import Tries, check_cancelled, few, with_retries
from layerwright.registry.session import Call, Session

_PIECE_BYTES = 1 << 20
_PACKED_BYTES = 64 << 10
_TOLD_BYTES = 1 << 20  # progress is told after each so many, and where these take long,
_TOLD_S = 0.2  # after so many seconds
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
        self._told, self._told_at = 0, time.monotonic()
        self._tries = Tries(session.options)  # since `_tried_at`
        self._tried_at = 0
        self._etag = ""
        self._may_resume = True
        self._decoder: zlib._Decompress | None = None  # for an answer that was compressed on the way
        self._answer: Answer | None = None
        self._mirrors: set[str] = set()  # that gave some of the bytes
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
                if (piece := self._next(self._answer, size)) or not size:
                    self._session.traffic.came(len(piece))
                    return piece
                raise self._ended()
            except RegistryError as error:
                if self._answer is not None:
                    self._session.doubt(self._answer.mirror)
                self._drop()
                self._wait(error)

    def _drop(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _wait(self, error: RegistryError) -> None:
        if self._at - self._tried_at >= _PROGRESS_BYTES:
            self._tries.start_anew()
            self._tried_at = self._at
        self._tries.failed(error)

    def _open(self) -> Answer:
        """Ask for the bytes from `_at` on."""
        resumes = self._at > 0 and self._may_resume
        answer = self._asked(resumes=resumes)
        self._mirrors |= {answer.mirror} - {""}
        try:
            if answer.status == 206:
                self._check_range(answer)
            elif answer.status == 416:
                raise self._does_not_resume(f"it has nothing from byte {self._at} on")
            else:
                self._begin(answer)
        except RegistryError:
            answer.close()
            raise
        return answer

    def _asked(self, *, resumes: bool) -> Answer:
        headers = {"Range": f"bytes={self._at}-"} if resumes else {}
        if resumes and self._etag:
            headers["If-Range"] = self._etag
        doing, path = f"read blob {self._descriptor.digest}", f"blobs/{self._descriptor.digest}"
        try:
            return self._session.send(
                Call(reference=self._reference, doing=doing, path=path, headers=headers, expect=(200, 206, 416) if resumes else (200,)),
            )
        except NotFound as error:  # a manifest names it, so it was there once, or is not here yet
            error.tries = few(self._session.options)
            raise

    def _begin(self, answer: Answer) -> None:
        """All bytes from the first on: what is here already is passed over."""
        self._decoder = zlib.decompressobj(wbits=31) if self._is_packed(answer) else None
        etag = answer.header("ETag")
        self._etag = etag if etag.startswith('"') and self._decoder is None else ""  # a weak one ("W/") is not for ranges
        self._may_resume = self._decoder is None
        if self._decoder is None:
            self._check_length(answer)
        self._skip(answer, self._at)

    def _is_packed(self, answer: Answer) -> bool:
        """Whether a proxy has compressed the bytes. Some registries say so of layers that are stored like this: those have the announced length."""
        return answer.header("Content-Encoding").lower() in ("gzip", "x-gzip") and answer.header("Content-Length") != str(self._descriptor.size)

    def _next(self, answer: Answer, size: int) -> bytes:
        """Some of the next `size` bytes, none only at the end."""
        if self._decoder is None:
            return answer.read_some(size)
        try:
            while True:
                packed = self._decoder.unconsumed_tail or answer.read_some(_PACKED_BYTES)
                piece = self._decoder.decompress(packed, size) if size else b""
                if piece or not packed or self._decoder.eof or not size:
                    return piece
        except zlib.error as error:
            raise self._wrong(f"it says it is gzip, and is not ({error})", tries=2) from error

    def _check_range(self, answer: Answer) -> None:
        found = _RANGE.match(answer.header("Content-Range").strip())
        if found is None or int(found[1]) != self._at:
            raise self._does_not_resume(f"asked for byte {self._at} on, the answer is {answer.header('Content-Range') or 'unknown'!r}")

    def _does_not_resume(self, why: str) -> WrongBytes:
        """The server cannot go on where it stopped: the next try reads from the start."""
        self._may_resume = False
        return self._wrong(why, tries=self._session.options.attempts)

    def _check_length(self, answer: Answer) -> None:
        length = answer.header("Content-Length")
        if length.isdigit() and int(length) != self._descriptor.size:
            raise self._wrong(f"its size is {length} bytes, {self._descriptor.size} were announced", tries=2)

    def _skip(self, answer: Answer, size: int) -> None:
        while size:
            check_cancelled(self._session.options)
            piece = self._next(answer, min(size, _PIECE_BYTES))
            if not piece:
                raise self._ended()
            size -= len(piece)

    def _ended(self) -> Unreachable:
        mend = "build again; if it stays so, ask who runs the registry"
        return Unreachable(f"blob {self._descriptor.digest} ended too early", where=str(self._reference), mend=mend, tries=self._session.options.attempts)

    def _finish(self) -> None:
        """All bytes are here: hold them against the digest, and see that no more follow."""
        extra = self._extra(self._answer) if self._answer is not None else b""
        self._drop()
        digest = f"sha256:{self._hash.hexdigest()}"
        if extra:
            raise self._wrong(f"more than the {self._descriptor.size} bytes announced", tries=2)
        if digest != self._descriptor.digest:
            raise self._wrong(f"its bytes have digest {digest}", tries=2)

    def _extra(self, answer: Answer) -> bytes:
        """A byte too many, if there is one. A connection that breaks now has brought all that was wanted."""
        try:
            return self._next(answer, 1)
        except Unreachable:
            return b""

    def _wrong(self, why: str, *, tries: int) -> WrongBytes:
        for mirror in self._mirrors:
            self._session.doubt(mirror, wrong=True)
            tries = self._session.options.attempts  # other places are asked then
        mend = "build again; if it stays so, the registry or a proxy before it damages what it sends, or the image was pushed damaged"
        return WrongBytes(f"blob {self._descriptor.digest} came damaged: {why}", where=str(self._reference), mend=mend, tries=tries)

    def _tell(self) -> None:
        now = time.monotonic()
        if self._at - self._told >= _TOLD_BYTES or now - self._told_at >= _TOLD_S or self._at == self._descriptor.size:
            self._told, self._told_at = self._at, now
            self._session.tell(
                Transfer(
                    direction="pull", reference=str(self._reference), digest=self._descriptor.digest, done_bytes=self._at, total_bytes=self._descriptor.size
                )
            )
