"""Whether the files of a store are what they should be; of each by itself, without changing anything. Trees need the worker: see build.check_store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from layerwright.oci.digest import DiffId, is_digest
from layerwright.oci.image_config import decode_image_config
from layerwright.oci.manifest import BadManifest, Manifest, decode_manifest
from layerwright.storage.contract import MissingBlob
from layerwright.storage.images import StoredImage
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import INDEX_PARTS
from layerwright.storage.records import BadRecord, decode_record
from layerwright.storage.roots import record_names, reference_names
from layerwright.storage.seals import read_sealed

_PIECE = 1 << 20
_SEAL = "is not what its checksum says"
_SKELETON = f".{INDEX_PARTS[0]}"


class Damage(NamedTuple):
    """What is wrong with something. `name`: its path below home, as in an inventory."""

    kind: str
    name: str
    wrong: str


def wrong_blob(path: str, digest: str, advance: Callable[[int], object] = lambda size: None) -> str:
    """What is wrong with a blob; "" if nothing is, or it is gone. `advance` hears of the bytes read."""
    hashed = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                hashed.update(piece)
                advance(len(piece))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if hashed.hexdigest() == digest[7:] else "its bytes have another digest"


def wrong_records(store: LocalStore) -> Iterator[Damage]:
    for name in record_names(store):
        if (wrong := _wrong_record(os.path.join(store.paths.home, name), name)) != "":
            yield Damage("record", name, wrong)


def _wrong_record(path: str, name: str) -> str:
    content = read_sealed(path)
    if content is None:
        return _SEAL if os.path.exists(path) else ""
    try:
        record = decode_record(content)
    except BadRecord as error:
        return str(error)
    return "" if (record.kind, record.digest) == (name.split("/")[1], name[-61:-5]) else "is that of another stage or image"


def wrong_references(store: LocalStore, is_bad: Callable[[str], bool]) -> Iterator[Damage]:
    """Images under a reference that cannot be used. `is_bad`: whether a blob is known to be damaged."""
    for name in reference_names(store):
        path = os.path.join(store.paths.home, name)
        image = store.images.read(path)
        if image is None:
            if os.path.exists(path):
                yield Damage("reference", name, _SEAL)
        elif wrong := _wrong_image(store, image, is_bad):
            yield Damage("reference", name, f"{image.reference}: {wrong}")


def _wrong_image(store: LocalStore, image: StoredImage, is_bad: Callable[[str], bool]) -> str:
    def read(digest: str) -> bytes:
        if is_bad(digest):
            raise MissingBlob(digest)
        with open(store.paths.blob(digest), "rb") as file:
            return file.read()

    try:
        manifest = decode_manifest(read(image.manifest))
        if not isinstance(manifest, Manifest):
            return "its manifest is an index"
        config = decode_image_config(read(manifest.config.digest))
    except (MissingBlob, BadManifest, OSError):
        return "its manifest or its configuration is gone or damaged"
    for diff_id, layer in zip(config.diff_ids, manifest.layers, strict=False):
        if (is_bad(layer.digest) or not store.has_blob(layer.digest, size=layer.size)) and not store.holding(diff_id).origins:
            return f"its layer {layer.digest} is gone or damaged"
    return ""


def wrong_indexes(store: LocalStore, decodes: Callable[[DiffId], str]) -> Iterator[Damage]:
    """`decodes`: what is wrong with the parts of an index taken together, "" if nothing is.

    Without its skeleton, which is written last and removed first, there is no index: a kill came between its parts.
    """
    for name in sorted(file.removesuffix(_SKELETON) for file in _files(store, "indexes") if file.endswith(_SKELETON)):
        diff_id = f"sha256:{name}"
        if not is_digest(diff_id):
            continue
        bad = [part for part in INDEX_PARTS if store.index_part(DiffId(diff_id), part) is None]
        wrong = f"{', '.join(bad)}: missing or {_SEAL}" if bad else decodes(DiffId(diff_id))
        if wrong:
            yield Damage("index", f"indexes/{name}", wrong)


def wrong_sealed(store: LocalStore) -> Iterator[Damage]:
    """Memos and what is known of layers: small files with a checksum."""
    for folder, kind in (("layers", "holding"), ("memo", "memo")):
        for name in _files(store, folder):
            path = os.path.join(store.paths.home, folder, name)
            if name.endswith(".json") and read_sealed(path) is None and os.path.exists(path):
                yield Damage(kind, f"{folder}/{name}", _SEAL)


def wrong_kept_states(store: LocalStore) -> Iterator[Damage]:
    for name in _files(store, "introspect"):
        if store.kept_states.find(name) is None:
            yield Damage("kept state", f"introspect/{name}", "its state.json is gone or damaged")


def wrong_key(store: LocalStore) -> Iterator[Damage]:
    with suppress(OSError):
        if os.stat(store.paths.key).st_size != 32:
            yield Damage("key", "key", "is not 32 bytes long")


def _files(store: LocalStore, folder: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(store.paths.home, folder)))
    except FileNotFoundError:
        return []
