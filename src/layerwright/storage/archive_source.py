"""Where an image archive is read from: a tar, plain or gzip, or a directory. Nothing is ever extracted to a path that an archive names."""

from __future__ import annotations

import gzip
import os
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, Protocol

from layerwright.errors import LayerwrightError
from layerwright.host.files import telling_full
from layerwright.oci.digest import BlobDigest
from layerwright.oci.manifest import LIMIT_BYTES
from layerwright.oci.platform import Platform
from layerwright.storage.contract import DamagedBlob
from layerwright.storage.local import LocalStore

_MOST_MEMBERS = 100_000
_MOST_LINKS = 10
CHUNK_BYTES = 1 << 20
SAVE_AGAIN = "write the archive again: it is incomplete or damaged"


class BadArchive(LayerwrightError):
    """A file or directory that is not an image archive we can read, or is damaged."""


class Kept(NamedTuple):
    """An image of an archive after its blobs went into the store; `named` is what the archive names: an index, or the manifest itself."""

    manifest: BlobDigest
    named: BlobDigest
    size: int  # bytes of the layers as given, and of the config


class Candidate(NamedTuple):
    """An image that an archive offers; `keep` puts its blobs into a store."""

    names: tuple[str, ...]
    platform: Platform
    keep: Callable[[LocalStore], Kept]


class ArchiveSource(Protocol):
    """Files by name, as an archive holds them."""

    path: str

    def has(self, name: str) -> bool: ...

    def size(self, name: str) -> int:
        """Bytes of a file. Raises BadArchive if it is not there."""

    def open(self, name: str) -> BinaryIO:
        """A file from its start; whoever opens closes. Raises BadArchive if it is not there."""


def read_small(source: ArchiveSource, name: str) -> bytes:
    """A whole file of at most LIMIT_BYTES: a manifest, an index, a config."""
    if source.size(name) > LIMIT_BYTES:
        raise BadArchive(f"{name} has {source.size(name)} bytes, over the limit of {LIMIT_BYTES}", where=source.path)
    with reading(source.path), source.open(name) as file:
        return file.read()


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what a damaged archive makes the readers raise into BadArchive."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadArchive(f"the archive ends early or is damaged: {error}", where=path, mend=SAVE_AGAIN) from error
    except DamagedBlob as error:
        raise BadArchive(f"the archive is damaged: {error.what}", where=path, mend=SAVE_AGAIN) from error


@contextmanager
def open_source(path: str, spool: str) -> Iterator[ArchiveSource]:
    """The archive at `path`; a compressed one is decompressed into the file `spool` first. Raises BadArchive, DiskFull."""
    if os.path.isdir(path):
        yield DirectorySource(path)
        return
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise BadArchive(f"cannot read the archive: {error.strerror}", where=path, mend="name a file or directory that exists and may be read") from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadArchive("not a regular file", where=path, mend="save the archive to a file first")
        if file.peek(2)[:2] != b"\x1f\x8b":
            yield TarSource(path, file)
            return
        with _decompressed(path, file, spool) as plain:
            yield TarSource(path, plain)


@contextmanager
def _decompressed(path: str, file: BinaryIO, spool: str) -> Iterator[BinaryIO]:
    with open(spool, "w+b") as plain:
        with reading(path), telling_full(spool), gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                plain.write(chunk)
            plain.flush()
        plain.seek(0)
        yield plain


class DirectorySource:
    """An OCI layout as a directory. What it holds is checked against its digest when read, so links inside it do no harm."""

    def __init__(self, path: str) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        return os.path.isfile(self._place(name))

    def size(self, name: str) -> int:
        if not self.has(name):
            raise lacks(self, name)
        return os.stat(self._place(name)).st_size

    def open(self, name: str) -> BinaryIO:
        if not self.has(name):
            raise lacks(self, name)
        return open(self._place(name), "rb")

    def _place(self, name: str) -> str:
        return os.path.join(self.path, inside(name, self.path))


class TarSource:
    """A tar of which every file can be opened by name; symbolic and hard links inside it are followed inside it."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        with reading(path):
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  (its file is closed by who gave it)
        self._members: dict[str, tarfile.TarInfo] = {}
        with reading(path):
            for member in self._tar:
                if len(self._members) >= _MOST_MEMBERS:
                    raise BadArchive(f"more than {_MOST_MEMBERS} files", where=path, mend="an image archive has far fewer: name another file")
                self._members[inside(member.name, path)] = member

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def size(self, name: str) -> int:
        return self._file(name).size

    def open(self, name: str) -> BinaryIO:
        file = self._tar.extractfile(self._file(name))
        assert file is not None  # _file gives regular files only
        return file  # type: ignore[return-value]  # IO[bytes], seekable

    def _file(self, name: str) -> tarfile.TarInfo:
        found = self._find(name)
        if found is None:
            raise lacks(self, name)
        return found

    def _find(self, name: str) -> tarfile.TarInfo | None:
        for _ in range(_MOST_LINKS):
            member = self._members.get(inside(name, self.path))
            if member is None or (member.isreg() and not member.issparse()):
                return member
            if member.issym():
                name = posixpath.join(posixpath.dirname(member.name), member.linkname)
            elif member.islnk():
                name = member.linkname
            else:
                raise BadArchive(f"{name} is not a regular file", where=self.path, mend=SAVE_AGAIN)
        raise BadArchive(f"{name} is a link that leads nowhere", where=self.path, mend=SAVE_AGAIN)


def lacks(source: ArchiveSource, name: str) -> BadArchive:
    return BadArchive(f"the archive lacks {name}", where=source.path, mend=SAVE_AGAIN)


def inside(name: str, path: str) -> str:
    """`name` without "." and ".." parts. Raises BadArchive if it leads out of the archive."""
    plain = posixpath.normpath(name)
    if name.startswith("/") or plain == ".." or plain.startswith("../") or "\0" in name:
        raise BadArchive(f"{name!r} leads out of the archive", where=path, mend="do not use this archive: no tool writes such names by accident")
    return plain
