"""Blobs and manifests on their way out. Source: OCI distribution-spec 1.1, "Push", "POST then PUT" and "Mounting a blob"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import BinaryIO
from urllib.parse import quote

from layerwright.limits import MANIFEST_BYTES
from layerwright.oci.digest import BlobDigest, digest_of
from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.chunks import CHUNK_BYTES, BrokenSource, ChunkedUpload, Source
from layerwright.registry.errors import NotFound, RegistryError, Unreachable, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.manifests import ACCEPT
from layerwright.registry.retry import few, with_retries
from layerwright.registry.session import PUSH, Call, Session

_NOTHING = {"Content-Length": "0"}


def has_blob(session: Session, reference: Reference, digest: BlobDigest, *, actions: str = PUSH) -> bool:
    return with_retries(lambda: _has_blob_once(session, reference, digest, actions), session.options)


def _has_blob_once(session: Session, reference: Reference, digest: BlobDigest, actions: str, size: int = -1) -> bool:
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
    """Upload a blob unless it is there. `opened` is called anew for each try. Raises RegistryError, and WrongBytes if `opened` gives other bytes.

    It is sent whole. If that fails and it is large, it is sent in chunks, so that not all is lost each time; not to a registry that refuses chunks.
    """
    in_chunks = False

    def put_once() -> None:
        nonlocal in_chunks
        if _has_blob_once(session, reference, descriptor.digest, PUSH, descriptor.size):
            return
        started = _start(session, reference, descriptor)
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


def _start(session: Session, reference: Reference, descriptor: Descriptor) -> Answer:
    doing = f"upload blob {descriptor.digest}"
    started = session.send(Call(reference=reference, doing=doing, method="POST", path="blobs/uploads/", actions=PUSH, headers=_NOTHING, expect=(202,)))
    started.close()
    if not started.header("Location"):
        raise RegistryError(f"cannot {doing}: the registry says not where to", where=str(reference), mend="ask who runs the registry", tries=2)
    return started


def _send(session: Session, reference: Reference, descriptor: Descriptor, source: Source, started: Answer, *, in_chunks: bool) -> None:
    try:
        if in_chunks:
            location = ChunkedUpload(session, reference, descriptor, source, started).send()
            _finish_upload(session, _last_call(reference, descriptor, location, _NOTHING))
        else:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
            call = _last_call(reference, descriptor, started.header("Location"), headers)
            _finish_upload(session, replace(call, body=lambda: source.pieces(0, descriptor.size)))
    except BrokenSource as error:
        raise error.reason from None


def _last_call(reference: Reference, descriptor: Descriptor, location: str, headers: Mapping[str, str]) -> Call:
    """What makes the upload a blob."""
    return Call(
        reference=reference,
        doing=f"upload blob {descriptor.digest}",
        method="PUT",
        path=f"{location}{'&' if '?' in location else '?'}digest={quote(descriptor.digest)}",
        actions=PUSH,
        headers=headers,
        expect=(201, 204),
    )


def _finish_upload(session: Session, call: Call) -> None:
    try:
        session.send(call).close()
    except NotFound as error:  # the registry lost the upload, or another of its servers never knew it
        error.tries = session.options.attempts
        raise
    except RegistryError as error:
        if "DIGEST_INVALID" in error.what or "SIZE_INVALID" in error.what:
            error.tries = 2  # damaged on the way
        raise


def put_manifest(session: Session, reference: Reference, content: bytes, media_type: str) -> BlobDigest:
    """Name `content` by the reference's tag or digest, and return its digest."""
    digest = digest_of(content)
    where = str(reference)
    if len(content) > MANIFEST_BYTES:
        raise RegistryError(
            f"a manifest of {len(content)} bytes is over the limit of {MANIFEST_BYTES}",
            where=where,
            mend="make an image with fewer layers or shorter annotations",
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
    with_retries(lambda: _put_manifest_once(session, call, content, digest), session.options)
    return digest


def _put_manifest_once(session: Session, call: Call, content: bytes, digest: BlobDigest) -> None:
    """Harmless to do twice: the same bytes get the same name."""
    try:
        answer = session.send(call)
    except RegistryError as error:
        if "BLOB_UNKNOWN" in error.what:  # a blob that was just sent is not seen everywhere yet
            error.tries = few(session.options)
        raise
    answer.close()
    if answer.status != 201 and not _is_kept(session, call.reference, digest):  # no registry said so: a login page, say
        what = f"the manifest was not kept, though the answer was {answer.status} {answer.reason}".rstrip()
        raise RegistryError(what, where=str(call.reference), mend="see what stands between this machine and the registry", tries=few(session.options))
    session.traffic.went(len(content))
    said = answer.header("Docker-Content-Digest")
    if said and said != digest:
        what = f"the registry keeps the manifest as {said}, and was sent {digest}"
        raise WrongBytes(what, where=str(call.reference), mend="ask who runs the registry: it changes manifests", tries=2)


def _is_kept(session: Session, reference: Reference, digest: BlobDigest) -> bool:
    path = f"manifests/{reference.tag or reference.version}"
    answer = session.send(
        Call(reference=reference, doing="look for the manifest", method="HEAD", path=path, actions=PUSH, headers=ACCEPT, expect=(200, 404, 405))
    )
    answer.close()
    return answer.status == 405 or answer.header("Docker-Content-Digest") == digest
