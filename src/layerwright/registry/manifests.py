"""Manifests on their way in: asked by tag or digest, held against the digest."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from urllib.parse import urlsplit

from layerwright.limits import MANIFEST_BYTES
from layerwright.oci.digest import BlobDigest, digest_of, is_digest
from layerwright.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, INDEXES, MANIFESTS, OCI_INDEX, OCI_MANIFEST, Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.errors import NotFound, RegistryError, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.options import RegistryOptions
from layerwright.registry.retry import few, with_retries
from layerwright.registry.session import PULL, PUSH, Call, Session
from layerwright.registry.texts import shown, told

ACCEPT = {"Accept": ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A manifest or an index as the registry holds it, and what it is."""

    content: bytes
    descriptor: Descriptor


def head(session: Session, reference: Reference, *, direct: bool = False) -> Descriptor | None:
    """What the reference names now; None if the registry has nothing under it. Asks for the whole manifest where HEAD does not say enough."""
    return with_retries(lambda: _head_once(session, reference, PUSH if direct else PULL), session.options)


def _head_once(session: Session, reference: Reference, actions: str) -> Descriptor | None:
    path = f"manifests/{reference.version}"
    call = Call(reference=reference, doing="look for the manifest", method="HEAD", path=path, actions=actions, headers=ACCEPT, expect=(200, 404, 405))
    answer = session.send(call)
    answer.close()
    if answer.status == 404:
        return None
    digest, length = answer.header("Docker-Content-Digest"), answer.header("Content-Length")
    media_type = _media_type(answer)
    if answer.status == 405 or not is_digest(digest) or not length.isdigit() or media_type not in (*INDEXES, *MANIFESTS):
        return _found(session, reference, direct=actions == PUSH)
    if reference.digest is not None and reference.digest != digest:
        raise _doubted(_wrong(reference, f"the registry says that it has digest {digest}, {reference.digest} was asked for"), session, answer)
    return Descriptor(media_type=media_type, digest=BlobDigest(digest), size=int(length))


def _found(session: Session, reference: Reference, *, direct: bool) -> Descriptor | None:
    try:
        return fetch(session, reference, direct=direct).descriptor
    except NotFound:
        return None


def fetch(session: Session, reference: Reference, *, direct: bool = False) -> Fetched:
    """The manifest or index that the reference names. Raises NotFound, WrongBytes."""
    return with_retries(lambda: _fetch_once(session, reference, PUSH if direct else PULL), session.options)


def _fetch_once(session: Session, reference: Reference, actions: str) -> Fetched:
    answer = _asked(session, reference, actions)
    try:
        return _checked(session, reference, answer)
    except RegistryError as error:
        raise _doubted(error, session, answer) from error.__cause__


def _doubted(error: RegistryError, session: Session, answer: Answer) -> RegistryError:
    """`error` of what an answer held; if a mirror gave it, another place is asked for it."""
    if session.doubt(answer.mirror, wrong=isinstance(error, WrongBytes)):
        error.tries = session.options.attempts
    return error


def _checked(session: Session, reference: Reference, answer: Answer) -> Fetched:
    content = _unpacked(answer, answer.body(MANIFEST_BYTES))
    if len(content) > MANIFEST_BYTES:
        raise RegistryError(f"its manifest is over the limit of {MANIFEST_BYTES} bytes", where=str(reference), mend="name an image: no manifest is that long")
    session.traffic.came(len(content))
    digest = digest_of(content)
    if digest != reference.digest and not _is_object(content):
        raise _no_manifest(reference, answer, content, session.options)
    if reference.digest is not None and digest != reference.digest:
        raise _wrong(reference, f"it has digest {digest}, {reference.digest} was asked for")
    announced = answer.header("Docker-Content-Digest")
    if reference.digest is None and is_digest(announced) and digest != announced:
        raise _wrong(reference, f"it has digest {digest}, the registry announced {announced}")
    return Fetched(content=content, descriptor=Descriptor(media_type=_said_type(content) or _media_type(answer), digest=digest, size=len(content)))


def _asked(session: Session, reference: Reference, actions: str) -> Answer:
    try:
        return session.send(Call(reference=reference, doing="read the manifest", path=f"manifests/{reference.version}", actions=actions, headers=ACCEPT))
    except NotFound as error:
        if reference.digest is not None:
            error.tries = few(session.options)  # something names it, so it was there once, or is not here yet
        raise


def _unpacked(answer: Answer, content: bytes) -> bytes:
    """What a proxy compressed though nobody asked for it, as it was; at most one byte over the limit."""
    if answer.header("Content-Encoding").lower() not in ("gzip", "x-gzip"):
        return content
    try:
        return zlib.decompressobj(wbits=31).decompress(content, MANIFEST_BYTES + 1)
    except zlib.error:
        return content  # it only says so


def _wrong(reference: Reference, why: str) -> WrongBytes:
    mend = "run it again; if it stays so, the registry or a proxy before it damages what it sends"
    return WrongBytes(f"the manifest came damaged: {why}", where=str(reference), mend=mend, tries=2)


def _no_manifest(reference: Reference, answer: Answer, content: bytes, options: RegistryOptions) -> WrongBytes:
    """The error for a web page in a manifest's place: of a login to a network, of a proxy, of a registry that is being mended."""
    host = urlsplit(answer.url).netloc.rpartition("@")[2]
    said = shown(told(content))
    what = f"{_media_type(answer) or 'something'} of {len(content)} bytes" + (f": {said}" if said else "") if content else "nothing"
    mend = "see with a browser what stands between this machine and the registry (a login page, a proxy); else run it again later"
    return WrongBytes(
        f"cannot read the manifest: {host} answers {answer.status} with {what}, which is no manifest", where=str(reference), mend=mend, tries=few(options)
    )


def _is_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


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
