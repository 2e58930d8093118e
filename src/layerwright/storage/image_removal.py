"""Forgetting an image, and freeing the blobs that nothing else uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.oci.manifest import BadManifest, Manifest, decode_manifest
from layerwright.storage.contract import MissingBlob
from layerwright.storage.images import StoredImage
from layerwright.storage.local import LocalStore


class Freed(NamedTuple):
    """What a removal gave back."""

    blobs: int
    size_bytes: int


def remove_images(store: LocalStore, images: Sequence[StoredImage]) -> Freed:
    """Let the references name nothing, then remove the blobs that no other image, no stage or image of a build and no kept state uses.

    The references go first: a build that starts meanwhile finds no image, never half of one. A running build that was about to use such a
    blob meets a miss.
    """
    doomed = {digest for image in images for digest in _blobs_of(store, image)}
    for image in images:
        store.images.forget(image)
    doomed -= {digest for image in store.images.all() for digest in _blobs_of(store, image)}
    doomed -= set(_blobs_of_records(store))
    doomed -= {digest for diff_id in store.kept_states.layers() for digest in _blobs_of_layer(store, diff_id)}
    sizes = [store.remove_blob(digest) for digest in sorted(doomed)]
    return Freed(blobs=sum(1 for size in sizes if size), size_bytes=sum(sizes))


def _blobs_of(store: LocalStore, image: StoredImage) -> Iterator[BlobDigest]:
    yield image.manifest
    try:
        manifest = decode_manifest(store.read_blob(image.manifest))
    except (MissingBlob, BadManifest):
        return
    if isinstance(manifest, Manifest):
        yield manifest.config.digest
        yield from (layer.digest for layer in manifest.layers)


def _blobs_of_records(store: LocalStore) -> Iterator[BlobDigest]:
    for record, _ in store.records():
        for diff_id in record.diff_ids:
            yield from _blobs_of_layer(store, diff_id)
        yield from (state.files for state in record.states)
        if record.base is not None:
            yield record.base.manifest


def _blobs_of_layer(store: LocalStore, diff_id: DiffId) -> Iterator[BlobDigest]:
    yield BlobDigest(diff_id)
    yield from (one.digest for one in store.holding(diff_id).blobs)
