"""External base images: from a reference to its manifest and config. Each reference is resolved at most once in a run, then everything goes by that digest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from layerwright.config.model import ExternalBase
from layerwright.errors import LayerwrightError, UsageError
from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.oci.image_config import ImageConfig, decode_image_config
from layerwright.oci.manifest import BadManifest, Descriptor, Index, Manifest, check_image, decode_manifest
from layerwright.oci.platform import Platform, suits
from layerwright.oci.reference import Reference, parse_reference
from layerwright.registry.client import Registry
from layerwright.registry.errors import NotFound, RegistryError
from layerwright.registry.pull import fetch_config, resolve
from layerwright.storage.contract import MissingBlob
from layerwright.storage.holdings import Origin
from layerwright.storage.images import StoredImage
from layerwright.storage.local import LocalStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A base image whose manifest and config are in the store; its layers are there or known to come from `reference`."""

    reference: Reference
    named: BlobDigest  # what the reference names: maybe an index
    manifest_digest: BlobDigest
    manifest: Manifest
    config: ImageConfig

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self.manifest.layers


class BaseNotAvailable(UsageError):
    """No registry gives the base, and the store does not hold it."""

    exit_code = 1


class Bases:
    """Resolves references. Thread-safe: two images on one base ask once."""

    def __init__(self, store: LocalStore, registry: Callable[[], Registry], warn: Callable[[str], None]) -> None:
        self._store = store
        self._registry = registry
        self._warn = warn
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._held: dict[str, Held] = {}
        self._latest: dict[str, BlobDigest] = {}
        self._named: dict[str, BlobDigest] = {}

    def digest_now(self, base: ExternalBase) -> BlobDigest:
        """What the tag names now (fromLatest): one HEAD. Raises what the registry says; nothing local stands in."""
        with self._lock(base.text):
            if base.text not in self._latest:
                reference = parse_reference(base.text, where=str(base.position))
                found = self._registry().head(reference)
                if found is None:
                    raise NotFound(f"{reference} does not exist", where=str(base.position), mend="correct the name or the tag, or push the image")
                self._latest[base.text] = found.digest
            return self._latest[base.text]

    def hold(self, base: ExternalBase, platform: Platform) -> Held:
        """The image, its manifest and config in the store. Raises BaseNotAvailable, or what the registry says."""
        where = str(base.position)
        key = f"{base.text} {platform}"
        with self._lock(f"hold {base.text}"):
            if key not in self._held:
                reference = parse_reference(base.text, where=where)
                named = self.digest_now(base) if base.latest else self._named.get(base.text)  # another platform may have asked before
                held = self.find(reference, platform, where=where, named=named, local_may_serve=not base.latest)
                self._named.setdefault(base.text, held.named)
                self._held[key] = held
            return self._held[key]

    def find(self, reference: Reference, platform: Platform, *, where: str = "", named: BlobDigest | None = None, local_may_serve: bool = True) -> Held:
        """By digest: the store first. By tag: the registry first, the store with a warning if that fails. `named`: what the tag is known to name."""
        asked = replace(reference, digest=named) if named else reference
        if asked.digest and (local := self._local(asked, platform)) is not None:
            return local
        try:
            return self.pull(asked, platform, known_as=reference)
        except (RegistryError, BadManifest) as error:
            local = self._local(reference, platform) if local_may_serve else None
            if local is None:
                raise _at(error, where) from error
            self._warn(f"{reference}: {error.what}; the image held locally ({local.manifest_digest[:19]}) is used instead")
            return local

    def pull(self, reference: Reference, platform: Platform, *, known_as: Reference | None = None) -> Held:
        """Ask the registry, and keep what it says of the image: manifest, config, where the layers are. No layer is fetched."""
        registry = self._registry()
        found = resolve(registry, reference, platform)
        self._store.add_blob(found.manifest_bytes)
        try:
            self._store.read_blob(found.manifest.config.digest)
        except MissingBlob:
            self._store.add_blob(fetch_config(registry, found, platform)[1])
        held = self._read(reference, found.descriptor.digest, found.manifest, named=found.digest)
        if found.digest == found.descriptor.digest and not suits(platform, held.config.platform):  # no index chose it, so its config decides
            raise BadManifest(
                f"it is for {held.config.platform}, not for {platform}", where=str(reference), mend="use an image for that platform, or build for this one"
            )
        self._note_origins(held)
        size = found.manifest.config.size + sum(layer.size for layer in held.layers)
        self._store.images.add(
            StoredImage(
                reference=str(known_as or reference),
                platform=str(platform),
                manifest=held.manifest_digest,
                named=found.digest,
                source="pull",
                added_ms=time.time_ns() // 1_000_000,
                size=size,
            )
        )
        return held

    def _note_origins(self, held: Held) -> None:
        for diff_id, layer in zip(held.config.diff_ids, held.layers, strict=True):
            self._store.note_layer(diff_id, origins=(Origin(repository=held.reference.name, descriptor=layer),))

    def _local(self, reference: Reference, platform: Platform) -> Held | None:
        """The image as the store has it, if its layers are here or known to come from somewhere."""
        kept = self._store.images.find(reference, platform)
        digest = kept.manifest if kept is not None else reference.digest
        if digest is None or not self._store.has_blob(digest):
            return None
        try:
            manifest = decode_manifest(self._store.read_blob(digest), where=str(reference))
            if isinstance(manifest, Index):
                return None
            held = self._read(reference, digest, manifest, named=kept.named if kept is not None else digest)
        except MissingBlob:
            return None
        if kept is None and not suits(platform, held.config.platform):
            return None
        if kept is not None and kept.source == "pull":
            self._note_origins(held)
        return held if all(self._has_layer(*one) for one in zip(held.config.diff_ids, held.layers, strict=True)) else None

    def _has_layer(self, diff_id: DiffId, layer: Descriptor) -> bool:
        """Whether the layer can be had; what is known of where it lies is written down again if that was lost."""
        if self._store.has_blob(layer.digest, size=layer.size):
            self._store.note_layer(diff_id, blobs=(layer,))
            return True
        return bool(self._store.holding(diff_id).origins)

    def _read(self, reference: Reference, digest: BlobDigest, manifest: Manifest, *, named: BlobDigest) -> Held:
        config = decode_image_config(self._store.read_blob(manifest.config.digest), where=str(reference))
        if len(config.diff_ids) != len(manifest.layers):
            raise BadManifest(
                f"the config names {len(config.diff_ids)} layers, the manifest {len(manifest.layers)}", where=str(reference), mend="push the image again"
            )
        check_image(manifest, where=str(reference))
        return Held(reference=reference, named=named, manifest_digest=digest, manifest=manifest, config=config)

    def _lock(self, text: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(text, threading.Lock())


def _at(error: LayerwrightError, where: str) -> LayerwrightError:
    """The same error, and the line of werf.yaml that named the image."""
    place = f"{where}: " if where else ""
    return BaseNotAvailable(error.what, where=f"{place}{error.where}".rstrip(": "), mend=error.mend)
