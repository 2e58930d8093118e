"""What is known of one layer besides its bytes: in which compressed blobs it is stored, and from which registries it can be fetched."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from layerwright.oci.digest import BlobDigest, DiffId, is_digest
from layerwright.oci.manifest import Descriptor

_ORIGINS = 8  # kept for one layer: the newest


class Origin(NamedTuple):
    """A blob of this layer as a registry has it. `repository` with the registry in front: "docker.io/library/alpine"."""

    repository: str
    descriptor: Descriptor


class Holding(NamedTuple):
    """`blobs`: the layer compressed or as a tar, whether or not they are in the store now; `size`: bytes of the uncompressed tar, -1 if not known.

    What an image says of its layers is only a claim: any image may name another's diff id beside a blob of its own. `proven` are the blobs whose
    uncompressed bytes were seen to hash to the diff id; no other may be used as this layer, or leave this store as it.
    """

    diff_id: DiffId
    blobs: tuple[Descriptor, ...] = ()
    origins: tuple[Origin, ...] = ()
    size: int = -1
    proven: frozenset[BlobDigest] = frozenset()

    def merged(self, *, blobs: tuple[Descriptor, ...] = (), origins: tuple[Origin, ...] = (), size: int = -1, proven: bool = False) -> Holding:
        """This with more: what is said anew comes first, nothing stands twice."""
        known = {one.digest for one in blobs}
        named = {(one.repository, one.descriptor.digest) for one in origins}
        old_blobs = tuple(one for one in self.blobs if one.digest not in known)
        old_origins = tuple(one for one in self.origins if (one.repository, one.descriptor.digest) not in named)
        seen = self.proven | known if proven else self.proven
        return self._replace(blobs=blobs + old_blobs, origins=(origins + old_origins)[:_ORIGINS], size=size if size >= 0 else self.size, proven=seen)

    def without(self, digest: BlobDigest) -> Holding:
        """This without a blob, stored or at an origin, that turned out not to be the layer."""
        return self._replace(
            blobs=tuple(one for one in self.blobs if one.digest != digest),
            origins=tuple(one for one in self.origins if one.descriptor.digest != digest),
            proven=self.proven - {digest},
        )


def encode_holding(holding: Holding) -> bytes:
    raw = {
        "schema": 1,
        "diffId": holding.diff_id,
        "size": holding.size,
        "blobs": [_plain(one) for one in holding.blobs],
        "proven": sorted(holding.proven),
        "origins": [{"repository": one.repository, "descriptor": _plain(one.descriptor)} for one in holding.origins],
    }
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()


def decode_holding(content: bytes | None, diff_id: DiffId) -> Holding:
    """What is known; an empty holding if that is nothing, or not readable."""
    try:
        raw = json.loads(content or b"")
        if raw["schema"] != 1 or raw["diffId"] != diff_id:
            return Holding(diff_id=diff_id)
        return Holding(
            diff_id=diff_id,
            blobs=tuple(_descriptor(one) for one in raw["blobs"]),
            origins=tuple(Origin(repository=str(one["repository"]), descriptor=_descriptor(one["descriptor"])) for one in raw["origins"]),
            size=int(raw["size"]),
            proven=frozenset(BlobDigest(one) for one in raw.get("proven", ()) if is_digest(one)),
        )
    except (ValueError, KeyError, TypeError):
        return Holding(diff_id=diff_id)


def _plain(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _descriptor(raw: dict[str, Any]) -> Descriptor:
    if not is_digest(raw["digest"]):
        raise ValueError(raw["digest"])
    return Descriptor(media_type=str(raw["mediaType"]), digest=BlobDigest(raw["digest"]), size=int(raw["size"]))
