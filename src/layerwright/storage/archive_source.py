"""Where an image archive is read from: a tar, plain or gzip, or a directory. Nothing is ever extracted to a path that an archive names."""

from __future__ import annotations

import gzip
import io
import os
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, Protocol

from layerwright.errors import LayerwrightError, UsageError
from layerwright.host.files import telling_full
from layerwright.limits import ARCHIVE_DOCUMENTS_BYTES, ARCHIVE_FILES, ARCHIVE_HEADER_BYTES, ARCHIVE_LINKS, MANIFEST_BYTES, Limits
from layerwright.oci.digest import BlobDigest
from layerwright.oci.platform import Platform, parse_platform
from layerwright.storage.contract import DamagedBlob
from layerwright.storage.local import LocalStore

CHUNK_BYTES = 1 << 20
SAVE_AGAIN = "write the archive again: it is incomplete or damaged"
AN_IMAGE = "name an image saved by skopeo, podman, docker or `layerwright export`"


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
    documents: Documents

    def has(self, name: str) -> bool: ...

    def size(self, name: str) -> int:
        """Bytes of a file. Raises BadArchive if it is not there."""

    def open(self, name: str) -> BinaryIO:
        """A file from its start; whoever opens closes. Raises BadArchive if it is not there."""


class Documents:
    """Counts the manifests, indexes and configs read from one archive, which are held in memory until its images are stored."""

    def __init__(self) -> None:
        self.left = ARCHIVE_DOCUMENTS_BYTES

    def take(self, size: int, path: str) -> None:
        self.left -= size
        if self.left < 0:
            what = f"manifests and configs of more than {ARCHIVE_DOCUMENTS_BYTES:,} bytes"
            raise BadArchive(what, where=path, mend="save fewer images to one archive")


def read_small(source: ArchiveSource, name: str) -> bytes:
    """A whole file of at most MANIFEST_BYTES: a manifest, an index, a config."""
    size = source.size(name)
    if size > MANIFEST_BYTES:
        raise BadArchive(f"{name} has {size:,} bytes, over the limit of {MANIFEST_BYTES:,}", where=source.path, mend=SAVE_AGAIN)
    source.documents.take(size, source.path)
    with reading(source.path), source.open(name) as file:
        return file.read(MANIFEST_BYTES)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what a damaged archive makes the readers raise into BadArchive."""
    try:
        yield
    except BadArchive as error:
        error.where = error.where if error.where.startswith(path) else f"{path}, {error.where}".rstrip(", ")
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise BadArchive(f"the archive ends early or is damaged: {error}", where=path, mend=SAVE_AGAIN) from error
    except DamagedBlob as error:
        raise BadArchive(f"the archive is damaged: {error.what}", where=path, mend=SAVE_AGAIN) from error


@contextmanager
def open_source(path: str, spool: str, limits: Limits) -> Iterator[ArchiveSource]:
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
        with _decompressed(path, file, spool, limits.layer_bytes) as plain:
            yield TarSource(path, plain)


@contextmanager
def _decompressed(path: str, file: BinaryIO, spool: str, most: int) -> Iterator[BinaryIO]:
    with open(spool, "w+b") as plain:
        with reading(path), telling_full(spool), gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                plain.write(chunk)
                if plain.tell() > most:
                    raise BadArchive(f"the archive holds more than {most:,} bytes", where=path, mend="decompress it yourself if you trust it, and load that")
            plain.flush()
        plain.seek(0)
        yield plain


class DirectorySource:
    """An OCI layout as a directory. Symbolic links in it may lead to what is in it, and nowhere else."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.documents = Documents()
        self._root = os.path.realpath(path)

    def has(self, name: str) -> bool:
        return os.path.isfile(self._place(name))

    def size(self, name: str) -> int:
        with self.open(name) as file:
            return os.fstat(file.fileno()).st_size

    def open(self, name: str) -> BinaryIO:
        place = self._place(name)
        try:
            file = open(place, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK))  # noqa: SIM115  (the caller's to close)
        except OSError as error:
            raise lacks(self, name) from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise BadArchive(f"{name} is not a regular file", where=self.path, mend=SAVE_AGAIN)
        return file

    def _place(self, name: str) -> str:
        place = os.path.realpath(os.path.join(self._root, inside(name, self.path)))
        if not place.startswith(self._root.rstrip("/") + "/"):
            raise BadArchive(f"{name} is a link out of the directory", where=self.path, mend="do not use it, or copy what the link means into it")
        return place


class _InPieces(io.RawIOBase):
    """Hands a file through, but no piece larger than the header of an image archive may be: tarfile reads a header whole, however long it says it is.

    Contents are read in smaller pieces, so what is larger, or of a size below zero, is a header.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path, self._file = path, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= ARCHIVE_HEADER_BYTES:
            what = f"an extended header of {size or -1:,} bytes in the archive"
            raise BadArchive(what, where=f"{self._path}, byte {self._file.tell()}", mend=SAVE_AGAIN)
        return self._file.read(size)


def _opened(path: str, file: BinaryIO) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=_InPieces(path, file), mode="r:")  # its file is closed by who gave it
    except tarfile.ReadError as error:
        raise BadArchive(f"this is no tar archive, or its start is damaged: {error}", where=path, mend=AN_IMAGE) from error


class TarSource:
    """A tar of which every file can be opened by name; symbolic and hard links inside it are followed inside it."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.documents = Documents()
        self._members: dict[str, tarfile.TarInfo] = {}
        with reading(path):
            self._tar = _opened(path, file)
            end = os.fstat(file.fileno()).st_size
            for count, member in enumerate(self._tar, 1):
                if count > ARCHIVE_FILES:
                    raise BadArchive(f"more than {ARCHIVE_FILES:,} files", where=path, mend="an image archive has far fewer: name another file")
                if not 0 <= member.size <= end:
                    raise BadArchive(f"{member.name[:200]!r} of {member.size:,} bytes in an archive of {end:,}", where=path, mend=SAVE_AGAIN)
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
        for _ in range(ARCHIVE_LINKS):
            member = self._members.get(inside(name, self.path))
            if member is None or (member.isreg() and not member.issparse()):
                return member
            if member.issym():
                name = posixpath.join(posixpath.dirname(member.name), member.linkname)
            elif member.islnk():
                name = member.linkname
            else:
                raise BadArchive(f"{name[:200]!r} is not a regular file", where=self.path, mend=SAVE_AGAIN)
        raise BadArchive(f"{name[:200]!r} is a link that leads nowhere", where=self.path, mend=SAVE_AGAIN)


def usual_platform(platform: Platform, where: str) -> Platform:
    """What a config names, in the usual words. Raises BadArchive."""
    try:
        return parse_platform(str(platform))
    except UsageError as error:
        raise BadArchive(error.what, where=where, mend=SAVE_AGAIN) from error


def lacks(source: ArchiveSource, name: str) -> BadArchive:
    return BadArchive(f"the archive lacks {name}", where=source.path, mend=SAVE_AGAIN)


def inside(name: str, path: str) -> str:
    """`name` without "." and ".." parts. Raises BadArchive if it leads out of the archive."""
    plain = posixpath.normpath(name)
    name = name if len(name) <= 200 else f"{name[:197]}..."
    if name.startswith("/") or plain == ".." or plain.startswith("../") or "\0" in name:
        raise BadArchive(f"{name!r} leads out of the archive", where=path, mend="do not use this archive: no tool writes such names by accident")
    return plain
