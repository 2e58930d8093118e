"""Manifests on their way out. Source: OCI distribution-spec 1.1, "Pushing Manifests"."""

from __future__ import annotations

import re

from layerwright.limits import MANIFEST_BYTES
from layerwright.oci.digest import BlobDigest, digest_of
from layerwright.oci.reference import Reference
from layerwright.registry.errors import BlobsMissing, NameTaken, RegistryError, WrongBytes
from layerwright.registry.http import Answer
from layerwright.registry.manifests import ACCEPT
from layerwright.registry.retry import few, with_retries
from layerwright.registry.session import PUSH, Call, Session

# What registries say that move no name. ECR: 400 TAG_INVALID "already exists in the ... repository and cannot be overwritten because the repository is
# immutable"; Harbor: 412 PRECONDITION "configured as immutable"; Docker Hub and others: 403.
_MOVES_NO_NAME = re.compile(r"immutab|overw(?:rite|ritten)|already exists|re-?deploy|not allow updating", re.IGNORECASE)


def put_manifest(session: Session, reference: Reference, content: bytes, media_type: str) -> BlobDigest:
    """Name `content` by the reference's tag or digest, and return its digest.

    Raises NameTaken at once if the tag stands for something else and is not to be moved, and BlobsMissing after a few tries.
    """
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
        if _moves_no_name(call.reference, error):
            if _holds(session, call.reference, digest):  # a try before this one did it, or somebody who made the same
                return
            raise _taken(call.reference, error) from error
        if "BLOB_UNKNOWN" in error.said:
            raise _missing(session, error) from error
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


def _moves_no_name(reference: Reference, error: RegistryError) -> bool:
    return reference.tag is not None and (error.status == 409 or (400 <= error.status < 500 and _MOVES_NO_NAME.search(error.said) is not None))


def _taken(reference: Reference, error: RegistryError) -> NameTaken:
    taken = NameTaken(error.what, where=error.where, mend=f"use another tag than {reference.tag}, or let the repository's tags be moved")
    taken.status, taken.said = error.status, error.said
    return taken


def _missing(session: Session, error: RegistryError) -> BlobsMissing:
    """Worth a few tries: a blob that was just sent is not seen everywhere yet."""
    missing = BlobsMissing(error.what, where=error.where, mend="push again: what is missing is sent then", tries=few(session.options))
    missing.status, missing.said = error.status, error.said
    return missing


def _holds(session: Session, reference: Reference, digest: BlobDigest) -> bool:
    """Whether the name stands for `digest` already."""
    try:
        return _asked(session, reference).header("Docker-Content-Digest") == digest
    except RegistryError:
        return False  # who may write need not be allowed to read


def _is_kept(session: Session, reference: Reference, digest: BlobDigest) -> bool:
    """The same, and that a registry which cannot be asked has it is believed."""
    answer = _asked(session, reference)
    return answer.status == 405 or answer.header("Docker-Content-Digest") == digest


def _asked(session: Session, reference: Reference) -> Answer:
    path = f"manifests/{reference.tag or reference.version}"
    answer = session.send(
        Call(reference=reference, doing="look for the manifest", method="HEAD", path=path, actions=PUSH, headers=ACCEPT, expect=(200, 404, 405))
    )
    answer.close()
    return answer
