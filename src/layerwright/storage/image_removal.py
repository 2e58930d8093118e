"""Forgetting an image, and freeing the blobs that nothing else uses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.oci.manifest import BadManifest, Manifest, decode_manifest
from layerwright.storage.contract import MissingBlob
from layerwright.storage.images import StoredImage
from layerwright.storage.local import LocalStore
from layerwright.storage.roots import record_names, record_root
from layerwright.storage.uses import CLOCK_SLACK_NS, User


class Freed(NamedTuple):
    """What a removal gave back."""

    blobs: int
    size_bytes: int


def remove_images(store: LocalStore, images: Sequence[StoredImage]) -> Freed:
    """Let the references name nothing, then remove the blobs that no other image, no stage or image of a build and no kept state uses.

    The references go first: a build that starts meanwhile finds no image, never half of one. What running processes use, or may be putting there,
    stays for the next clean-up; without locks all of it does.
    """
    doomed = {digest for image in images for digest in _blobs_of(store, image)}
    for image in images:
        store.images.forget(image)
    read: set[str] = set()
    doomed -= {digest for image in store.images.all() for digest in _blobs_of(store, image)}
    doomed -= set(_blobs_of_records(store, read))
    doomed -= {digest for diff_id in store.kept_states.layers() for digest in _blobs_of_layer(store, diff_id)}
    with store.uses.alone() as is_alone:
        if not is_alone:
            return Freed(0, 0)
        doomed -= {digest for image in store.images.all() for digest in _blobs_of(store, image)}
        doomed -= set(_blobs_of_records(store, read))  # published meanwhile
        users = store.uses.others()
        doomed -= {digest for user in users for digest in _blobs_in_use(store, user, images)}
        sizes = [store.remove_blob(digest) for digest in sorted(doomed) if not _is_younger(store, digest, users)]
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


def _blobs_of_records(store: LocalStore, read: set[str]) -> Iterator[BlobDigest]:
    """Of all records but those `read` names, which then names them, too."""
    for name in set(record_names(store)) - read:
        read.add(name)
        yield from _blobs_of_record(store, name)


def _blobs_of_record(store: LocalStore, name: str) -> Iterator[BlobDigest]:
    if (root := record_root(store, name)) is not None:
        for diff_id in root.layers:
            yield from _blobs_of_layer(store, DiffId(diff_id))
        yield from (BlobDigest(digest) for digest in root.blobs)


def _blobs_of_layer(store: LocalStore, diff_id: DiffId) -> Iterator[BlobDigest]:
    yield BlobDigest(diff_id)
    yield from (one.digest for one in store.holding(diff_id).blobs)


def _blobs_in_use(store: LocalStore, user: User, removed: Sequence[StoredImage]) -> Iterator[BlobDigest]:
    """As `user` noted them: by layer, by record, by the reference of an image that was removed just now."""
    paths = {os.path.relpath(store.paths.image(image.reference, image.platform), store.paths.home): image for image in removed}
    for name in user.names:
        kind, _, what = name.partition(" ")
        if kind == "layer":
            yield from _blobs_of_layer(store, DiffId(what))
        elif kind == "record":
            yield from _blobs_of_record(store, os.path.relpath(store.paths.record(*what.split(" ")), store.paths.home))
        elif what in paths:
            yield from _blobs_of(store, paths[what])


def _is_younger(store: LocalStore, digest: BlobDigest, users: Sequence[User]) -> bool:
    """Whether a process that runs may have put it there, for something that it will name."""
    since_ns = min((user.began_ns for user in users if user.pid), default=None)
    with suppress(OSError):
        return since_ns is not None and os.stat(store.blob_path(digest)).st_ctime_ns >= since_ns - CLOCK_SLACK_NS
    return False
