"""What things are called in a registry repository that keeps stages. Pure. Source: docs/repo.md, "What lies in the repository".

<56 hex>            a finished image, by its content digest; for several platforms an index of theirs
stage-<56 hex>      a stage that others can be built upon
record-<56 hex>     the record beside either: an ordinary image whose layers are small tars
index-<64 hex>      the file index of a layer, by its diff id: likewise
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from layerwright.errors import UsageError
from layerwright.oci.digest import BlobDigest, DiffId, hex_of, is_digest
from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference, has_version, parse_reference, without_login

Kind = Literal["stage", "image"]
OWN_TAG = re.compile(r"(?:(?:stage-|record-)?[0-9a-f]{56}|index-[0-9a-f]{64})\Z")  # written once, by builds

_PREFIX = "dev.layerwright."
STAGE_DIGEST = f"{_PREFIX}stage-digest"  # on a stage's manifest
CONTENT_DIGEST = f"{_PREFIX}content-digest"  # on a finished image's
RECORD = f"{_PREFIX}record"  # on either: the blob of the record, "<digest> <size>"
RECORD_OF = f"{_PREFIX}record-of"  # on a record: the tag that it stands beside
MANIFEST = f"{_PREFIX}manifest"  # on a record: the digest of the manifest that has that tag, or is about to
INDEX_OF = f"{_PREFIX}index-of"  # on an index: the diff id
LAYER = f"{_PREFIX}layer"  # on an index: the layer's blob in this repository, "<media type> <digest> <size>"
PART = f"{_PREFIX}part"  # on a layer of a record or an index: the name of the one file in it


def parse_repository(text: str, *, where: str) -> Reference:
    """REGISTRY/PATH, without tag or digest. Raises UsageError."""
    if has_version(text):
        raise UsageError(
            f"{without_login(text)!r} names a tag or a digest, and a repository is wanted", where=where, mend="write REGISTRY/PATH: registry.example/team/app"
        )
    return replace(parse_reference(text, where=where), tag=None)


def tag_of(kind: Kind, digest: str) -> str:
    assert re.fullmatch(r"[0-9a-z]{56}", digest), digest
    return f"stage-{digest}" if kind == "stage" else digest


def record_tag(digest: str) -> str:
    return f"record-{digest}"


def index_tag(diff_id: DiffId) -> str:
    return f"index-{hex_of(diff_id)}"


def name_annotation(kind: Kind, digest: str) -> Mapping[str, str]:
    """What every manifest of a stage or an image says of itself, so that no two names share one by accident."""
    return {STAGE_DIGEST if kind == "stage" else CONTENT_DIGEST: digest}


class BlobName(NamedTuple):
    """A blob as an annotation names it."""

    digest: BlobDigest
    size: int

    def __str__(self) -> str:
        return f"{self.digest} {self.size}"


def parse_blob_name(text: str) -> BlobName | None:
    digest, _, size = text.partition(" ")
    return BlobName(BlobDigest(digest), int(size)) if is_digest(digest) and re.fullmatch("[0-9]{1,15}", size) else None


def layer_annotation(layer: Descriptor) -> str:
    return f"{layer.media_type} {layer.digest} {layer.size}"


def parse_layer_annotation(text: str) -> Descriptor | None:
    media_type, _, rest = text.partition(" ")
    name = parse_blob_name(rest)
    return Descriptor(media_type=media_type, digest=name.digest, size=name.size) if name is not None else None
