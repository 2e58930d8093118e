"""Whether a repository has a blob, and how large it is. Source: OCI distribution-spec 1.1, "Checking if content exists in the registry"."""

from __future__ import annotations

from layerwright.oci.digest import BlobDigest
from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.retry import with_retries
from layerwright.registry.session import Call, Session


def find_blob(session: Session, reference: Reference, digest: BlobDigest) -> Descriptor | None:
    """The blob with its size, by HEAD; None if it is not there, or if the registry does not say how large it is. Raises RegistryError."""

    def once() -> Descriptor | None:
        call = Call(reference=reference, doing=f"look for blob {digest}", method="HEAD", path=f"blobs/{digest}", expect=(200, 404))
        answer = session.send(call)
        answer.close()
        length = answer.header("Content-Length")
        return Descriptor(media_type="", digest=digest, size=int(length)) if answer.status == 200 and length.isdigit() else None

    return with_retries(once, session.options)
