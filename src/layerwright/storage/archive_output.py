"""Images to files: an OCI layout, as a directory or a tar of one, and what `docker load` reads. Equal images give equal bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

from layerwright.errors import UsageError
from layerwright.host.files import remove_tree, replacing, sync_directory
from layerwright.oci.digest import BlobDigest, digest_of, hex_of
from layerwright.oci.image_config import decode_image_config
from layerwright.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, decode_manifest
from layerwright.oci.platform import Platform
from layerwright.storage.contract import DamagedBlob

Opener = Callable[[], AbstractContextManager[BinaryIO]]
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OutImage:
    """An image to be written: its manifest and config as bytes, and how to read each of its layers, oldest first.

    A docker archive wants layers that are plain tars: descriptors whose digests are the diff ids of the config.
    """

    manifest: bytes
    config: bytes
    layers: Sequence[tuple[Descriptor, Opener]]
    media_type: str = OCI_MANIFEST

    @property
    def platform(self) -> Platform:
        return decode_image_config(self.config).platform


class _File(NamedTuple):
    """A file of an archive; `digest` is checked while it is written."""

    size: int
    digest: BlobDigest
    open: Opener


class _Output(Protocol):
    def put(self, name: str, file: _File) -> None: ...


def write_oci_archive(path: str, images: Sequence[OutImage], *, name: str = "") -> None:
    """Write a tar of an OCI layout; several images are the platforms of one. Visible whole or not at all. Raises DiskFull, MissingBlob."""
    with replacing(path) as out, _tar(out) as output:
        _put_all(output, _layout(images, name))


def write_docker_archive(path: str, image: OutImage, *, tags: Sequence[str] = ()) -> None:
    """Write what `docker load` reads. Visible whole or not at all. Raises DiskFull, MissingBlob."""
    config_name = f"{hex_of(digest_of(image.config))}.json"
    diff_ids = decode_image_config(image.config).diff_ids
    assert [str(layer.digest) for layer, _ in image.layers] == [str(one) for one in diff_ids], "a docker archive holds plain tars"
    listed = [{"Config": config_name, "RepoTags": list(tags) or None, "Layers": [f"{hex_of(one)}.tar" for one in diff_ids]}]
    files = {f"{hex_of(layer.digest)}.tar": _File(layer.size, layer.digest, opener) for layer, opener in image.layers}
    files |= {config_name: _held(image.config), "manifest.json": _held(_json(listed))}
    with replacing(path) as out, _tar(out) as output:
        _put_all(output, files)


def write_oci_directory(path: str, images: Sequence[OutImage], *, name: str = "") -> None:
    """Write an OCI layout as a directory.

    A new one is visible whole or not at all. Into a layout that is there blobs are added, and the image takes its place in index.json last,
    beside the others. Raises UsageError for a directory of something else, DiskFull, MissingBlob.
    """
    files = _layout(images, name)
    if _is_layout(path):
        files["index.json"] = _held(_merged(path, files["index.json"], name))
        _put_all(_DirectoryOutput(path), files, last="index.json")
        return
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise UsageError("this is something else than an OCI layout", where=path, mend="name a directory that is empty or not there yet")
    made = os.path.join(os.path.dirname(os.path.abspath(path)), f".tmp-{os.urandom(8).hex()}")
    try:
        _put_all(_DirectoryOutput(made), files)
        os.rename(made, path)
        sync_directory(os.path.dirname(os.path.abspath(path)))
    finally:
        remove_tree(made)


def _layout(images: Sequence[OutImage], name: str) -> dict[str, _File]:
    files: dict[str, _File] = {}
    described = []
    for image in images:
        described.append(Descriptor(media_type=image.media_type, digest=digest_of(image.manifest), size=len(image.manifest), platform=image.platform))
        held = [_held(image.manifest), _held(image.config), *(_File(layer.size, layer.digest, opener) for layer, opener in image.layers)]
        files |= {_blob_name(file.digest): file for file in held}
    top = described[0]
    if len(described) > 1:
        index = _held(Index(manifests=tuple(described)).encode())
        files[_blob_name(index.digest)] = index
        top = Descriptor(media_type=OCI_INDEX, digest=index.digest, size=index.size)
    named = Descriptor(media_type=top.media_type, digest=top.digest, size=top.size, platform=top.platform, annotations=_annotations(name))
    return files | {"index.json": _held(Index(manifests=(named,)).encode()), "oci-layout": _held(_LAYOUT)}


def _annotations(name: str) -> Mapping[str, str]:
    """skopeo and podman read the second key; containerd and docker the first, which has to be a whole reference."""
    if not name:
        return {}
    whole = {"io.containerd.image.name": name} if "/" in name or ":" in name else {}
    return whole | {"org.opencontainers.image.ref.name": name}


def _merged(path: str, index: _File, name: str) -> bytes:
    """The layout's index.json with the new image in place of what had its name."""
    with open(os.path.join(path, "index.json"), "rb") as file, index.open() as added:
        old, new = decode_manifest(file.read(), where=path), decode_manifest(added.read())
    assert isinstance(new, Index)
    if not isinstance(old, Index):
        raise UsageError("its index.json is not an image index", where=path, mend="name a directory that is empty or not there yet")
    digests = {one.digest for one in new.manifests}
    key = "org.opencontainers.image.ref.name"
    kept = tuple(one for one in old.manifests if not (name and one.annotations.get(key) == name) and (name or one.digest not in digests))
    return Index(manifests=kept + new.manifests, annotations=old.annotations).encode()


def _is_layout(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "oci-layout")) and os.path.isfile(os.path.join(path, "index.json"))


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _held(content: bytes) -> _File:
    return _File(len(content), digest_of(content), lambda: io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _put_all(output: _Output, files: Mapping[str, _File], *, last: str = "") -> None:
    for name in sorted(files, key=lambda one: (one == last, one)):
        output.put(name, files[name])


def _copy(file: _File, out: BinaryIO) -> None:
    """Write a file's bytes. Raises DamagedBlob if they are not what its digest says."""
    total = hashlib.sha256()
    size = 0
    with file.open() as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            total.update(chunk)
            size += len(chunk)
            out.write(chunk)
    found = f"sha256:{total.hexdigest()}"
    if size != file.size or found != file.digest:
        mend = "build or pull again: it is made or fetched anew"
        raise DamagedBlob(f"expected {file.digest} ({file.size} bytes), got {found} ({size} bytes)", mend=mend)


@contextmanager
def _tar(out: BinaryIO) -> Iterator[_Output]:
    """A tar with nothing in it that depends on who writes it, and when. Source: POSIX pax, ustar interchange format."""
    yield _TarOutput(out)
    out.write(bytes(2 * tarfile.BLOCKSIZE))


class _TarOutput:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def put(self, name: str, file: _File) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = file.size, 0o644
        self._out.write(member.tobuf(tarfile.PAX_FORMAT))
        _copy(file, self._out)
        self._out.write(bytes(-file.size % tarfile.BLOCKSIZE))


class _DirectoryOutput:
    """Files below a directory, each visible whole or not at all; a blob that is there with its size stays."""

    def __init__(self, path: str) -> None:
        self._path = path

    def put(self, name: str, file: _File) -> None:
        place = os.path.join(self._path, name)
        if name.startswith("blobs/") and os.path.isfile(place) and os.path.getsize(place) == file.size:
            return
        with replacing(place, durable=False, needed_bytes=file.size) as out:
            _copy(file, out)
