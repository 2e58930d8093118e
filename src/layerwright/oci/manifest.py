"""Descriptors, manifests and indexes. Source: OCI image-spec 1.1 descriptor.md, manifest.md, image-index.md; Docker "Image Manifest V2, Schema 2"."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layerwright.errors import LayerwrightError
from layerwright.oci.digest import BlobDigest, is_digest
from layerwright.oci.platform import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
FOREIGN_LAYERS = ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")

INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
LIMIT_BYTES = 4 << 20  # of one manifest, index or config; registries refuse more
LIMIT_LAYERS = 1000


class BadManifest(LayerwrightError):
    """Bytes that are no manifest, index or image config that we can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What is stored under `digest`, and its size in bytes."""

    media_type: str
    digest: BlobDigest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform is not None:
            out["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                out["platform"]["variant"] = self.platform.variant
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image: its config and its layers, oldest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The same manifest gives the same bytes."""
        out: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.as_json(),
            "layers": [layer.as_json() for layer in self.layers],
        }
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        return json.dumps(out, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several manifests, usually one for each platform."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        out: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type, "manifests": [one.as_json() for one in self.manifests]}
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        return json.dumps(out, sort_keys=True, separators=(",", ":")).encode()


def decode_manifest(content: bytes, *, media_type: str = "", where: str = "") -> Manifest | Index:
    """Read a manifest or an index; `media_type` is what the server said, used when the bytes do not say. Raises BadManifest."""
    raw = decode_object(content, what="a manifest", where=where)
    if raw.get("schemaVersion") != 2:
        raise BadManifest(
            f"the manifest has schemaVersion {raw.get('schemaVersion')!r}",
            where=where,
            mend="push the image again with a current tool: schema version 1 was retired in 2017",
        )
    said = raw.get("mediaType") or media_type.partition(";")[0].strip()
    if not isinstance(said, str):
        raise BadManifest("mediaType is not a string", where=where)
    if "manifests" in raw and (said in INDEXES or not said):
        listed = _list(raw, "manifests", where)
        return Index(manifests=tuple(_descriptor(one, where) for one in listed), media_type=said or OCI_INDEX, annotations=_texts(raw.get("annotations")))
    if "config" in raw and (said in MANIFESTS or not said):
        layers = tuple(_descriptor(one, where) for one in _list(raw, "layers", where))
        return Manifest(config=_descriptor(raw["config"], where), layers=layers, media_type=said or OCI_MANIFEST, annotations=_texts(raw.get("annotations")))
    raise BadManifest(f"a manifest of type {said!r} is not an image", where=where, mend="name an image, not another kind of artifact")


def decode_object(content: bytes, *, what: str, where: str) -> dict[str, Any]:
    """`content` as one JSON object within LIMIT_BYTES. Raises BadManifest."""
    if len(content) > LIMIT_BYTES:
        raise BadManifest(f"{what} of {len(content)} bytes is over the limit of {LIMIT_BYTES}", where=where)
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"{what} is not JSON: {error}", where=where, mend="push the image again") from error
    if not isinstance(raw, dict):
        raise BadManifest(f"{what} is not a JSON object", where=where, mend="push the image again")
    return raw


def _list(raw: dict[str, Any], key: str, where: str) -> list[Any]:
    listed = raw.get(key) or []
    if not isinstance(listed, list) or len(listed) > LIMIT_LAYERS:
        raise BadManifest(f"{key} is not a list of at most {LIMIT_LAYERS}", where=where)
    return listed


def _descriptor(raw: Any, where: str) -> Descriptor:
    if not isinstance(raw, dict) or not isinstance(raw.get("size"), int) or raw["size"] < 0 or not is_digest(str(raw.get("digest"))):
        raise BadManifest("a descriptor lacks a sha256 digest or a size", where=where, mend="push the image again; digests other than sha256 are not supported")
    platform = None
    if isinstance(said := raw.get("platform"), dict) and said.get("os") and said.get("architecture"):
        platform = Platform(str(said["os"]), str(said["architecture"]), str(said.get("variant") or ""))
    urls = raw.get("urls") or []
    return Descriptor(
        media_type=str(raw.get("mediaType") or ""),
        digest=BlobDigest(raw["digest"]),
        size=raw["size"],
        platform=platform,
        annotations=_texts(raw.get("annotations")),
        urls=tuple(str(url) for url in urls) if isinstance(urls, list) else (),
    )


def _texts(raw: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in raw.items()} if isinstance(raw, dict) else {}
