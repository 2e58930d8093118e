"""A finished image as a manifest: layers compressed where they are not yet, base layers as they were pulled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from layerwright.build.cabinet import Cabinet
from layerwright.build.options import Cancel
from layerwright.layers.compress import Compressor
from layerwright.oci.digest import BlobDigest, DiffId, digest_of
from layerwright.oci.image_config import ImageConfig
from layerwright.oci.manifest import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
)
from layerwright.storage.local import LocalStore
from layerwright.storage.records import Record

COMPRESSORS = 2
_AS_OCI = {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP, DOCKER_LAYER_ZSTD: OCI_LAYER_ZSTD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An image ready to leave: every blob of the manifest is in the store."""

    manifest: Manifest
    manifest_bytes: bytes
    config_bytes: bytes
    diff_ids: tuple[DiffId, ...]

    @property
    def digest(self) -> BlobDigest:
        return digest_of(self.manifest_bytes)


def export_image(store: LocalStore, cabinet: Cabinet, record: Record, cancel: Cancel, config: ImageConfig | None = None) -> Exported:
    """Make the manifest of `record`; with `config` in place of the record's. Raises MissingBlob, Cancelled, or what a registry says."""
    with ThreadPoolExecutor(COMPRESSORS) as pool:
        layers = tuple(pool.map(lambda diff_id: packed(store, cabinet, diff_id, cancel), record.diff_ids))
    config_bytes = (config or record.config).encode()
    store.add_blob(config_bytes)
    manifest = Manifest(
        config=Descriptor(media_type=OCI_CONFIG, digest=digest_of(config_bytes), size=len(config_bytes)),
        layers=layers,
        media_type=OCI_MANIFEST,
        annotations={"dev.layerwright.content-digest": record.digest},
    )
    content = manifest.encode()
    store.add_blob(content)
    return Exported(manifest=manifest, manifest_bytes=content, config_bytes=config_bytes, diff_ids=record.diff_ids)


def packed(store: LocalStore, cabinet: Cabinet, diff_id: DiffId, cancel: Cancel) -> Descriptor:
    """The layer as a blob to be moved: as it was pulled, as it was packed before, or packed now with gzip."""
    known = cabinet.stored(diff_id)
    if known is None and store.holding(diff_id).origins:
        known = cabinet.fetch(diff_id)
    if known is None or known.digest == BlobDigest(diff_id):
        with store.lock(f"pack-{diff_id[7:]}", cancelled=cancel.is_set):
            known = cabinet.stored(diff_id)
            if known is None or known.digest == BlobDigest(diff_id):
                known = _pack(store, cabinet, diff_id, cancel)
    return replace(known, media_type=_AS_OCI.get(known.media_type, known.media_type) or OCI_LAYER)


def _pack(store: LocalStore, cabinet: Cabinet, diff_id: DiffId, cancel: Cancel) -> Descriptor:
    with store.new_blob() as out:
        compressor = Compressor("gzip", out)

        def feed(piece: bytes) -> None:
            cancel.check()
            compressor.write(piece)

        cabinet.write_tar(diff_id, feed)
        compressor.close()
    made = Descriptor(media_type=OCI_LAYER_GZIP, digest=out.digest, size=out.size)
    store.note_layer(diff_id, blobs=(made,))
    return made


def without_werf_labels(config: ImageConfig) -> ImageConfig:
    """An exported image is nobody's stage: labels that start with `werf` go."""
    return replace(config, labels={name: value for name, value in config.labels.items() if not name.startswith("werf")})
