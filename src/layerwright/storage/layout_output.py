"""Images to an OCI layout in a directory, alone or beside others. Source: OCI image-spec 1.1, image-layout.md."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from layerwright.errors import UsageError
from layerwright.host import locks
from layerwright.host.exported_files import NoDirectory, exported_file
from layerwright.host.files import remove_tree, sync_directory, telling_full
from layerwright.oci.manifest import Index, decode_manifest
from layerwright.storage.archive_output import NAME_KEY, Out, OutFile, copy_checked, held_file

_UNFINISHED = ".layerwright-"  # a layout in the making, beside the place it will take; locked by who makes it
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
_PIECE_BYTES = 1 << 20
_OTHER = "name a directory that is empty or not there yet"
Counted = Callable[[Out], Out]


def refuse_unfit(path: str) -> None:
    """Raises UsageError or NoDirectory where no layout can be written as `path`: asked before work is done for it."""
    place = os.path.abspath(path)
    if is_layout(place):
        return
    if os.path.lexists(place) and not (os.path.isdir(place) and not os.listdir(place)):
        raise UsageError("this is something else than an OCI layout", where=path, mend=_OTHER)
    if not os.path.isdir(os.path.dirname(place)):
        raise NoDirectory(f"there is no directory {os.path.dirname(place)}", where=path, mend=f"mkdir -p {os.path.dirname(place)}")


def write_oci_directory(
    path: str, files: Mapping[str, OutFile], *, name: str = "", counted: Counted = lambda out: out, cancelled: Callable[[], bool] | None = None
) -> None:
    """Write the files of `archive_output.oci_layout` as a directory; `counted` wraps what takes the bytes of a file.

    A new one is visible whole or not at all. Into a layout that is there blobs are added, and the image takes its place in index.json last,
    beside the others and instead of what had its name; two that do so at once wait for one another.
    Raises UsageError for a directory of something else, NoDirectory, NotWritable, DiskFull, MissingBlob, Cancelled.
    """
    refuse_unfit(path)
    place = os.path.abspath(path)
    with telling_full(path):
        while True:
            if is_layout(place):
                _add(place, files, name, counted, cancelled)
                return
            if _make(place, files, counted):
                return


def is_layout(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "oci-layout")) and os.path.isfile(os.path.join(path, "index.json"))


def _make(path: str, files: Mapping[str, OutFile], counted: Counted) -> bool:
    """False if another made a layout there meanwhile."""
    parent = os.path.dirname(path)
    _sweep(parent)
    with _unfinished(parent) as made:
        for file_name in sorted(files):
            _put(made, file_name, files[file_name], counted)
        try:
            os.rename(made, path)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
    sync_directory(parent)
    return True


def _add(path: str, files: Mapping[str, OutFile], name: str, counted: Counted, cancelled: Callable[[], bool] | None) -> None:
    for file_name in sorted(files):
        if file_name.startswith("blobs/"):
            _put(path, file_name, files[file_name], counted)
    with locks.hold_directory(path, cancelled=cancelled):
        _put(path, "index.json", held_file(_merged(path, files["index.json"], name)), counted)


def _put(path: str, file_name: str, file: OutFile, counted: Counted) -> None:
    """One file, visible whole or not at all; a blob that is there, and is what its name says, stays."""
    place = os.path.join(path, file_name)
    if file_name.startswith("blobs/") and os.path.isfile(place) and os.path.getsize(place) == file.size and _is_whole(place, file, counted):
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with exported_file(place, durable=False, needed_bytes=file.size) as out:
        copy_checked(file, counted(out.write))


def _is_whole(place: str, file: OutFile, counted: Counted) -> bool:
    """Whether the bytes are those of the name: after a power cut, or a disk that went wrong, a file of the right size may hold others."""
    total = hashlib.sha256()
    take = counted(total.update)
    with open(place, "rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            take(piece)
    return f"sha256:{total.hexdigest()}" == file.digest


def _merged(path: str, index: OutFile, name: str) -> bytes:
    """The layout's index.json with the new image in place of what had its name."""
    pieces: list[bytes] = []
    index.source(pieces.append)
    with open(os.path.join(path, "index.json"), "rb") as file:
        old, new = decode_manifest(file.read(), where=path), decode_manifest(b"".join(pieces))
    assert isinstance(new, Index)
    if not isinstance(old, Index):
        raise UsageError("its index.json is not an image index", where=path, mend=_OTHER)
    digests = {one.digest for one in new.manifests}
    kept = tuple(one for one in old.manifests if not (name and one.annotations.get(NAME_KEY) == name) and (name or one.digest not in digests))
    return Index(manifests=kept + new.manifests, annotations=old.annotations).encode()


@contextmanager
def _unfinished(parent: str) -> Iterator[str]:
    """A new directory in `parent`, gone after the block unless it was renamed."""
    made, fd = _locked_new(parent)
    try:
        yield made
    finally:
        remove_tree(made)
        locks.release(fd)


def _locked_new(parent: str) -> tuple[str, int]:
    while True:
        made = os.path.join(parent, f"{_UNFINISHED}{os.urandom(8).hex()}")
        os.mkdir(made)
        with suppress(FileNotFoundError):  # a sweep may take it before it is locked
            fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if locks.try_lock(fd) is not False and locks.is_at(fd, made):
                return made, fd
            os.close(fd)


def _sweep(parent: str) -> None:
    """Remove what exports left that were killed: a layout in the making whose lock is free."""
    for name in os.listdir(parent):
        if name.startswith(_UNFINISHED):
            with suppress(OSError):
                fd = os.open(os.path.join(parent, name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    if locks.try_lock(fd) is True:
                        remove_tree(os.path.join(parent, name))
                finally:
                    os.close(fd)
