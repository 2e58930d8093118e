"""Blobs and manifests on their way out. Source: OCI distribution-spec 1.1, "Push", "POST then PUT" and "Mounting a blob"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO
from urllib.parse import quote

from layerwright.oci.digest import BlobDigest, digest_of
from layerwright.oci.manifest import LIMIT_BYTES, Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.errors import NotFound, RegistryError, Unreachable, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.options import Transfer
from layerwright.registry.retry import check_cancelled, with_retries
from layerwright.registry.session import PUSH, Call, Session

_PIECE_BYTES = 1 << 20
_NOTHING = {"Content-Length": "0"}


class BrokenSource(Exception):
    """What was to be uploaded could not be read. Carries the error through urllib3, which would take an OSError for one of the network."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def has_blob(session: Session, reference: Reference, digest: BlobDigest, *, actions: str = PUSH) -> bool:
    answer = session.ask(_blob_call(reference, digest, actions))
    answer.close()
    return answer.status == 200


def _blob_call(reference: Reference, digest: BlobDigest, actions: str) -> Call:
    return Call(reference=reference, doing=f"look for blob {digest}", method="HEAD", path=f"blobs/{digest}", actions=actions, expect=(200, 404))


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
        _abandon(session, reference, answer)
    return answer.status == 201


def _abandon(session: Session, reference: Reference, started: Answer) -> None:
    """End an upload that was started and is not wanted, if the registry knows how to."""
    if location := started.header("Location"):
        try:
            call = Call(reference=reference, doing="end an upload", method="DELETE", path=location, actions=PUSH, expect=(202, 204, 404))
            session.send(call).close()
        except RegistryError:
            pass  # it times out over there


def put_blob(session: Session, reference: Reference, descriptor: Descriptor, opened: Callable[[], BinaryIO]) -> None:
    """Upload a blob unless it is there. `opened` is called anew for each try. Raises RegistryError, and WrongBytes if `opened` gives other bytes."""
    with_retries(lambda: _put_once(session, reference, descriptor, opened), session.options)


def _put_once(session: Session, reference: Reference, descriptor: Descriptor, opened: Callable[[], BinaryIO]) -> None:
    found = session.send(_blob_call(reference, descriptor.digest, PUSH))
    found.close()
    if found.status == 200:
        return
    doing = f"upload blob {descriptor.digest}"
    started = session.send(Call(reference=reference, doing=doing, method="POST", path="blobs/uploads/", actions=PUSH, headers=_NOTHING, expect=(202,)))
    started.close()
    location = started.header("Location")
    if not location:
        raise RegistryError(f"cannot {doing}: the registry says not where to", where=str(reference), mend="ask who runs the registry", tries=2)
    call = Call(
        reference=reference,
        doing=doing,
        method="PUT",
        path=f"{location}{'&' if '?' in location else '?'}digest={quote(descriptor.digest)}",
        actions=PUSH,
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)},
        body=lambda: _pieces(session, reference, descriptor, opened),
        expect=(201, 204),
    )
    _finish_upload(session, call)


def _finish_upload(session: Session, call: Call) -> None:
    try:
        session.send(call).close()
    except BrokenSource as error:
        raise error.reason from None
    except NotFound as error:  # the registry lost the upload, or another of its servers never knew it
        error.tries = session.options.attempts
        raise
    except RegistryError as error:
        if "DIGEST_INVALID" in error.what or "SIZE_INVALID" in error.what:
            error.tries = 2  # damaged on the way
        raise


def _pieces(session: Session, reference: Reference, descriptor: Descriptor, opened: Callable[[], BinaryIO]) -> Iterator[bytes]:
    sent = 0
    try:
        with opened() as source:
            while piece := source.read(_PIECE_BYTES):
                check_cancelled(session.options)
                sent += len(piece)
                if sent > descriptor.size:
                    break
                yield piece
                session.traffic.went(len(piece))
                session.tell(Transfer(direction="push", reference=str(reference), digest=descriptor.digest, done_bytes=sent, total_bytes=descriptor.size))
        if sent != descriptor.size:
            what = f"blob {descriptor.digest} was to have {descriptor.size} bytes, and {'more' if sent > descriptor.size else sent} were there to upload"
            raise WrongBytes(what, where=str(reference), mend="build again; the store is checked where it is read")
    except OSError as error:
        raise BrokenSource(error) from error


def put_manifest(session: Session, reference: Reference, content: bytes, media_type: str) -> BlobDigest:
    """Name `content` by the reference's tag or digest, and return its digest."""
    digest = digest_of(content)
    where = str(reference)
    if len(content) > LIMIT_BYTES:
        raise RegistryError(
            f"a manifest of {len(content)} bytes is over the limit of {LIMIT_BYTES}", where=where, mend="make an image with fewer layers or shorter annotations"
        )
    if reference.digest is not None and reference.digest != digest:
        raise WrongBytes(f"the manifest has digest {digest}", where=where, mend="push by tag, or name the digest it has")
    call = Call(
        reference=reference,
        doing="push the manifest",
        method="PUT",
        path=f"manifests/{reference.tag or reference.version}",
        actions=PUSH,
        headers={"Content-Type": media_type},
        body=content,
        expect=(200, 201, 202),
    )
    answer = session.ask(call)
    answer.close()
    session.traffic.went(len(content))
    said = answer.header("Docker-Content-Digest")
    if said and said != digest:
        raise WrongBytes(
            f"the registry keeps the manifest as {said}, and was sent {digest}", where=where, mend="ask who runs the registry: it changes manifests"
        )
    return digest
