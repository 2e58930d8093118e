"""A finished image as a manifest: layers compressed where they are not yet, base layers as they were pulled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, Literal

from layerwright.build.cabinet import Cabinet
from layerwright.build.options import Cancel
from layerwright.build.side_by_side import side_by_side
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
from layerwright.storage.archive_output import Out, OutImage, Source
from layerwright.storage.local import LocalStore
from layerwright.storage.records import LayerRef, Record

Compression = Literal["gzip", "zstd", "none"]
COMPRESSORS = 2
_PIECE_BYTES = 1 << 20
AS_OCI = {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP, DOCKER_LAYER_ZSTD: OCI_LAYER_ZSTD}
MEDIA_TYPE: dict[Compression, str] = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD, "none": OCI_LAYER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An image ready to leave: where the bytes of each layer of its manifest come from."""

    manifest: Manifest
    manifest_bytes: bytes
    config_bytes: bytes
    sources: tuple[Source, ...]

    @property
    def digest(self) -> BlobDigest:
        return digest_of(self.manifest_bytes)

    @property
    def image_id(self) -> BlobDigest:
        return self.manifest.config.digest

    def out_image(self) -> OutImage:
        return OutImage(manifest=self.manifest_bytes, config=self.config_bytes, layers=list(zip(self.manifest.layers, self.sources, strict=True)))


class Packer:
    """Makes the layers of one image ready. `compression` is of layers that were built here; those of a base stay as they were pulled."""

    def __init__(self, store: LocalStore, cabinet: Cabinet, cancel: Cancel, *, compression: Compression = "gzip") -> None:
        self._store = store
        self._cabinet = cabinet
        self._cancel = cancel
        self._compression = compression

    def pack(self, record: Record, *, as_blobs: bool = False) -> Packed:
        """The manifest of `record`, without the labels of the build. `as_blobs`: every layer is a blob of the store afterwards.

        Raises MissingBlob, Cancelled, DiskFull, or what a registry says.
        """
        layers = side_by_side(partial(self._layer, as_blobs=as_blobs), record.chain, at_once=COMPRESSORS, cancel=self._cancel)
        config = without_werf_labels(record.config).encode()
        manifest = Manifest(
            config=Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config)),
            layers=tuple(layer for layer, _ in layers),
            media_type=OCI_MANIFEST,
            annotations={"dev.layerwright.content-digest": record.digest},
        )
        return Packed(manifest=manifest, manifest_bytes=manifest.encode(), config_bytes=config, sources=tuple(source for _, source in layers))

    def plain(self, record: Record) -> Packed:
        """The same with every layer as its tar, straight from where it lies: nothing is compressed or written. For docker archives."""
        config = without_werf_labels(record.config).encode()
        layers = [self._tar(layer, DOCKER_LAYER) for layer in record.chain]
        manifest = Manifest(
            config=Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config)),
            layers=tuple(layer for layer, _ in layers),
            media_type=OCI_MANIFEST,
        )
        return Packed(manifest=manifest, manifest_bytes=manifest.encode(), config_bytes=config, sources=tuple(source for _, source in layers))

    def opened(self, layer: Descriptor) -> BinaryIO:
        """A layer that was packed `as_blobs`, for the caller to close."""
        return self._store.opened_blob(layer.digest)

    def _layer(self, layer: LayerRef, *, as_blobs: bool) -> tuple[Descriptor, Source]:
        self._cancel.check()
        if layer.kind == "base" or self._is_elsewhere(layer.diff_id):
            packed = self._pulled(layer.diff_id)
        elif self._compression == "none":
            if not as_blobs:
                return self._tar(layer, OCI_LAYER)
            packed = self._plain_blob(layer.diff_id)
        else:
            packed = self._compressed(layer.diff_id, self._compression)
        return packed, self._from_store(packed.digest)

    def _is_elsewhere(self, diff_id: DiffId) -> bool:
        """Whether only a registry has the layer: then it goes on as it comes from there."""
        return not self._cabinet.has_tree(diff_id) and self._cabinet.stored(diff_id) is None and bool(self._cabinet.origins(diff_id))

    def _pulled(self, diff_id: DiffId) -> Descriptor:
        """A base's layer as its registry has it; gzipped if it came as a plain tar in an archive."""
        known = self._cabinet.stored(diff_id)
        if known is None and self._cabinet.origins(diff_id):
            known = self._cabinet.fetch(diff_id)
        if known is None or known.digest == BlobDigest(diff_id):
            return self._compressed(diff_id, "gzip")
        return replace(known, media_type=AS_OCI.get(known.media_type, known.media_type) or OCI_LAYER)

    def _compressed(self, diff_id: DiffId, kind: Compression) -> Descriptor:
        """The layer's blob of this compression, made now if there is none; it is kept."""
        if (known := self._known(diff_id, kind)) is None:
            with self._store.lock(f"pack-{diff_id[7:]}", cancelled=self._cancel.is_set):
                known = self._known(diff_id, kind) or self._compress(diff_id, kind)
        return known

    def _known(self, diff_id: DiffId, kind: Compression) -> Descriptor | None:
        holding = self._store.holding(diff_id)
        for one in (blob for blob in holding.blobs if blob.digest in holding.proven):
            media_type = AS_OCI.get(one.media_type, one.media_type)
            if media_type == MEDIA_TYPE[kind] and self._store.has_blob(one.digest, size=one.size):
                return replace(one, media_type=media_type)
        return None

    def _compress(self, diff_id: DiffId, kind: Compression) -> Descriptor:
        with self._store.new_blob() as out:
            compressor = Compressor(kind, out)
            self._write_tar(diff_id, compressor.write)
            compressor.close()
        made = Descriptor(media_type=MEDIA_TYPE[kind], digest=out.digest, size=out.size)
        self._store.note_layer(diff_id, blobs=(made,), proven=True)
        return made

    def _plain_blob(self, diff_id: DiffId) -> Descriptor:
        digest = BlobDigest(diff_id)
        if not self._store.has_blob(digest):
            with self._store.new_blob(digest) as out:
                self._write_tar(diff_id, out.write)
        return Descriptor(media_type=OCI_LAYER, digest=digest, size=self._store.blob_size(digest))

    def _tar(self, layer: LayerRef, media_type: str) -> tuple[Descriptor, Source]:
        self._cancel.check()
        diff_id = layer.diff_id
        if (layer.kind == "base" and self._cabinet.stored(diff_id) is None and self._cabinet.origins(diff_id)) or self._is_elsewhere(diff_id):
            self._cabinet.fetch(diff_id)
        size = layer.size if layer.size >= 0 else self._cabinet.tar_size(diff_id)
        return Descriptor(media_type=media_type, digest=BlobDigest(diff_id), size=size), partial(self._write_tar, diff_id)

    def _write_tar(self, diff_id: DiffId, out: Out) -> None:
        self._cabinet.write_tar(diff_id, self._stoppable(out))

    def _from_store(self, digest: BlobDigest) -> Source:
        def give(out: Out) -> None:
            write = self._stoppable(out)
            with self._store.open_blob(digest) as stream:
                while piece := stream.read(_PIECE_BYTES):
                    write(piece)

        return give

    def _stoppable(self, out: Out) -> Callable[[bytes], object]:
        def take(piece: bytes) -> None:
            self._cancel.check()
            out(piece)

        return take


def without_werf_labels(config: ImageConfig) -> ImageConfig:
    """An exported image is nobody's stage: labels that start with `werf` go."""
    return replace(config, labels={name: value for name, value in config.labels.items() if not name.startswith("werf")})
