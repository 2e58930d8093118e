"""Images to streams: a tar of an OCI layout, and what `docker load` reads. Equal images give equal bytes; layers pass through, never held."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from layerwright.oci.digest import BlobDigest, digest_of, hex_of
from layerwright.oci.image_config import decode_image_config
from layerwright.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Index
from layerwright.oci.platform import Platform
from layerwright.storage.contract import DamagedBlob

Out = Callable[[bytes], object]
Source = Callable[[Out], object]  # hands the bytes of one thing to an Out, piece by piece
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_END = bytes(2 * tarfile.BLOCKSIZE)
NAME_KEY = "org.opencontainers.image.ref.name"


class SupportsWrite(Protocol):
    def write(self, piece: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OutImage:
    """An image to be written: its manifest and config as bytes, and for each of its layers, oldest first, where its bytes come from.

    A docker archive wants layers that are plain tars: descriptors whose digests are the diff ids of the config.
    """

    manifest: bytes
    config: bytes
    layers: Sequence[tuple[Descriptor, Source]]
    media_type: str = OCI_MANIFEST
    platform: Platform = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "platform", decode_image_config(self.config).platform)

    @property
    def described(self) -> Descriptor:
        return Descriptor(media_type=self.media_type, digest=digest_of(self.manifest), size=len(self.manifest), platform=self.platform)


class OutFile(NamedTuple):
    """A file of an archive or a layout; `digest` is checked while it is written."""

    size: int
    digest: BlobDigest
    source: Source


def oci_layout(images: Sequence[OutImage], *, name: str = "") -> dict[str, OutFile]:
    """The files of an OCI layout, by path; several images are the platforms of one. Source: OCI image-spec 1.1, image-layout.md."""
    files: dict[str, OutFile] = {}
    described = []
    for image in images:
        described.append(image.described)
        held = [held_file(image.manifest), held_file(image.config), *(OutFile(layer.size, layer.digest, source) for layer, source in image.layers)]
        files |= {blob_name(file.digest): file for file in held}
    top = described[0]
    if len(described) > 1:
        index = held_file(index_of(images))
        files[blob_name(index.digest)] = index
        top = Descriptor(media_type=OCI_INDEX, digest=index.digest, size=index.size)
    named = Descriptor(media_type=top.media_type, digest=top.digest, size=top.size, platform=top.platform, annotations=_annotations(name))
    return files | {"index.json": held_file(Index(manifests=(named,)).encode()), "oci-layout": held_file(_LAYOUT)}


def index_of(images: Sequence[OutImage]) -> bytes:
    """The index of an image for several platforms."""
    return Index(manifests=tuple(image.described for image in images)).encode()


def docker_archive(image: OutImage, tags: Sequence[str] = ()) -> dict[str, OutFile]:
    """The files of a docker archive, by path. Source: Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format"."""
    config_name = f"{hex_of(digest_of(image.config))}.json"
    diff_ids = decode_image_config(image.config).diff_ids
    assert [str(layer.digest) for layer, _ in image.layers] == [str(one) for one in diff_ids], "a docker archive holds plain tars"
    listed = [{"Config": config_name, "RepoTags": list(tags) or None, "Layers": [f"{hex_of(one)}.tar" for one in diff_ids]}]
    files = {f"{hex_of(layer.digest)}.tar": OutFile(layer.size, layer.digest, source) for layer, source in image.layers}
    return files | {config_name: held_file(image.config), "manifest.json": held_file(_json(listed))}


def write_tar(out: SupportsWrite, files: Mapping[str, OutFile]) -> None:
    """Write a tar with nothing in it that depends on who writes it, and when. Raises MissingBlob. Source: POSIX pax, ustar interchange format."""
    for name in sorted(files):
        file = files[name]
        out.write(_header(name, file.size))
        copy_checked(file, out.write)
        out.write(bytes(-file.size % tarfile.BLOCKSIZE))
    out.write(_END)


def tar_size(files: Mapping[str, OutFile]) -> int:
    """Bytes that `write_tar` writes."""
    return sum(len(_header(name, file.size)) + file.size + -file.size % tarfile.BLOCKSIZE for name, file in files.items()) + len(_END)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def copy_checked(file: OutFile, out: Out) -> None:
    """Write a file's bytes. Raises DamagedBlob if they are not what its digest says, MissingBlob if they are nowhere."""
    total = hashlib.sha256()
    size = 0

    def take(piece: bytes) -> None:
        nonlocal size
        total.update(piece)
        size += len(piece)
        if size <= file.size:
            out(piece)

    file.source(take)
    found = f"sha256:{total.hexdigest()}"
    if size != file.size or found != file.digest:
        mend = "build or pull again: it is made or fetched anew"
        raise DamagedBlob(f"expected {file.digest} ({file.size} bytes), got {found} ({size} bytes)", mend=mend)


def _annotations(name: str) -> Mapping[str, str]:
    """skopeo and podman read the second key; containerd and docker the first, which has to be a whole reference."""
    if not name:
        return {}
    whole = {"io.containerd.image.name": name} if "/" in name or ":" in name else {}
    return whole | {NAME_KEY: name}


def blob_name(digest: str) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def held_file(content: bytes) -> OutFile:
    """A small file whose bytes are here."""
    return OutFile(len(content), digest_of(content), lambda out: out(content))


def pieces_of(pieces: Iterable[bytes]) -> Source:
    """A source that gives these pieces, once."""

    def give(out: Out) -> None:
        for piece in pieces:
            out(piece)

    return give


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
