"""Images as `docker save` writes them. Source: Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".

Such an archive has no manifest: one is made from the config and the layers as they are given.
"""

from __future__ import annotations

import hashlib
import posixpath
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from layerwright.limits import LAYERS
from layerwright.oci.digest import BlobDigest, DiffId, digest_of, is_digest
from layerwright.oci.image_config import decode_image_config
from layerwright.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor, Manifest, decode_json
from layerwright.storage.archive_source import CHUNK_BYTES, SAVE_AGAIN, ArchiveSource, BadArchive, Candidate, Kept, read_small, reading, usual_platform
from layerwright.storage.blobs import BlobWriter
from layerwright.storage.local import LocalStore
from layerwright.storage.uses import layer_use

_MAGIC = ((b"\x1f\x8b", OCI_LAYER_GZIP), (b"\x28\xb5\x2f\xfd", OCI_LAYER_ZSTD))


def docker_candidates(source: ArchiveSource) -> Iterator[Candidate]:
    """The images of a docker archive. Raises BadArchive, BadManifest."""
    listed = decode_json(read_small(source, "manifest.json"), what="manifest.json", where=source.path)
    if not isinstance(listed, list):
        raise BadArchive("manifest.json is not a list of images", where=source.path, mend=SAVE_AGAIN)
    for one in listed:
        config, names, layers = _image(one, source.path)
        yield _candidate(source, config, names, layers)


def _image(raw: Any, path: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    if isinstance(raw, dict):
        config, names, layers = raw.get("Config"), raw.get("RepoTags") or [], raw.get("Layers") or []
        if isinstance(config, str) and _are_texts(names) and _are_texts(layers):
            return config, tuple(names), tuple(layers)
    raise BadArchive("an image in manifest.json lacks Config, RepoTags or Layers", where=path, mend=SAVE_AGAIN)


def _are_texts(raw: Any) -> bool:
    return isinstance(raw, list) and all(isinstance(one, str) for one in raw)


def _candidate(source: ArchiveSource, config_name: str, names: tuple[str, ...], layers: tuple[str, ...]) -> Candidate:
    content = read_small(source, config_name)
    said = f"sha256:{posixpath.basename(config_name).removesuffix('.json')}"
    if is_digest(said) and said != digest_of(content):
        raise BadArchive(f"{config_name} has another digest", where=source.path, mend=SAVE_AGAIN)
    config = decode_image_config(content, where=f"{source.path}, {config_name}")
    if len(layers) > LAYERS:
        raise BadArchive(f"{len(layers):,} layers: {LAYERS:,} is the most that is read", where=source.path, mend="flatten the image into fewer layers")
    if len(config.diff_ids) != len(layers):
        raise BadArchive(f"{len(layers)} layers, but {len(config.diff_ids)} diff ids in {config_name}", where=source.path, mend=SAVE_AGAIN)

    def keep(store: LocalStore) -> Kept:
        kept = tuple(_keep_layer(store, source, diff_id, name) for diff_id, name in zip(config.diff_ids, layers, strict=True))
        described = Descriptor(media_type=OCI_CONFIG, digest=store.add_blob(content), size=len(content))
        manifest = store.add_blob(Manifest(config=described, layers=kept).encode())
        return Kept(manifest=manifest, named=manifest, size=described.size + sum(layer.size for layer in kept))

    return Candidate(names=names, platform=usual_platform(config.platform, f"{source.path}, {config_name}"), keep=keep)


def _keep_layer(store: LocalStore, source: ArchiveSource, diff_id: DiffId, name: str) -> Descriptor:
    store.uses.add(layer_use(diff_id))  # before it is looked for
    with reading(source.path), source.open(name) as stream:
        media_type = _media_type(stream)
        size = source.size(name)
        if media_type != OCI_LAYER or not store.has_blob(diff_id, size=size):
            digest = _copy(store, source, diff_id, name, stream, media_type)
        else:
            digest = BlobDigest(diff_id)
    layer = Descriptor(media_type=media_type, digest=digest, size=size)
    store.note_layer(diff_id, blobs=(layer,), proven=media_type != OCI_LAYER_ZSTD)
    return layer


def _media_type(stream: BinaryIO) -> str:
    start = stream.read(4)
    stream.seek(0)
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), OCI_LAYER)


def _copy(store: LocalStore, source: ArchiveSource, diff_id: DiffId, name: str, stream: BinaryIO, media_type: str) -> BlobDigest:
    """Store a layer file as it is; its uncompressed bytes have to be the diff id's (zstd: seen when it is first read)."""
    with store.new_blob(size=source.size(name)) as out:
        found = _copy_gzip(stream, out) if media_type == OCI_LAYER_GZIP else _copy_plain(stream, out)
        if found != diff_id and media_type != OCI_LAYER_ZSTD:
            raise BadArchive(f"layer {name} is {found}, but the config says {diff_id}", where=source.path, mend=SAVE_AGAIN)
    return out.digest


def _copy_plain(stream: BinaryIO, out: BlobWriter) -> str:
    out.copy(stream)
    return out.digest


def _copy_gzip(stream: BinaryIO, out: BlobWriter) -> str:
    """Copy the compressed bytes; the digest of what they hold. A member may follow another (RFC 1952, 2.2)."""
    total = hashlib.sha256()
    member = zlib.decompressobj(31)
    while chunk := stream.read(CHUNK_BYTES):
        out.write(chunk)
        while chunk:
            if member.eof:
                if not chunk.strip(b"\0"):  # padding after the last member
                    break
                member = zlib.decompressobj(31)
            total.update(member.decompress(chunk, CHUNK_BYTES))
            chunk = member.unconsumed_tail or member.unused_data
    while not member.eof and (rest := member.decompress(member.unconsumed_tail, CHUNK_BYTES)):
        total.update(rest)
    if not member.eof:
        raise EOFError("a compressed layer ends early")
    return f"sha256:{total.hexdigest()}"
