"""The file index of one layer: all its paths and their metadata, without its bytes. Entries without their digests load apart from the rest.

Named by the layer's diff id and kept as three blobs, each read only when a question needs it: a base of 30,000 files answers what
concerns directories and symlinks from a twentieth of its index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from layerwright.layers.entry import OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.index_parts import (
    DIGESTS,
    FILES,
    SKELETON,
    BadIndex,
    Files,
    Skeleton,
    decode_digests,
    decode_files,
    decode_skeleton,
    encode_digests,
    encode_files,
    encode_skeleton,
    merge_entries,
    split_entries,
)
from layerwright.oci.digest import DiffId

__all__ = ["BadIndex", "FileIndex", "encode_index", "load_index"]

Part = Callable[[str], bytes | None]


class FileIndex:
    """What one layer holds. Paths are as the layer writes them; symlinks of layers below are the stack's business.

    Every method may have to load a part and then raises BadIndex, if that is missing or damaged.
    """

    def __init__(self, diff_id: DiffId, entries: Iterable[Entry], texts: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
        """`entries` in tar order, complete."""
        self.diff_id = diff_id
        self._skeleton, files = split_entries(entries, texts)
        self._bare: Files | None = files
        self._full: Files | None = files
        self._part: Part | None = None
        self._tables()

    @classmethod
    def stored(cls, diff_id: DiffId, skeleton: Skeleton, part: Part) -> FileIndex:
        """An index whose other parts are asked for when needed."""
        index = cls.__new__(cls)
        index.diff_id = diff_id
        index._skeleton = skeleton
        index._bare = index._full = None
        index._part = part
        index._tables()
        return index

    def _tables(self) -> None:
        skeleton = self._skeleton
        self._marks_whiteout = {entry.path: entry for entry in skeleton.entries if entry.kind == WHITEOUT}
        self._marks_opaque = {entry.path: entry for entry in skeleton.entries if entry.kind == OPAQUE}
        shown = skeleton.entries
        if skeleton.overridden:
            shown = tuple(entry for row, entry in enumerate(shown) if row not in skeleton.overridden)
        self._shown = {entry.path: entry for entry in shown if entry.kind not in (WHITEOUT, OPAQUE)}
        self._implied = frozenset(skeleton.implied)
        self._files: dict[bytes, Entry] | None = None
        self._files_full = False
        self._below: dict[bytes, list[bytes]] | None = None
        self._files_below: dict[bytes, list[bytes]] | None = None
        self._removed_below: dict[bytes, list[bytes]] | None = None

    @property
    def specials(self) -> tuple[Entry, ...]:
        """All but files and hard links, in tar order; needs no further part."""
        return self._skeleton.entries

    @property
    def count(self) -> int:
        """How many entries there are; needs no further part."""
        return len(self._skeleton.entries) + self._skeleton.file_count

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything, in tar order, complete."""
        return merge_entries(self._skeleton, self._load_full())

    @property
    def listed(self) -> tuple[Entry, ...]:
        """As `entries`, but the digests of files may be missing, and their blob need not be fetched."""
        return merge_entries(self._skeleton, self._full if self._full is not None else self._load_bare())

    @property
    def texts(self) -> Mapping[bytes, bytes]:
        """The kept contents by path: accounts and package databases."""
        return self._skeleton.texts

    @property
    def implied(self) -> tuple[bytes, ...]:
        """Directories that paths of this layer go through without an entry that makes them directories, sorted."""
        return self._skeleton.implied

    def at(self, path: bytes, parent: bytes, *, digest: bool = False) -> Entry | None:
        """What this layer writes at `path`, which lies directly in `parent`. Without `digest` a file's may be missing."""
        entry = self._shown.get(path)
        if entry is None and parent in self._skeleton.populated:
            entry = self._file_table(full=False).get(path)
            if digest and entry is not None and not self._files_full:
                entry = self._file_table(full=True)[path]
        return entry

    def is_implied(self, path: bytes) -> bool:
        return path in self._implied

    def is_symlink(self, path: bytes) -> bool:
        entry = self._shown.get(path)
        return entry is not None and entry.kind == SYMLINK

    def whiteout(self, path: bytes) -> Entry | None:
        return self._marks_whiteout.get(path)

    def opaque(self, directory: bytes) -> Entry | None:
        return self._marks_opaque.get(directory)

    def inside(self, directory: bytes, *, digest: bool = False) -> Iterator[tuple[bytes, Entry | None]]:
        """The paths directly in `directory`, in no order; None for an implied directory. Whiteouts are apart."""
        if self._below is None:
            self._below = _by_directory((*self._shown, *self._implied.difference(self._shown)))
        shown = self._shown
        for path in self._below.get(directory, ()):
            if path in shown or directory not in self._skeleton.populated or path not in self._file_table(full=digest):
                yield path, shown.get(path)
        if directory in self._skeleton.populated:
            files = self._file_table(full=digest)
            if self._files_below is None:
                self._files_below = _by_directory(files)
            for path in self._files_below.get(directory, ()):
                if path not in shown:
                    yield path, files[path]

    def removed_in(self, directory: bytes) -> Sequence[bytes]:
        """The paths directly in `directory` that a whiteout removes from the layers below."""
        if not self._marks_whiteout:
            return ()
        if self._removed_below is None:
            self._removed_below = _by_directory(self._marks_whiteout)
        return self._removed_below.get(directory, ())

    def parts(self) -> tuple[Skeleton, Files]:
        return self._skeleton, self._load_full()

    def _file_table(self, *, full: bool) -> dict[bytes, Entry]:
        table = self._files
        if table is None or (full and not self._files_full):
            loaded = self._load_full() if full or self._full is not None else self._load_bare()
            table = {entry.path: entry for entry in loaded.entries}
            self._files, self._files_full = table, loaded is self._full
        return table

    def _load_bare(self) -> Files:
        if self._bare is None:
            self._bare = decode_files(self.diff_id, self._asked(FILES), self._skeleton)
        return self._bare

    def _load_full(self) -> Files:
        if self._full is None:
            bare = self._load_bare()
            self._bare = self._full = decode_digests(self.diff_id, self._asked(DIGESTS), bare)
        return self._full

    def _asked(self, part: str) -> bytes:
        assert self._part is not None
        content = self._part(part)
        if content is None:
            raise BadIndex(self.diff_id, part, "is missing")
        return content


def encode_index(index: FileIndex) -> dict[str, bytes]:
    """The three blobs by name; equal indexes give equal bytes."""
    skeleton, files = index.parts()
    return {
        SKELETON: encode_skeleton(index.diff_id, skeleton),
        FILES: encode_files(index.diff_id, files),
        DIGESTS: encode_digests(index.diff_id, files),
    }


def load_index(diff_id: DiffId, part: Part) -> FileIndex | None:
    """The index whose blobs `part` gives; None if there is none. The skeleton is read now, the others when needed.

    Raises BadIndex for a damaged skeleton; later questions raise it for the other parts, missing ones included.
    """
    content = part(SKELETON)
    return None if content is None else FileIndex.stored(diff_id, decode_skeleton(diff_id, content), part)


def _by_directory(paths: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for path in paths:
        if path:  # the root lies in no directory
            found.setdefault(path.rpartition(b"/")[0], []).append(path)
    return found
