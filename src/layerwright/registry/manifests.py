"""Manifests on their way in: asked by tag or digest, held against the digest."""

from __future__ import annotations

import json
from dataclasses import dataclass

from layerwright.oci.digest import BlobDigest, digest_of, is_digest
from layerwright.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, INDEXES, LIMIT_BYTES, MANIFESTS, OCI_INDEX, OCI_MANIFEST, Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.errors import NotFound, RegistryError, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.retry import with_retries
from layerwright.registry.session import Call, Session

_ACCEPT = {"Accept": ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A manifest or an index as the registry holds it, and what it is."""

    content: bytes
    descriptor: Descriptor


def head(session: Session, reference: Reference) -> Descriptor | None:
    """What the reference names now; None if the registry has nothing under it. Asks for the whole manifest where HEAD does not say enough."""
    call = Call(
        reference=reference, doing="look for the manifest", method="HEAD", path=f"manifests/{reference.version}", headers=_ACCEPT, expect=(200, 404, 405)
    )
    answer = session.ask(call)
    answer.close()
    if answer.status == 404:
        return None
    digest, length = answer.header("Docker-Content-Digest"), answer.header("Content-Length")
    media_type = _media_type(answer)
    if answer.status == 405 or not is_digest(digest) or not length.isdigit() or media_type not in (*INDEXES, *MANIFESTS):
        return _found(session, reference)
    if reference.digest is not None and reference.digest != digest:
        raise _wrong(reference, digest)
    return Descriptor(media_type=media_type, digest=BlobDigest(digest), size=int(length))


def _found(session: Session, reference: Reference) -> Descriptor | None:
    try:
        return fetch(session, reference).descriptor
    except NotFound:
        return None


def fetch(session: Session, reference: Reference) -> Fetched:
    """The manifest or index that the reference names. Raises NotFound, WrongBytes."""
    return with_retries(lambda: _fetch_once(session, reference), session.options)


def _fetch_once(session: Session, reference: Reference) -> Fetched:
    answer = session.send(Call(reference=reference, doing="read the manifest", path=f"manifests/{reference.version}", headers=_ACCEPT))
    content = answer.body(LIMIT_BYTES)
    if len(content) > LIMIT_BYTES:
        raise RegistryError(f"its manifest is over the limit of {LIMIT_BYTES} bytes", where=str(reference), mend="name an image: no manifest is that long")
    session.traffic.came(len(content))
    digest = digest_of(content)
    expected = reference.digest or answer.header("Docker-Content-Digest")
    if is_digest(expected) and digest != expected:
        raise _wrong(reference, digest)
    return Fetched(content=content, descriptor=Descriptor(media_type=_said_type(content) or _media_type(answer), digest=digest, size=len(content)))


def _wrong(reference: Reference, digest: str) -> WrongBytes:
    mend = "build again; if it stays so, the registry or a proxy before it damages what it sends"
    return WrongBytes(f"the manifest came damaged: it has digest {digest}", where=str(reference), mend=mend, tries=2)


def _media_type(answer: Answer) -> str:
    return answer.header("Content-Type").partition(";")[0].strip()


def _said_type(content: bytes) -> str:
    """The type a manifest itself claims, "" if it claims none; whoever decodes it says what is wrong with it."""
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    said = raw.get("mediaType") if isinstance(raw, dict) else None
    return said if isinstance(said, str) else ""
