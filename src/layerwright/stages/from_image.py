"""The `from` stage: what identifies a base image, as the table in docs/images.md says."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.config.model import Base, ExternalBase, Image, InternalBase, ScratchBase
from layerwright.oci.digest import BlobDigest
from layerwright.oci.reference import parse_reference
from layerwright.stages.key import Inputs, Json
from layerwright.storage.records import ContentDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """What must be known of a base: `latest` is the digest its tag has now (fromLatest), `content` the other image's content digest."""

    latest: BlobDigest | None = None
    content: ContentDigest | None = None


def base_identity(base: Base, facts: BaseFacts) -> Inputs:
    match base:
        case ScratchBase():
            return {"scratch": True}
        case InternalBase():
            assert facts.content is not None
            return {"image": facts.content}
        case ExternalBase(latest=True):
            assert facts.latest is not None
            return {"digest": facts.latest}
        case ExternalBase(text=text):
            digest = parse_reference(text, where=str(base.position)).digest
            return {"digest": digest} if digest else {"reference": text}


def from_inputs(image: Image, facts: BaseFacts) -> Inputs:
    inputs: dict[str, Json] = {"base": base_identity(image.base, facts)}
    if image.cache_version:
        inputs["cacheVersion"] = image.cache_version
    if image.from_cache_version:
        inputs["fromCacheVersion"] = image.from_cache_version
    if image.mounts:
        inputs["mounts"] = [{"from": mount.kind, "to": mount.to} for mount in image.mounts]
    return inputs
