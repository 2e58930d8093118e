"""Small images and the options tests use."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from layerwright.oci.digest import digest_of
from layerwright.oci.manifest import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, Index, Manifest
from layerwright.oci.platform import Platform, parse_platform
from layerwright.oci.reference import Reference, parse_reference
from layerwright.registry.client import Registry
from layerwright.registry.options import RegistryOptions

Connect = Callable[[RegistryOptions], Registry]

AMD64 = parse_platform("linux/amd64")
LAYER = bytes(range(256)) * 40
LARGE = bytes(range(251)) * 20_000  # more than is fetched in one piece


def quick(**changes: Any) -> RegistryOptions:
    """Options for tests: no login, short waits."""
    return replace(
        RegistryOptions(config_dir="/nonexistent", first_wait_s=0.01, longest_wait_s=2.0, read_timeout_s=5.0, attempts=3, system_dir="/nonexistent"), **changes
    )


def at(address: str, name: str) -> Reference:
    return parse_reference(f"{address}/{name}")


def of(content: bytes, media_type: str = OCI_LAYER_GZIP, platform: Platform | None = None) -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest_of(content), size=len(content), platform=platform)


def config_bytes(platform: Platform) -> bytes:
    said = {"os": platform.os, "architecture": platform.architecture, "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest_of(LAYER)]}}
    return json.dumps(said | ({"variant": platform.variant} if platform.variant else {})).encode()


def image_of(platform: Platform) -> Manifest:
    return Manifest(config=of(config_bytes(platform), OCI_CONFIG), layers=(of(LAYER),))


def push_image(registry: Registry, reference: Reference, platform: Platform = AMD64) -> Descriptor:
    """Push a one-layer image; returns the descriptor of its manifest."""
    manifest = image_of(platform)
    for content, descriptor in ((LAYER, manifest.layers[0]), (config_bytes(platform), manifest.config)):
        registry.put_blob(reference, descriptor, lambda content=content: io.BytesIO(content))  # type: ignore[misc]
    registry.put_manifest(reference, manifest.encode(), OCI_MANIFEST)
    return of(manifest.encode(), OCI_MANIFEST, platform)


def push_index(registry: Registry, reference: Reference, *manifests: Descriptor) -> Descriptor:
    index = Index(manifests=manifests)
    registry.put_manifest(reference, index.encode(), index.media_type)
    return of(index.encode(), index.media_type)
