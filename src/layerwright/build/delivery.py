"""Getting what is published into a repository: layers that were made here in one pass, those of a base from wherever they are, their indexes and states.

A blob that the repository has is never sent again. One that another repository of the same registry has is mounted; one that another registry has is
copied through, without touching the disk, and indexed on its way if nobody has done that yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import BinaryIO, cast

from layerwright.build.cabinet import Cabinet
from layerwright.build.export import AS_OCI, MEDIA_TYPE, Compression
from layerwright.build.indexed_copy import IndexedCopy
from layerwright.build.options import Cancel
from layerwright.errors import Cancelled, LayerwrightError
from layerwright.layers.compress import Compressor
from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.oci.manifest import OCI_LAYER, Descriptor
from layerwright.oci.reference import parse_reference
from layerwright.registry.client import Registry
from layerwright.registry.errors import ChunksRefused
from layerwright.storage.contract import MissingBlob
from layerwright.storage.holdings import Origin
from layerwright.storage.local import LocalStore
from layerwright.storage.records import LayerRef
from layerwright.storage.remote import RemoteStore


class Delivery:
    """Supplies one run's repositories (`storage.remote.Supply`). `origins`: where else a layer is known to be; `compression` is of layers made here."""

    def __init__(
        self,
        store: LocalStore,
        cabinet: Cabinet,
        registry: Callable[[], Registry],
        cancel: Cancel,
        *,
        compression: Compression = "gzip",
    ) -> None:
        self._store = store
        self._cabinet = cabinet
        self._registry = registry
        self._cancel = cancel
        self._compression = compression
        self._guard = threading.Lock()
        self._locks: dict[tuple[str, DiffId], threading.Lock] = {}

    def layer(self, to: RemoteStore, layer: LayerRef) -> Descriptor:
        with self._lock(to, layer.diff_id):
            if (known := to.layer(layer.diff_id)) is not None:
                return known  # another image of this run has sent it meanwhile
            there = to.indexed_layer(layer.diff_id)
            if there is not None and self._registry().has_blob(to.place, there.digest):
                return there
            return self._sent(to, layer)

    def _sent(self, to: RemoteStore, layer: LayerRef) -> Descriptor:
        diff_id = layer.diff_id
        if layer.kind == "base" and self._cabinet.keeps and diff_id in self._cabinet.begun:
            self._cabinet.bring(diff_id)  # commands will need it unpacked: it comes once
        if (packed := self._packed(to, diff_id)) is not None:
            return packed
        is_here = self._cabinet.stored(diff_id) is not None or (layer.kind != "base" and self._cabinet.has_tree(diff_id))
        if not is_here and (sent := self._from_elsewhere(to, diff_id)) is not None:
            return sent
        return self._made(to, diff_id)

    def index(self, diff_id: DiffId) -> Mapping[str, bytes] | None:
        return self._cabinet.parts(diff_id)

    def made_index(self, diff_id: DiffId) -> bool:
        return diff_id in self._cabinet.made

    def state(self, files: BlobDigest) -> bytes | None:
        try:
            return self._store.read_blob(files)
        except MissingBlob:
            return None

    def cached(self, digest: BlobDigest) -> bytes | None:
        return self.state(digest)

    def cache(self, blob: bytes) -> None:
        self._store.add_blob(blob)

    # Layers.

    def _packed(self, to: RemoteStore, diff_id: DiffId) -> Descriptor | None:
        """A compressed blob of the store."""
        packed = self._cabinet.stored(diff_id)
        if packed is None or packed.digest == BlobDigest(diff_id) or to.is_lost(packed.digest):
            return None
        self._registry().put_blob(to.place, packed, lambda: self._store.opened_blob(packed.digest))
        return _as_oci(packed)

    def _from_elsewhere(self, to: RemoteStore, diff_id: DiffId) -> Descriptor | None:
        """From the registry of a base, or another repository; of several the nearest."""
        failed: LayerwrightError | None = None
        origins = [one for one in self._cabinet.origins(diff_id) if one.repository != to.name]
        for origin in sorted(origins, key=lambda one: not _is_near(one, to)):
            try:
                if self._registry().has_blob(to.place, origin.descriptor.digest) or self._mounted(to, origin) or self._copied(to, origin, diff_id):
                    return _as_oci(origin.descriptor)
            except Cancelled:
                raise
            except LayerwrightError as error:
                self._cabinet.lose(origin, error)
                failed = error
        if failed is not None:
            raise failed
        return None

    def _mounted(self, to: RemoteStore, origin: Origin) -> bool:
        if not _is_near(origin, to):
            return False
        return self._registry().mount_blob(to.place, origin.descriptor.digest, origin.repository.removeprefix(f"{to.place.registry}/"))

    def _copied(self, to: RemoteStore, origin: Origin, diff_id: DiffId) -> bool:
        copies: list[IndexedCopy] = []
        wants_index = self._cabinet.parts(diff_id) is None and to.indexed_layer(diff_id) is None

        def opened() -> BinaryIO:
            reference = parse_reference(f"{origin.repository}@{origin.descriptor.digest}")
            copy = IndexedCopy(self._registry().blob(reference, origin.descriptor), diff_id, limits=self._cabinet.limits if wants_index else None)
            copies.append(copy)
            return cast(BinaryIO, copy)

        self._registry().put_blob(to.place, origin.descriptor, opened)
        if copies and (made := copies[-1].index()) is not None:
            self._cabinet.keep_index(made[0])
            self._store.note_layer(diff_id, blobs=(origin.descriptor,), size=made[1], proven=True)
        return True

    def _made(self, to: RemoteStore, diff_id: DiffId) -> Descriptor:
        """Compressed and sent in one pass from its tar, its tree or git; through the store where the registry takes no chunks."""
        kind: Compression = self._compression

        def produce(write: Callable[[bytes], object]) -> None:
            out = Compressor(kind, _Out(write))
            self._cabinet.write_tar(diff_id, out.write)
            out.close()

        try:
            digest, size = self._registry().stream_blob(to.place, produce)
        except ChunksRefused:
            with self._store.new_blob() as blob:
                produce(blob.write)
            self._store.note_layer(diff_id, blobs=(Descriptor(media_type=MEDIA_TYPE[kind], digest=blob.digest, size=blob.size),), proven=True)
            made = self._packed(to, diff_id)
            assert made is not None, diff_id
            return made
        return Descriptor(media_type=MEDIA_TYPE[kind], digest=digest, size=size)

    def _lock(self, to: RemoteStore, diff_id: DiffId) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault((to.name, diff_id), threading.Lock())


class _Out:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, piece: bytes, /) -> object:
        return self._write(piece)


def _is_near(origin: Origin, to: RemoteStore) -> bool:
    return origin.repository.startswith(f"{to.place.registry}/")


def _as_oci(layer: Descriptor) -> Descriptor:
    return replace(layer, media_type=AS_OCI.get(layer.media_type, layer.media_type) or OCI_LAYER, annotations={}, urls=())
