"""Records and file indexes as ordinary images, which every registry takes: each part is a tar with one file, a layer of the image. Pure.

No artifact type and no media type of our own: some registries refuse those. Source: OCI image-spec 1.1, manifest.md, layer.md.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerwright.oci.digest import BlobDigest, DiffId, digest_of
from layerwright.oci.image_config import ImageConfig
from layerwright.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, Descriptor, Manifest
from layerwright.oci.platform import Platform
from layerwright.storage.remote_names import PART

_MOST_BYTES = 1 << 30  # of one part, uncompressed: a damaged or hostile blob must not fill the memory
_GZIP = 31  # zlib's word for a gzip header, with time 0 and no name


class BadPart(ValueError):
    """Bytes that are no part of a record or of an index. A reader treats it as a miss."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file, as the blob that holds it."""

    descriptor: Descriptor
    blob: bytes
    diff_id: DiffId


@dataclass(frozen=True, slots=True)
class SmallImage:
    """An image held in memory: its manifest, and the blobs that are to be there first."""

    manifest: Manifest
    content: bytes
    blobs: tuple[tuple[Descriptor, bytes], ...]

    @property
    def digest(self) -> BlobDigest:
        return digest_of(self.content)


def part(name: str, content: bytes, *, compress: bool) -> Part:
    """The same content gives the same blob."""
    import tarfile  # late, as are codecs: most builds only ask whether an image is there

    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o444
    tar = member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE) + bytes(2 * tarfile.BLOCKSIZE)
    blob = tar
    if compress:
        packer = zlib.compressobj(wbits=_GZIP)
        blob = packer.compress(tar) + packer.flush()
    media_type = OCI_LAYER_GZIP if compress else OCI_LAYER
    return Part(Descriptor(media_type=media_type, digest=digest_of(blob), size=len(blob), annotations={PART: name}), blob, DiffId(digest_of(tar)))


def content_of(blob: bytes, name: str) -> bytes:
    """The file of a part's blob. Raises BadPart."""
    import tarfile

    if blob[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=_GZIP)
        try:
            blob = unpacker.decompress(blob, _MOST_BYTES)
        except zlib.error as error:
            raise BadPart(f"{name} does not decompress: {error}") from error
        if not unpacker.eof:
            raise BadPart(f"{name} is cut off, or too large")
    try:
        with tarfile.open(fileobj=io.BytesIO(blob), mode="r:") as tar:
            member = tar.next()
            file = tar.extractfile(member) if member is not None and member.name == name and member.isreg() else None
            if file is not None:
                return file.read()
    except (tarfile.TarError, OSError, ValueError) as error:
        raise BadPart(f"{name} is not a tar: {error}") from error
    raise BadPart(f"there is no {name} in it")


def small_image(parts: Sequence[Part], *, annotations: Mapping[str, str]) -> SmallImage:
    """An image of these parts, in their order."""
    config = ImageConfig(platform=Platform("linux", "amd64"), diff_ids=tuple(one.diff_id for one in parts)).encode()
    described = Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config))
    manifest = Manifest(config=described, layers=tuple(one.descriptor for one in parts), annotations=annotations)
    return SmallImage(manifest, manifest.encode(), ((described, config), *((one.descriptor, one.blob) for one in parts)))


def part_named(manifest: Manifest, name: str) -> Descriptor | None:
    return next((layer for layer in manifest.layers if layer.annotations.get(PART) == name), None)
