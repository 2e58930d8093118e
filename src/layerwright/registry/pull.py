"""From a reference to the one image it means for a platform. Source: OCI image-spec 1.1, image-index.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from layerwright.limits import INDEX_DEPTH, INDEXES_READ, MANIFEST_BYTES
from layerwright.oci.digest import BlobDigest
from layerwright.oci.image_config import ImageConfig, decode_image_config
from layerwright.oci.manifest import INDEXES, MANIFESTS, BadManifest, Descriptor, Index, Manifest, check_image, decode_manifest
from layerwright.oci.platform import Platform, suits
from layerwright.oci.reference import Reference
from layerwright.registry.client import Registry
from layerwright.registry.errors import NoSuchPlatform, WrongBytes

if TYPE_CHECKING:
    from layerwright.registry.manifests import Fetched

_USUAL_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}  # what an architecture without a variant means


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """An image of a registry for one platform. `digest` is what the reference itself names: an index's digest, or the manifest's own."""

    reference: Reference
    digest: BlobDigest
    manifest: Manifest
    manifest_bytes: bytes
    descriptor: Descriptor  # of the platform's manifest

    @property
    def pinned(self) -> Reference:
        """The platform's manifest by digest: what to name where a tag may move."""
        return replace(self.reference, tag=None, digest=self.descriptor.digest)


def resolve(registry: Registry, reference: Reference, platform: Platform) -> Resolved:
    """Ask what the reference names, and choose the platform's manifest. Raises NoSuchPlatform, BadManifest, RegistryError."""
    named = registry.manifest(reference)
    found = _Search(registry, reference, platform).image(named, 0)
    if found is None:
        raise BadManifest(f"its index holds no image within {INDEX_DEPTH} levels", where=str(reference), mend="name an image, not another kind of artifact")
    fetched, manifest = found
    return Resolved(reference=reference, digest=named.descriptor.digest, manifest=manifest, manifest_bytes=fetched.content, descriptor=fetched.descriptor)


def fetch_config(registry: Registry, resolved: Resolved, platform: Platform) -> tuple[ImageConfig, bytes]:
    """The image's config and its bytes. Raises NoSuchPlatform if it is for another platform, which a manifest outside an index says only here.

    Where an index chose the manifest its word stands: configs of cross-built images are not always right.
    """
    descriptor = resolved.manifest.config
    where = str(resolved.reference)
    if descriptor.size > MANIFEST_BYTES:
        raise BadManifest(
            f"an image config of {descriptor.size} bytes is over the limit of {MANIFEST_BYTES}", where=where, mend="push the image again with a smaller config"
        )
    content = registry.blob_bytes(resolved.pinned, descriptor)
    config = decode_image_config(content, where=where)
    if resolved.digest == resolved.descriptor.digest and not suits(platform, config.platform):
        raise _no_such_platform(resolved.reference, platform, [config.platform])
    return config, content


def ranked(offers: Sequence[Descriptor], wanted: Platform) -> list[Descriptor]:
    """The offers that suit, best first: the exact variant, then none, then the architecture's usual one, then the lowest."""

    def rank(offer: Descriptor) -> tuple[bool, bool, bool, str]:
        offered = offer.platform
        assert offered is not None
        return (offered != wanted, bool(offered.variant), offered.variant != _USUAL_VARIANT.get(offered.architecture), offered.variant)

    return sorted((one for one in offers if one.platform is not None and suits(wanted, one.platform)), key=rank)


class _Search:
    """One walk through an index and the indexes inside it; what names no platform may be for any, and is looked at last."""

    def __init__(self, registry: Registry, reference: Reference, wanted: Platform) -> None:
        self._registry = registry
        self._reference = reference
        self._wanted = wanted
        self._asked = 0

    def image(self, fetched: Fetched, depth: int) -> tuple[Fetched, Manifest] | None:
        """The image in what was fetched; None if there is none in the levels that are looked at. Raises NoSuchPlatform."""
        decoded = decode_manifest(fetched.content, media_type=fetched.descriptor.media_type, where=str(self._reference))
        if isinstance(decoded, Manifest):
            check_image(decoded, where=str(self._reference))
            return fetched, decoded
        if depth == INDEX_DEPTH:
            return None
        return self._inside(decoded, depth)

    def _inside(self, index: Index, depth: int) -> tuple[Fetched, Manifest] | None:
        offered = {one.platform for one in index.manifests if one.platform is not None}
        nested = [one for one in index.manifests if one.platform is None and one.media_type in (*INDEXES, *MANIFESTS)]
        for offer in (*ranked(index.manifests, self._wanted)[:1], *nested):
            try:
                if (found := self.image(self._fetch(offer), depth + 1)) is not None:
                    return found
            except NoSuchPlatform as error:
                offered |= set(error.offered)
        if offered or not nested:
            raise _no_such_platform(self._reference, self._wanted, sorted(offered))
        return None

    def _fetch(self, offer: Descriptor) -> Fetched:
        self._asked += 1
        if self._asked > INDEXES_READ:
            raise BadManifest(f"its index holds more than {INDEXES_READ} others", where=str(self._reference), mend="name the image by its own digest")
        fetched = self._registry.manifest(replace(self._reference, digest=offer.digest))
        if len(fetched.content) != offer.size:
            what = f"manifest {offer.digest} has {len(fetched.content)} bytes, its index says {offer.size}"
            raise WrongBytes(what, where=str(self._reference), mend="push the image again")
        return fetched


def _no_such_platform(reference: Reference, wanted: Platform, offered: Sequence[Platform]) -> NoSuchPlatform:
    there = [str(one) for one in offered if one.os != "unknown"]  # attestations call themselves unknown/unknown
    listed = f"it exists for {', '.join(there)}" if there else "its index names no platform"
    return NoSuchPlatform(
        f"there is no image for {wanted}: {listed}", where=str(reference), mend="choose one of these platforms, or another image", offered=tuple(offered)
    )
