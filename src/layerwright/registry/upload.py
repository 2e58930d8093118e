"""Blobs on their way out. Source: OCI distribution-spec 1.1, "Pushing Blobs": "POST then PUT" and "Mounting a blob from another repository"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO
from urllib.parse import quote

from layerwright.oci.digest import BlobDigest
from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.chunks import BrokenSource, ChunkedUpload, Source, least_chunk_bytes
from layerwright.registry.errors import NotFound, RegistryError, Unreachable
from layerwright.registry.http import Answer
from layerwright.registry.retry import few, with_retries
from layerwright.registry.session import PUSH, Call, Session

CHUNK_BYTES = 16 << 20  # more than the least of any registry known (5 MiB)
_LARGEST_BYTES = 1 << 30  # a registry that asks for larger chunks than this gets these
_NOTHING = {"Content-Length": "0"}


def has_blob(session: Session, reference: Reference, digest: BlobDigest, *, actions: str = PUSH) -> bool:
    return with_retries(lambda: has_blob_once(session, reference, digest, actions=actions), session.options)


def has_blob_once(session: Session, reference: Reference, digest: BlobDigest, *, actions: str = PUSH, size: int = -1) -> bool:
    """Asked with HEAD, and with GET where a registry or a proxy before it knows no HEAD: the bytes themselves are not read.

    An answer about something of another `size` is not about this blob: a login page, say.
    """
    answer = session.send(_blob_call(reference, digest, actions, "HEAD"))
    answer.close()
    if answer.status == 405:
        answer = session.send(_blob_call(reference, digest, actions, "GET"))
        answer.close()
    length = answer.header("Content-Length")
    return answer.status == 200 and (size < 0 or length in ("", "0", str(size)))  # some give no length, and call that 0


def _blob_call(reference: Reference, digest: BlobDigest, actions: str, method: str) -> Call:
    return Call(reference=reference, doing=f"look for blob {digest}", method=method, path=f"blobs/{digest}", actions=actions, expect=(200, 404, 405))


def mount_blob(session: Session, reference: Reference, digest: BlobDigest, from_repository: str) -> bool:
    """Let the registry share a blob of another repository of its own; False if it will not. Raises Unreachable."""
    call = Call(
        reference=reference,
        doing=f"mount blob {digest} from {from_repository}",
        method="POST",
        path=f"blobs/uploads/?mount={quote(digest)}&from={quote(from_repository, safe='')}",
        actions=PUSH,
        more_scopes=(f"repository:{from_repository}:pull",),
        headers=_NOTHING,
        expect=(201, 202),
    )
    try:
        answer = session.ask(call)
    except Unreachable:
        raise
    except RegistryError:
        return False  # not offered, or not allowed there: the blob is uploaded then, and what is wrong with that is told
    answer.close()
    if answer.status == 202:
        abandon(session, reference, answer.header("Location"))
    return answer.status == 201


def abandon(session: Session, reference: Reference, location: str) -> None:
    """End the upload at `location` ("": there is none), which is not wanted, if the registry knows how to. Raises Cancelled."""
    if location:
        try:
            call = Call(reference=reference, doing="end an upload", method="DELETE", path=location, actions=PUSH, expect=(202, 204, 404))
            session.send(call).close()
        except RegistryError:
            pass  # it times out over there


def check_push(session: Session, reference: Reference) -> None:
    """See that blobs may be pushed to the reference's repository: an upload is started, and ended at once. Two requests.

    Raises Unauthorized, NotFound if the repository has to exist first, and others that say what the registry said.
    """
    doing = f"push to {reference.name}"
    try:
        started = with_retries(lambda: start_upload(session, reference, doing), session.options)
    except NotFound as error:
        error.mend = f"create the repository {reference.repository} at {reference.registry}, and grant this login the right to push to it"
        raise
    abandon(session, reference, started.header("Location"))


def put_blob(session: Session, reference: Reference, descriptor: Descriptor, opened: Callable[[], BinaryIO], *, may_exist: bool = True) -> None:
    """Upload a blob unless it is there. `opened` is called anew for each try. Raises RegistryError, and WrongBytes if `opened` gives other bytes.

    Whether it is there is asked first; not at the first try if it is known to be new (`may_exist` False): an answer that was lost may have been a good one.
    It is sent whole. If that fails and it is large, it is sent in chunks, so that not all is lost each time; not to a registry that refuses chunks.
    """
    in_chunks = False

    def put_once() -> None:
        nonlocal in_chunks, may_exist
        if may_exist and has_blob_once(session, reference, descriptor.digest, size=descriptor.size):
            return
        may_exist = True
        started = start_upload(session, reference, f"upload blob {descriptor.digest}")
        with Source(session, reference, descriptor, opened) as source:
            try:
                _send(session, reference, descriptor, source, started, in_chunks=in_chunks)
            except Unreachable:
                in_chunks = descriptor.size > CHUNK_BYTES
                raise
            except RegistryError as error:
                if in_chunks:  # the upload is lost, or chunks are refused: sending it whole is worth a try
                    in_chunks, error.tries = False, max(error.tries, few(session.options))
                elif error.status == 413 and descriptor.size > CHUNK_BYTES:  # a proxy with a limit
                    in_chunks, error.tries = True, few(session.options)
                raise

    with_retries(put_once, session.options)


def start_upload(session: Session, reference: Reference, doing: str) -> Answer:
    """The answer that says where to send a blob, once. Source: OCI distribution-spec 1.1, "POST then PUT"."""
    started = session.send(Call(reference=reference, doing=doing, method="POST", path="blobs/uploads/", actions=PUSH, headers=_NOTHING, expect=(202,)))
    started.close()
    if not started.header("Location"):
        raise RegistryError(f"cannot {doing}: the registry says not where to", where=str(reference), mend="ask who runs the registry", tries=2)
    return started


def _send(session: Session, reference: Reference, descriptor: Descriptor, source: Source, started: Answer, *, in_chunks: bool) -> None:
    try:
        if in_chunks:
            chunk_bytes = max(CHUNK_BYTES, min(least_chunk_bytes(started), _LARGEST_BYTES))
            location = ChunkedUpload(session, reference, f"upload blob {descriptor.digest}", source, started).send(descriptor.size, chunk_bytes)
            finish_upload(session, last_call(reference, descriptor.digest, location))
        else:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
            call = last_call(reference, descriptor.digest, started.header("Location"))
            finish_upload(session, replace(call, headers=headers, body=lambda: source.pieces(0, descriptor.size)))
    except BrokenSource as error:
        raise error.reason from None


def last_call(reference: Reference, digest: BlobDigest, location: str) -> Call:
    """What makes the upload a blob, when all its bytes are there."""
    return Call(
        reference=reference,
        doing=f"upload blob {digest}",
        method="PUT",
        path=f"{location}{'&' if '?' in location else '?'}digest={quote(digest)}",
        actions=PUSH,
        headers=_NOTHING,
        expect=(201, 204),
    )


def finish_upload(session: Session, call: Call) -> None:
    try:
        session.send(call).close()
    except NotFound as error:  # the registry lost the upload, or another of its servers never knew it
        error.tries = session.options.attempts
        raise
    except RegistryError as error:
        if "DIGEST_INVALID" in error.what or "SIZE_INVALID" in error.what:
            error.tries = 2  # damaged on the way
        raise
