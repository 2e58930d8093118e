"""Descriptors, manifests and indexes. Source: OCI image-spec 1.1 descriptor.md, manifest.md, image-index.md; Docker "Image Manifest V2, Schema 2"."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from layerwright.errors import LayerwrightError
from layerwright.limits import BLOB_BYTES, JSON_DEPTH, LAYERS, MANIFEST_BYTES
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
IMAGE_CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
IMAGE_LAYERS = (OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD)
_UNSAID = ("", "application/octet-stream")  # what old tools call a config or a layer: its bytes decide
_FOREIGN = ("application/vnd.docker.image.rootfs.foreign.", "application/vnd.oci.image.layer.nondistributable.")

INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_PLATFORM_PART = re.compile(r"[A-Za-z0-9._-]{0,64}\Z")
_AGAIN = "push or save the image again"


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
            f"the manifest has schemaVersion {json.dumps(raw.get('schemaVersion'))[:40]}",
            where=where,
            mend="push the image again with a current tool: schema version 1 was retired in 2017",
        )
    said = raw.get("mediaType") or media_type.partition(";")[0].strip()
    if not isinstance(said, str):
        raise BadManifest("mediaType is not a string", where=where, mend=_AGAIN)
    if "manifests" in raw and ("layers" in raw or "config" in raw):
        # Which of the two it is would be the reader's choice, and what one tool scans another would not run (CVE-2021-41190).
        raise BadManifest("the manifest is an index and an image at once", where=where, mend="do not use it: no tool writes that by accident")
    if "manifests" in raw and (said in INDEXES or not said):
        listed = _list(raw, "manifests", where)
        return Index(manifests=tuple(_descriptor(one, where) for one in listed), media_type=said or OCI_INDEX, annotations=_texts(raw.get("annotations")))
    if "config" in raw and (said in MANIFESTS or not said):
        layers = tuple(_descriptor(one, where) for one in _list(raw, "layers", where))
        return Manifest(config=_descriptor(raw["config"], where), layers=layers, media_type=said or OCI_MANIFEST, annotations=_texts(raw.get("annotations")))
    raise BadManifest(f"a manifest of type {said[:200]!r} is not an image", where=where, mend="name an image, not another kind of artifact")


def check_image(manifest: Manifest, *, where: str = "") -> None:
    """That its parts are those of an image whose bytes its own registry or archive holds. Addresses in `urls` are never asked. Raises BadManifest."""
    config = manifest.config.media_type
    if config not in (*IMAGE_CONFIGS, *_UNSAID):
        raise BadManifest(f"a manifest with a config of type {config[:200]!r} is not an image", where=where, mend="name an image, not another kind of artifact")
    for layer in manifest.layers:
        kind = layer.media_type
        if kind.startswith(_FOREIGN):
            raise BadManifest("the image has layers that its registry does not hold (Windows base layers)", where=where, mend="use a Linux image")
        if kind not in (*IMAGE_LAYERS, *_UNSAID):
            raise BadManifest(f"layer {layer.digest} is of the type {kind[:200]!r}, which is no layer that we can read", where=where, mend="use another image")


def decode_object(content: bytes, *, what: str, where: str) -> dict[str, Any]:
    """`content` as one JSON object within MANIFEST_BYTES. Raises BadManifest."""
    raw = decode_json(content, what=what, where=where)
    if not isinstance(raw, dict):
        raise BadManifest(f"{what} is not a JSON object", where=where, mend=_AGAIN)
    return raw


def decode_json(content: bytes, *, what: str, where: str) -> Any:
    """`content` as JSON that every reader understands alike, and that can be stored and printed. Raises BadManifest."""
    if len(content) > MANIFEST_BYTES:
        raise BadManifest(
            f"{what} of {len(content):,} bytes is over the limit of {MANIFEST_BYTES:,}", where=where, mend="push the image again with a smaller one"
        )
    try:
        raw = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_float)
        if b"\\ud" in content or b"\\uD" in content:
            json.dumps(raw, ensure_ascii=False).encode()  # a half of a pair is no text: it could be neither printed nor stored
        if isinstance(raw, dict | list) and _is_deep(raw):
            raise RecursionError
    except RecursionError as error:
        raise BadManifest(f"{what} nests more than {JSON_DEPTH} levels", where=where, mend=_AGAIN) from error
    except ValueError as error:
        raise BadManifest(f"{what} is not JSON: {_one_line(error)}", where=where, mend=_AGAIN) from error
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no name stands twice: of two values readers would choose differently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice[:60]!r} stands twice in one object")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:60]} is no number")


def _float(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _no_number(text)


def _is_deep(raw: Any) -> bool:
    """Whether `raw` nests deeper than whoever writes it again may count on."""
    level = [raw]
    for _ in range(JSON_DEPTH):
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _one_line(error: ValueError) -> str:
    return " ".join(str(error).split())[:200]


def _list(raw: dict[str, Any], key: str, where: str) -> list[Any]:
    listed = raw.get(key) or []
    if not isinstance(listed, list):
        raise BadManifest(f"{key} is not a list", where=where, mend=_AGAIN)
    if len(listed) > LAYERS:
        raise BadManifest(
            f"{len(listed):,} {key}: {LAYERS:,} is the most that is read", where=where, mend="flatten the image into fewer layers, or name one image"
        )
    return listed


def _descriptor(raw: Any, where: str) -> Descriptor:
    if not isinstance(raw, dict) or type(raw.get("size")) is not int or raw["size"] < 0 or not is_digest(str(raw.get("digest"))):
        raise BadManifest("a descriptor lacks a sha256 digest or a size", where=where, mend="push the image again; digests other than sha256 are not supported")
    if raw["size"] > BLOB_BYTES:
        raise BadManifest(f"a blob of {raw['size']:,} bytes is over the limit of {BLOB_BYTES:,}", where=where, mend=_AGAIN)
    media_type = raw.get("mediaType") or ""
    urls = raw.get("urls") or []
    if not isinstance(media_type, str):
        raise BadManifest("the mediaType of a descriptor is not a string", where=where, mend=_AGAIN)
    return Descriptor(
        media_type=media_type,
        digest=BlobDigest(raw["digest"]),
        size=raw["size"],
        platform=_platform(raw.get("platform"), where),
        annotations=_texts(raw.get("annotations")),
        urls=tuple(str(url) for url in urls) if isinstance(urls, list) else (),
    )


def _platform(said: Any, where: str) -> Platform | None:
    if not isinstance(said, dict) or not said.get("os") or not said.get("architecture"):
        return None
    return platform_of(said.get("os"), said.get("architecture"), said.get("variant"), where=where)


def platform_of(os: Any, architecture: Any, variant: Any, *, where: str) -> Platform:
    """A platform as a manifest or a config names it. Raises BadManifest if a part of it is no plain word."""
    parts = (os, architecture, variant or "")
    if not all(isinstance(one, str) and _PLATFORM_PART.match(one) for one in parts):
        raise BadManifest(f"a platform that is none: {json.dumps(parts)[:200]}", where=where, mend=_AGAIN)
    return Platform(*parts)


def _texts(raw: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in raw.items()} if isinstance(raw, dict) else {}
