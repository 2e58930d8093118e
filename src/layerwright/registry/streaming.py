"""A blob that is sent while it is made: its digest and size are known after its last byte. Source: OCI distribution-spec 1.1, "Pushing a blob in chunks".

    produce --write--> buffer --hand over--> Belt --take--> Window --PATCH--> registry
    (the calling thread)                     (one chunk)    (the sender's thread)

So some three chunks are in memory, whatever the size of the blob. Nothing can be read again: what the registry loses is made again.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context

from layerwright.errors import Cancelled
from layerwright.oci.digest import BlobDigest, digest_of
from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.chunks import PIECE_BYTES, ChunkedUpload, Meter, UploadLost, least_chunk_bytes, lost
from layerwright.registry.errors import ChunksRefused, NotFound, RegistryError, Unauthorized, Unreachable
from layerwright.registry.patience import SLICE_S
from layerwright.registry.retry import check_cancelled, few, sleep, wait_for, with_retries
from layerwright.registry.session import Session
from layerwright.registry.upload import abandon, finish_upload, has_blob_once, last_call, put_blob, start_upload

Produce = Callable[[Callable[[bytes], object]], None]

CHUNK_BYTES = 8 << 20  # more than the least of any registry known (5 MiB)
_LARGEST_BYTES = 64 << 20  # chunks are held in memory: a registry that wants larger ones gets the blob whole


class StreamEnded(Exception):
    """What `write` raises when the upload has ended before the blob has. No error of ours, so that nobody who tries things again tries this again."""


class _Failed(Exception):
    """The upload failed, for `reason`. Tells it from what `produce` raises."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


def stream_blob(session: Session, reference: Reference, produce: Produce) -> tuple[BlobDigest, int]:
    """Upload what `produce` writes, and return its digest and size. `produce` is called anew for an upload that the registry has lost, a few times at most.

    Raises what `produce` raises; ChunksRefused, at once if the registry has refused chunks before in this run; and other RegistryErrors.
    """
    upload = f"stream:{secrets.token_hex(6)}"
    begun = 0
    while True:
        if reference.registry in session.refusing_chunks:
            raise _refused(session, reference, f"cannot upload to {reference.name}: {reference.registry} takes no blobs in chunks")
        try:
            return _Stream(session, reference, upload).run(produce)
        except _Failed as failed:
            reason = failed.reason
        if not isinstance(reason, UploadLost):
            raise reason
        begun += 1
        if begun >= few(session.options):
            raise _refused(session, reference, f"{reason.what} (begun {begun} times)") from reason
        sleep(wait_for(begun, reason.retry_after_s, session.options), session.options)


def _refused(session: Session, reference: Reference, what: str) -> ChunksRefused:
    session.refusing_chunks.add(reference.registry)
    return ChunksRefused(what, where=str(reference), mend="write the blob to a file first, and upload it whole")


class _Stream:
    """One call of `produce` and the upload of what it writes. The sender's thread begins with the second chunk: what fits into one is sent whole."""

    def __init__(self, session: Session, reference: Reference, upload: str) -> None:
        self._session = session
        self._reference = reference
        self._chunk_bytes = CHUNK_BYTES
        self._buffer = bytearray()
        self._belt = Belt(lambda: check_cancelled(session.options))
        self._stopped = threading.Event()
        self._sender = _Sender(session.until(self._stopped.is_set), reference, upload, self._belt)
        self._thread: threading.Thread | None = None

    def run(self, produce: Produce) -> tuple[BlobDigest, int]:
        """Raises _Failed if the upload fails, and whatever else `produce` raises; the sender's thread has ended in any case."""
        try:
            produce(self._write)
            return self._finish() if self._thread is not None else self._send_whole()
        except BaseException as error:
            failure = self._belt.failure  # of the sender, before it is stopped
            self._stop()
            if failure is not None and isinstance(error, Exception):
                raise _Failed(failure) from None
            raise

    def _write(self, piece: bytes) -> int:
        if self._belt.failure is not None:
            raise StreamEnded(f"the upload has ended: {self._belt.failure}")
        left = memoryview(piece)
        while left:
            if len(self._buffer) == self._chunk_bytes:  # not before more comes: the last chunk is never empty, and may be the only one
                self._hand_over()
            room = self._chunk_bytes - len(self._buffer)
            self._buffer += left[:room]
            left = left[room:]
        return len(piece)

    def _hand_over(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=copy_context().run, args=(self._sender.run,), name="upload", daemon=True)
            thread.start()
            self._thread = thread
        self._belt.put(self._buffer)
        self._buffer = bytearray()

    def _finish(self) -> tuple[BlobDigest, int]:
        assert self._thread is not None
        self._hand_over()
        self._belt.end()
        self._thread.join()
        if self._belt.failure is not None:
            raise _Failed(self._belt.failure)
        return self._sender.digest, self._sender.size

    def _send_whole(self) -> tuple[BlobDigest, int]:
        content = bytes(self._buffer)
        descriptor = Descriptor(media_type="application/octet-stream", digest=digest_of(content), size=len(content))
        put_blob(self._session, self._reference, descriptor, lambda: io.BytesIO(content), may_exist=False)
        return descriptor.digest, descriptor.size

    def _stop(self) -> None:
        """End the sender, which notices it within a tenth of a second also while it waits for the network, and the upload over there."""
        self._stopped.set()
        self._belt.end()
        if self._thread is not None:
            self._thread.join()
        if not isinstance(self._belt.failure, UploadLost | Unreachable):
            with suppress(Cancelled):  # what was cancelled asks for nothing more
                abandon(self._session, self._reference, self._sender.location)


class Belt:
    """At most one chunk on its way from the thread that makes it to the one that sends it. `failure`: why none is taken any more."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._turn = threading.Condition()
        self._chunk: bytearray | None = None
        self._is_over = False
        self.failure: BaseException | None = None

    def put(self, chunk: bytearray) -> None:
        """Wait for room. Raises StreamEnded, and what `check` raises while it waits."""
        with self._turn:
            while self._chunk is not None and self.failure is None:
                self._turn.wait(SLICE_S)
                self._check()
            if self.failure is not None:
                raise StreamEnded(f"the upload has ended: {self.failure}")
            self._chunk = chunk
            self._turn.notify_all()

    def end(self) -> None:
        """No more chunks come."""
        with self._turn:
            self._is_over = True
            self._turn.notify_all()

    def take(self) -> bytearray | None:
        """The next chunk; None after the last one."""
        with self._turn:
            while self._chunk is None and not self._is_over:
                self._turn.wait()
            chunk, self._chunk = self._chunk, None
            self._turn.notify_all()
            return chunk

    def fail(self, reason: BaseException) -> None:
        with self._turn:
            self.failure = reason
            self._turn.notify_all()


class Window:
    """The bytes of the blob that are held: those the registry may lack."""

    def __init__(self, session: Session, reference: Reference, meter: Meter, belt: Belt) -> None:
        self._session = session
        self._reference = reference
        self._meter = meter
        self._belt = belt
        self._hash = hashlib.sha256()
        self._chunks: deque[bytearray] = deque()
        self._start = 0
        self.end = 0

    @property
    def digest(self) -> BlobDigest:
        """Of all bytes that came."""
        return BlobDigest(f"sha256:{self._hash.hexdigest()}")

    def fill(self, at: int, least: int) -> bool:
        """Let go of the chunks before `at`, and take new ones till `least` bytes follow it; fewer only at the end. False if none follow."""
        while self._chunks and self._start + len(self._chunks[0]) <= at:
            self._start += len(self._chunks.popleft())
        while self.end - at < max(least, 1):
            chunk = self._belt.take()
            check_cancelled(self._session.options)
            if chunk is None:
                break
            self._hash.update(chunk)
            self._chunks.append(chunk)
            self.end += len(chunk)
        return self.end > at

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        if start < self._start:
            what = f"the registry goes back to byte {start} of an upload, and the bytes before {self._start} are gone"
            raise UploadLost(what, where=str(self._reference), mend="run it again", tries=few(self._session.options))
        return self._pieces(start, end)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        chunk_start = self._start
        for chunk in self._chunks:
            first, last = max(start - chunk_start, 0), min(end - chunk_start, len(chunk))
            for at in range(first, last, PIECE_BYTES):
                check_cancelled(self._session.options)
                piece = bytes(memoryview(chunk)[at : min(at + PIECE_BYTES, last)])
                yield piece
                self._meter.went(len(piece), chunk_start + at + len(piece))
            chunk_start += len(chunk)


class _Sender:
    """Sends what comes by the belt. `digest` and `size` are known when it is done, `location` when the upload has begun."""

    def __init__(self, session: Session, reference: Reference, upload: str, belt: Belt) -> None:
        self._session = session
        self._reference = reference
        self._belt = belt
        self._meter = Meter(session, reference, upload, 0)
        self._window = Window(session, reference, self._meter, belt)
        self._upload: ChunkedUpload | None = None

    @property
    def digest(self) -> BlobDigest:
        return self._window.digest

    @property
    def size(self) -> int:
        return self._window.end

    @property
    def location(self) -> str:
        return self._upload.location if self._upload is not None else ""

    def run(self) -> None:
        """The sender's thread. Leaves whatever it fails for to the belt."""
        try:
            self._send()
        except BaseException as error:
            self._belt.fail(error)

    def _send(self) -> None:
        doing = f"upload a blob to {self._reference.name}"
        started = with_retries(lambda: start_upload(self._session, self._reference, doing), self._session.options)
        upload = self._upload = ChunkedUpload(self._session, self._reference, doing, self._window, started)
        least = least_chunk_bytes(started)
        if least > _LARGEST_BYTES:
            raise _refused(self._session, self._reference, f"cannot {doing}: {self._reference.registry} wants chunks of {least} bytes")
        try:
            while self._window.fill(upload.at, least):
                upload.go_on(self._window.end)
            self._make_blob(upload.location)
        except (Unreachable, Unauthorized):
            raise
        except RegistryError as error:
            raise self._judged(error, upload) from error
        self._meter.tell(self.size, total_bytes=self.size)

    def _judged(self, error: RegistryError, upload: ChunkedUpload) -> RegistryError:
        """What it means that an upload is over: who has taken no chunk yet, and does not say that it forgot the upload, takes none."""
        is_forgotten = isinstance(error, UploadLost | NotFound) or "BLOB_UPLOAD_UNKNOWN" in error.said
        if upload.furthest == 0 and not is_forgotten:
            return _refused(self._session, self._reference, error.what)
        gone = lost(error)
        gone.tries = few(self._session.options)
        return gone

    def _make_blob(self, location: str) -> None:
        """The last request. One whose answer was lost may have been a success: then the upload is gone, and the blob is there."""
        session, reference, digest = self._session, self._reference, self.digest
        may_be_there = False

        def make_once() -> None:
            nonlocal may_be_there
            if may_be_there and has_blob_once(session, reference, digest, size=self.size):
                return
            may_be_there = True
            try:
                finish_upload(session, last_call(reference, digest, location))
            except Unreachable:
                raise
            except RegistryError as error:
                error.tries = 1  # with this upload, that is
                raise

        with_retries(make_once, session.options)
