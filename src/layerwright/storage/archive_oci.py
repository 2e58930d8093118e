"""Images in an OCI layout. Source: OCI image-spec 1.1, image-layout.md; the annotation of containerd (and of `docker save` since 25)."""

from __future__ import annotations

from collections.abc import Iterator

from layerwright.limits import INDEX_DEPTH
from layerwright.oci.digest import BlobDigest, DiffId, digest_of, hex_of
from layerwright.oci.image_config import decode_image_config
from layerwright.oci.manifest import BadManifest, Descriptor, Index, Manifest, check_image, decode_manifest
from layerwright.storage.archive_source import SAVE_AGAIN, ArchiveSource, BadArchive, Candidate, Kept, read_small, reading, usual_platform
from layerwright.storage.local import LocalStore
from layerwright.storage.uses import blob_use, layer_use

_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def oci_candidates(source: ArchiveSource) -> Iterator[Candidate]:
    """The images of a layout, one for each platform that is there whole. Raises BadArchive, BadManifest."""
    listed = decode_manifest(read_small(source, "index.json"), where=source.path)
    if not isinstance(listed, Index):
        raise BadManifest("index.json is not an image index", where=source.path, mend=SAVE_AGAIN)
    for top in listed.manifests:
        names = tuple(top.annotations[key] for key in _NAME_KEYS if key in top.annotations)[:1]
        yield from _below(source, top, names, top.digest, depth=0, seen=set())


def _below(source: ArchiveSource, descriptor: Descriptor, names: tuple[str, ...], named: BlobDigest, *, depth: int, seen: set[str]) -> Iterator[Candidate]:
    """The images a descriptor leads to, each once. Of an index those count that are there: saving one platform leaves the others out."""
    if descriptor.digest in seen or _is_no_image(descriptor) or (depth and not source.has(_blob_name(descriptor.digest))):
        return
    seen.add(descriptor.digest)
    content = _checked(source, descriptor)
    manifest = decode_manifest(content, media_type=descriptor.media_type, where=f"{source.path}, {descriptor.digest}")
    if isinstance(manifest, Manifest):
        yield _candidate(source, descriptor, content, manifest, names, named)
        return
    if depth > INDEX_DEPTH:
        raise BadManifest("too many indexes within each other", where=source.path, mend=SAVE_AGAIN)
    for one in manifest.manifests:
        yield from _below(source, one, names, named, depth=depth + 1, seen=seen)


def _is_no_image(descriptor: Descriptor) -> bool:
    """Whether this is an attestation or the like beside the images."""
    return "vnd.docker.reference.type" in descriptor.annotations or (descriptor.platform is not None and descriptor.platform.os == "unknown")


def _candidate(source: ArchiveSource, descriptor: Descriptor, content: bytes, manifest: Manifest, names: tuple[str, ...], named: BlobDigest) -> Candidate:
    where = f"{source.path}, {descriptor.digest}"
    check_image(manifest, where=where)
    config_bytes = _checked(source, manifest.config)
    config = decode_image_config(config_bytes, where=where)
    if len(config.diff_ids) != len(manifest.layers):
        raise BadManifest(f"{len(manifest.layers)} layers, but {len(config.diff_ids)} diff ids in the config", where=where, mend=SAVE_AGAIN)

    def keep(store: LocalStore) -> Kept:
        for diff_id, layer in zip(config.diff_ids, manifest.layers, strict=True):
            _keep_layer(store, source, diff_id, layer)
        store.add_blob(config_bytes)
        size = manifest.config.size + sum(layer.size for layer in manifest.layers)
        return Kept(manifest=store.add_blob(content), named=named, size=size)

    return Candidate(names=names, platform=usual_platform(config.platform, where), keep=keep)


def _keep_layer(store: LocalStore, source: ArchiveSource, diff_id: DiffId, layer: Descriptor) -> None:
    """Whether the blob is the layer of this diff id is seen when it is first read; that it is the blob of the manifest is checked here."""
    store.uses.add(layer_use(diff_id), blob_use(layer.digest))  # before it is looked for
    if not store.has_blob(layer.digest, size=layer.size):
        _check_size(source, layer)
        with reading(source.path), source.open(_blob_name(layer.digest)) as stream, store.new_blob(layer.digest, size=layer.size) as out:
            out.copy(stream)
    store.note_layer(diff_id, blobs=(layer,))


def _checked(source: ArchiveSource, descriptor: Descriptor) -> bytes:
    """A small blob, checked against its descriptor."""
    _check_size(source, descriptor)
    content = read_small(source, _blob_name(descriptor.digest))
    if digest_of(content) != descriptor.digest:
        raise BadArchive(f"{_blob_name(descriptor.digest)} has another digest", where=source.path, mend=SAVE_AGAIN)
    return content


def _check_size(source: ArchiveSource, descriptor: Descriptor) -> None:
    size = source.size(_blob_name(descriptor.digest))
    if size != descriptor.size:
        raise BadArchive(f"{_blob_name(descriptor.digest)} has {size} bytes instead of {descriptor.size}", where=source.path, mend=SAVE_AGAIN)


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{hex_of(digest)}"
