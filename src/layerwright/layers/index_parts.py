"""The three blobs of a file index: skeleton, files, digests. Values in, bytes out, and back; equal values give equal bytes.

A blob is a magic, a version, the part's letter, a hash of the layer's diff id, and one deflate stream of columns (`columns.py`). Tar order
goes over both kinds of entries: `files` holds how many entries of the skeleton stand before each of its own.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeVar, cast

from layerwright.errors import LayerwrightError
from layerwright.layers.columns import BadColumn, ColumnReader, ColumnWriter, distinct
from layerwright.layers.entry import BLOCK, CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.shown import shown
from layerwright.layers.tar_reader import BadLayer
from layerwright.limits import PARENTS_BYTES

SKELETON, FILES, DIGESTS = "skeleton", "files", "digests"
_KINDS = (FILE, HARDLINK, DIRECTORY, SYMLINK, CHAR, BLOCK, FIFO, WHITEOUT, OPAQUE)
_KIND_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_VERSION = 1
_HEAD = struct.Struct("<4sBc16s")
_MAGIC = b"LWfi"
_LEVEL = 6
_UNPACKED_MAX = 1 << 29  # bytes of one part; two million entries need half of it
_TAR_BLOCK = 512
_T = TypeVar("_T")
_entry = cast(Callable[[tuple[Any, ...]], Entry], partial(tuple.__new__, Entry))  # half the cost of Entry._make


class BadIndex(LayerwrightError):
    """A part of a file index is missing, damaged, of another layer or of another version: a miss, the index is to be made again."""

    def __init__(self, diff_id: str, part: str, why: str) -> None:
        super().__init__(f"the {part} part of the file index of layer {diff_id} {why}", mend="the index is made anew when the layer is read again")
        self.diff_id = diff_id
        self.part = part


class Skeleton(NamedTuple):
    """All but files and hard links, in tar order, and where those are.

    `implied`: directories of the layer's paths without a directory entry of their own, sorted. `populated`: directories that hold a file or
    hard link directly. `overridden`: rows of `entries` that a later file of the same path replaces.
    """

    entries: tuple[Entry, ...]
    implied: tuple[bytes, ...]
    populated: frozenset[bytes]
    overridden: frozenset[int]
    file_count: int
    texts: Mapping[bytes, bytes]


class Files(NamedTuple):
    """Files and hard links in tar order; `before[i]`: how many entries of the skeleton come before the i-th."""

    entries: tuple[Entry, ...]
    before: Sequence[int]


def split_entries(entries: Iterable[Entry], texts: Mapping[bytes, bytes]) -> tuple[Skeleton, Files]:
    skeleton: list[Entry] = []
    files: list[Entry] = []
    before: list[int] = []
    rows: dict[bytes, int] = {}
    overridden: set[int] = set()
    for entry in entries:
        if entry.kind in (FILE, HARDLINK):
            files.append(entry)
            before.append(len(skeleton))
            if (row := rows.get(entry.path)) is not None:
                overridden.add(row)
        else:
            if entry.kind not in (WHITEOUT, OPAQUE):
                rows[entry.path] = len(skeleton)
            skeleton.append(entry)
    final = (entry for row, entry in enumerate(skeleton) if rows.get(entry.path) == row and row not in overridden)
    directories = {entry.path for entry in final if entry.kind == DIRECTORY}
    _refuse_remade(skeleton, files, before, directories)
    populated = frozenset(entry.path.rpartition(b"/")[0] for entry in files)
    implied = _implied(skeleton, populated, directories)
    return Skeleton(tuple(skeleton), implied, populated, frozenset(overridden), len(files), dict(texts)), Files(tuple(files), before)


def _refuse_remade(skeleton: Sequence[Entry], files: Sequence[Entry], before: Sequence[int], directories: set[bytes]) -> None:
    """Refuse what comes before its directory is replaced and made anew, or before the symlink that it leads through is replaced: on the disk it is
    gone, or elsewhere than the last entries say.

    No tool writes that, and tools disagree on what is left. A position is twice the rows of the skeleton before it, a row itself one more.
    """
    placed = [(2 * row + 1, entry) for row, entry in enumerate(skeleton) if entry.kind not in (WHITEOUT, OPAQUE)]
    replaced: dict[bytes, int] = {}
    targets: dict[bytes, bytes] = {}
    for at, entry in placed:
        path = entry.path
        if (path in directories and entry.kind != DIRECTORY) or (path in targets and not (entry.kind == SYMLINK and entry.link == targets[path])):
            replaced[path] = at
        if entry.kind == SYMLINK:
            targets[path] = entry.link
    for entry, rows in zip(files, before, strict=True):
        if entry.path in directories or entry.path in targets:
            replaced[entry.path] = max(2 * rows, replaced.get(entry.path, -1))
    if not replaced:
        return
    placed += [(2 * rows, entry) for entry, rows in zip(files, before, strict=True)]
    until: dict[bytes, int] = {}  # for each directory that something lies in, the last position at which it was replaced, with one above it
    for at, entry in placed:
        if at <= replaced_until(entry.path.rpartition(b"/")[0], replaced, until):
            what = "the layer replaces a directory or symlink after it has put something below it"
            raise BadLayer(what, where=shown(entry.path), mend="the image is hostile: no tool writes such a layer")


def replaced_until(directory: bytes, replaced: Mapping[bytes, int], until: dict[bytes, int]) -> int:
    """The last position at which `directory`, or one above it, was replaced; -1 if none was. `until` is kept from call to call."""
    above: list[bytes] = []
    while directory and directory not in until:
        above.append(directory)
        directory = directory.rpartition(b"/")[0]
    last = until.get(directory, -1)
    for directory in reversed(above):
        last = until[directory] = max(last, replaced.get(directory, -1))
    return last


def _implied(skeleton: Iterable[Entry], populated: Iterable[bytes], directories: set[bytes]) -> tuple[bytes, ...]:
    """Every directory that some path goes through, without those that have an entry, and without the root."""
    found: set[bytes] = set()
    waiting = set(populated)
    waiting.update(entry.path if entry.kind == OPAQUE else entry.path.rpartition(b"/")[0] for entry in skeleton)
    size = 0
    for directory in waiting:
        while directory and directory not in found:
            found.add(directory)
            size += len(directory)
            if size > PARENTS_BYTES:
                what = f"the paths of the layer's directories are larger than {PARENTS_BYTES:,} bytes: they lie too deep"
                raise BadLayer(what, where=shown(directory), mend="the image is hostile: no tool nests directories like that")
            directory = directory.rpartition(b"/")[0]
    return tuple(sorted(found - directories))


def merge_entries(skeleton: Skeleton, files: Files) -> tuple[Entry, ...]:
    """Both in the order of the tar."""
    merged: list[Entry] = []
    at = 0
    for entry, count in zip(files.entries, files.before, strict=True):
        if count > at:
            merged += skeleton.entries[at:count]
            at = count
        merged.append(entry)
    merged += skeleton.entries[at:]
    return tuple(merged)


def encode_skeleton(diff_id: str, skeleton: Skeleton) -> bytes:
    out = ColumnWriter()
    _write_rows(out, skeleton.entries)
    out.paths(skeleton.implied)
    out.ints([directory in skeleton.populated for directory in _directories(skeleton.entries, skeleton.implied)])
    out.ints(sorted(skeleton.overridden))
    out.ints([skeleton.file_count])
    texts = sorted(skeleton.texts.items())
    out.strings([path for path, _ in texts])
    out.strings([text for _, text in texts])
    return _sealed(diff_id, SKELETON, out)


def decode_skeleton(diff_id: str, content: bytes) -> Skeleton:
    """Raises BadIndex."""

    def read(reader: ColumnReader) -> Skeleton:
        entries = _read_rows(reader)
        implied = tuple(reader.paths())
        flags = zip(_directories(entries, implied), reader.ints(), strict=True)
        populated = frozenset(directory for directory, flag in flags if flag)
        overridden = frozenset(reader.ints())
        (file_count,) = reader.ints()
        texts = dict(zip(reader.strings(), reader.strings(), strict=True))
        return Skeleton(entries, implied, populated, overridden, file_count, texts)

    return _opened(diff_id, SKELETON, content, read)


def _directories(entries: Iterable[Entry], implied: Iterable[bytes]) -> list[bytes]:
    return sorted({b"", *(entry.path for entry in entries if entry.kind == DIRECTORY), *implied})


def encode_files(diff_id: str, files: Files) -> bytes:
    out = ColumnWriter()
    out.ints([count - earlier for earlier, count in pairwise((0, *files.before))])
    _write_rows(out, files.entries)
    return _sealed(diff_id, FILES, out)


def decode_files(diff_id: str, content: bytes, skeleton: Skeleton) -> Files:
    """All but the digests. Raises BadIndex, also when these are not the files of `skeleton`."""

    def read(reader: ColumnReader) -> Files:
        before = list(accumulate(reader.ints()))
        files = Files(_read_rows(reader), before)
        if not len(before) == len(files.entries) == skeleton.file_count or (before and before[-1] > len(skeleton.entries)):
            raise BadColumn("other files than the skeleton's")
        return files

    return _opened(diff_id, FILES, content, read)


def encode_digests(diff_id: str, files: Files) -> bytes:
    """32 bytes for each distinct content."""
    values, rows = distinct(entry.digest for entry in files.entries)
    out = ColumnWriter()
    out.ints(rows)
    out.strings([_digest_bytes(value) for value in values])
    return _sealed(diff_id, DIGESTS, out)


def decode_digests(diff_id: str, content: bytes, files: Files) -> Files:
    """`files` with their digests. Raises BadIndex."""

    def read(reader: ColumnReader) -> Files:
        rows = reader.ints()
        values = reader.strings()
        if not {*map(len, values)} <= {0, 32}:
            raise BadColumn("a digest of another length")
        texts = ["sha256:" + value.hex() if value else "" for value in values]
        full = [_entry((*bare[:10], texts[row], bare[11])) for bare, row in zip(files.entries, rows, strict=True)]
        return Files(tuple(full), files.before)

    return _opened(diff_id, DIGESTS, content, read)


def _digest_bytes(digest: str) -> bytes:
    assert not digest or (len(digest) == 71 and digest.startswith("sha256:")), digest
    return bytes.fromhex(digest[7:])


def _write_rows(out: ColumnWriter, entries: Sequence[Entry]) -> None:
    """All fields but the digest."""
    out.ints([_KIND_NUMBERS[entry.kind] for entry in entries])
    out.paths([entry.path for entry in entries])
    owners, owner_rows = distinct((entry.mode, entry.uid, entry.gid, *entry.device) for entry in entries)
    out.ints(owner_rows)
    for column in range(5):
        out.ints([owner[column] for owner in owners])
    out.ints([entry.mtime_ns // 10**9 for entry in entries])
    out.ints([entry.mtime_ns % 10**9 for entry in entries])
    out.ints([entry.size for entry in entries])
    out.strings([entry.link for entry in entries])
    out.ints(_relative_offsets(entries))
    sets, set_rows = distinct(entry.xattrs for entry in entries)
    out.ints(set_rows)
    out.ints([len(xattrs) for xattrs in sets])
    pairs = [pair for xattrs in sets for pair in xattrs]
    out.strings([name for name, _ in pairs])
    out.strings([value for _, value in pairs])


def _read_rows(reader: ColumnReader) -> tuple[Entry, ...]:
    kinds = [_KINDS[number] for number in reader.ints()]
    paths = reader.paths()
    owner_rows = reader.ints()
    modes, uids, gids, majors, minors = (reader.ints() for _ in range(5))
    devices = list(zip(majors, minors, strict=True))
    seconds, nanoseconds = reader.ints(), reader.ints()
    mtimes = [second * 10**9 + rest for second, rest in zip(seconds, nanoseconds, strict=True)]
    sizes, links = reader.ints(), reader.strings()
    offsets = _absolute_offsets(reader.ints(), sizes)
    set_rows, xattr_sets = reader.ints(), _read_xattrs(reader)
    rows = zip(
        paths,
        kinds,
        [modes[row] for row in owner_rows],
        [uids[row] for row in owner_rows],
        [gids[row] for row in owner_rows],
        mtimes,
        sizes,
        links,
        [devices[row] for row in owner_rows],
        [xattr_sets[row] for row in set_rows],
        [""] * len(paths),
        offsets,
        strict=True,
    )
    return tuple(map(_entry, rows))


def _read_xattrs(reader: ColumnReader) -> list[tuple[tuple[bytes, bytes], ...]]:
    ends = list(accumulate(reader.ints(), initial=0))
    pairs = list(zip(reader.strings(), reader.strings(), strict=True))
    return [tuple(pairs[start:end]) for start, end in pairwise(ends)]


def _relative_offsets(entries: Iterable[Entry]) -> list[int]:
    """0 for none; else the distance from the end of the file before, moved up by one where it is not negative: few different numbers."""
    relative, end = [], 0
    for entry in entries:
        if entry.offset < 0:
            relative.append(0)
            continue
        distance = entry.offset - end
        relative.append(distance + 1 if distance >= 0 else distance)
        end = entry.offset + -(-entry.size // _TAR_BLOCK) * _TAR_BLOCK
    return relative


def _absolute_offsets(relative: Iterable[int], sizes: Iterable[int]) -> list[int]:
    offsets, end = [], 0
    for distance, size in zip(relative, sizes, strict=True):
        if not distance:
            offsets.append(-1)
            continue
        offset = end + distance - (distance > 0)
        offsets.append(offset)
        end = offset + -(-size // _TAR_BLOCK) * _TAR_BLOCK
    return offsets


def _seal(diff_id: str, part: str) -> bytes:
    return _HEAD.pack(_MAGIC, _VERSION, part[:1].encode(), hashlib.sha256(diff_id.encode()).digest()[:16])


def _sealed(diff_id: str, part: str, out: ColumnWriter) -> bytes:
    return _seal(diff_id, part) + zlib.compress(out.content(), _LEVEL)


def _opened(diff_id: str, part: str, content: bytes, read: Callable[[ColumnReader], _T]) -> _T:
    if content[: _HEAD.size] != _seal(diff_id, part):
        raise BadIndex(diff_id, part, "is of another layer or version, or not one at all")
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(memoryview(content)[_HEAD.size :], _UNPACKED_MAX)
        if not stream.eof or stream.unused_data:
            raise BadColumn("the stream is cut short, too long, or followed by something else")
        reader = ColumnReader(unpacked)
        value = read(reader)
        reader.end()
    except (zlib.error, ValueError, IndexError, OverflowError) as error:
        raise BadIndex(diff_id, part, f"is damaged ({error})") from error
    return value
