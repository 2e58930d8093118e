"""Layers by diff id, wherever their bytes are: a tar in the store, a compressed blob, an unpacked tree, or a registry.

Asked in that order, and only for what is needed: an index is made once, when the bytes are first read; bytes are fetched at most once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO, Protocol, TypeVar

from layerwright.build.at_work import carried
from layerwright.build.retar import write_again
from layerwright.errors import Cancelled, LayerwrightError
from layerwright.layers.compress import decompressed
from layerwright.layers.entry import Content, Entry
from layerwright.layers.index import BadIndex, FileIndex, encode_index, load_index
from layerwright.layers.index_parts import SKELETON
from layerwright.layers.scan import CountedStream, HashedStream, index_tar
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import BadLayer, UnwritableEntry
from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import parse_reference
from layerwright.registry.client import Registry
from layerwright.registry.errors import NotFound, WrongBytes
from layerwright.storage.contract import MissingBlob
from layerwright.storage.holdings import Origin
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import INDEX_PARTS
from layerwright.storage.records import LayerRef
from layerwright.storage.uses import blob_use, layer_use

_ASKED_AT_ONCE = 8  # indexes; three small requests each
_Made = TypeVar("_Made")
_Read = TypeVar("_Read", FileIndex, HashedStream)


class TreeOwner(Protocol):
    """Acts for whom the files of unpacked layers belong to: the worker, for a user who is not root (`build.tree_calls`)."""

    def write_tar(self, diff_id: DiffId, out: Callable[[bytes], object]) -> str: ...

    def discard(self, identity: DiffId) -> None: ...


class Elsewhere(Protocol):
    """Repositories of stages, which have layers and their indexes (`build.tiers`)."""

    def origins(self, diff_id: DiffId) -> Sequence[Origin]: ...

    def index_part(self, diff_id: DiffId, part: str) -> bytes | None: ...

    def lose(self, origin: Origin) -> bool:
        """Note that a repository lacks a blob, or has it damaged; False if the origin is none of these repositories."""


class Cabinet:
    """Reads layers of one store. Thread-safe; two threads never fetch or index one layer twice.

    `owner` reads and removes unpacked layers where this process may not; None where it may. With `elsewhere`, layers that are only wanted for their
    index pass through and are not kept, unless `keeps` says that commands will need them; and what is unpacked keeps no blob beside its tree.
    """

    def __init__(
        self,
        store: LocalStore,
        registry: Callable[[], Registry],
        *,
        owner: TreeOwner | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.keeps = self.keeps_blobs = elsewhere is None
        self.made: set[DiffId] = set()  # layers whose index was made from their bytes in this run
        self.begun: set[DiffId] = set()  # layers of bases that this run begins images with
        self._store = store
        self._registry = registry
        self._owner = owner
        self._elsewhere = elsewhere
        self._flavour = store.flavour
        self._cancelled = cancelled
        self.limits = store.limits
        self._indexes: dict[DiffId, FileIndex] = {}
        self._locks: dict[DiffId, threading.Lock] = {}
        self._guard = threading.Lock()

    # Indexes.

    def index(self, diff_id: DiffId) -> FileIndex:
        """A layer's file index, made now if nobody has. Raises MissingBlob where its bytes are nowhere."""
        if diff_id not in self._indexes:
            with self._lock(diff_id):
                if diff_id not in self._indexes:
                    self._indexes[diff_id] = self._stored_index(diff_id) or self._made_index(diff_id)
        return self._indexes[diff_id]

    def stack(self, layers: Sequence[LayerRef]) -> StackedIndex:
        """The view of a chain, oldest layer first."""
        self._load_together([layer.diff_id for layer in layers])
        indexes = [self.index(layer.diff_id) for layer in layers]
        if sum(index.count for index in indexes) > self.limits.image_entries:
            what = f"the layers have more than {self.limits.image_entries:,} entries together"
            mend = "if you trust the image and have the memory, set LAYERWRIGHT_LIMIT_IMAGE_ENTRIES to a higher number"
            raise BadLayer(what, where=f"layer {layers[-1].diff_id} and those below it", mend=mend)
        return StackedIndex(indexes)

    def keep_index(self, index: FileIndex) -> None:
        self._store.put_index(index.diff_id, encode_index(index))
        self._indexes[index.diff_id] = index

    def keep_readable(self, diff_id: DiffId) -> None:
        """See to it that every part of the stored index can be read, by the worker say. Raises MissingBlob."""
        if self.parts(diff_id) is None:
            self._made_index(diff_id)

    def parts(self, diff_id: DiffId) -> Mapping[str, bytes] | None:
        """All parts of a layer's index, as they are stored; None if somebody has yet to make it."""
        parts = {part: content for part in INDEX_PARTS if (content := self._stored_part(diff_id, part)) is not None}
        return parts if len(parts) == len(INDEX_PARTS) else None

    def _load_together(self, diff_ids: Sequence[DiffId]) -> None:
        """What has to be asked of a registry is asked at once."""
        if self._elsewhere is None or len(wanted := [one for one in dict.fromkeys(diff_ids) if one not in self._indexes]) < 2:
            return
        with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(wanted))) as pool:
            for _ in pool.map(carried(self.index), wanted):
                pass

    def _stored_index(self, diff_id: DiffId) -> FileIndex | None:
        """What is stored; a part of it that turns out damaged when it is asked for is made again."""
        try:
            return load_index(diff_id, lambda part: self._stored_part(diff_id, part) or self._made_part(diff_id, part))
        except BadIndex:
            return None

    def _stored_part(self, diff_id: DiffId, part: str) -> bytes | None:
        """From the store, else from a repository, and then the store has it from now on."""
        content = self._store.index_part(diff_id, part)
        if content is None and self._elsewhere is not None and (content := self._elsewhere.index_part(diff_id, part)) is not None:
            self._store.put_index(diff_id, {part: content})
        return content

    def _made_part(self, diff_id: DiffId, part: str) -> bytes | None:
        if self._store.index_part(diff_id, SKELETON) is None:
            return None  # no index at all, which is for the caller to say
        self._made_index(diff_id)
        return self._store.index_part(diff_id, part)

    def _made_index(self, diff_id: DiffId) -> FileIndex:
        """Made from the layer's bytes. Raises MissingBlob where there are none: then nothing is known of the layer any more."""
        with self._store.lock(f"index-{diff_id[7:]}", cancelled=self._cancelled):
            if all(self._store.index_part(diff_id, part) is not None for part in INDEX_PARTS) and (stored := self._stored_index(diff_id)) is not None:
                return stored
            try:
                made, size = self._passed_through(diff_id) or self._proven(diff_id, self._indexed)
            except MissingBlob:
                self._store.discard_index(diff_id)
                raise
            self.made.add(diff_id)
            self._store.discard_index(diff_id)  # parts of another version would stay
            self._store.put_index(diff_id, encode_index(made))
            self._store.note_layer(diff_id, size=size)
            return made

    def _passed_through(self, diff_id: DiffId) -> tuple[FileIndex, int] | None:
        """Made from the bytes as they come from a registry, which are not kept; None where they are here, or wanted here."""
        if self.keeps or self._claimed(diff_id) is not None or self.has_tree(diff_id) or not self.origins(diff_id):
            return None

        def read(stream: BinaryIO) -> tuple[FileIndex, int]:
            made, size = self._indexed(decompressed(stream, most=self.limits.layer_bytes))
            if made.diff_id != diff_id:
                raise MissingBlob(
                    f"what is said to be layer {diff_id} is another layer, {made.diff_id}", mend="build again; if a base image is to blame, push it again"
                )
            return made, size

        return self.read_elsewhere(diff_id, read)

    def read_elsewhere(self, diff_id: DiffId, read: Callable[[BinaryIO], _Made]) -> _Made:
        """What `read` makes of the layer's blob as it comes from a registry, which is not kept; it is called again if what came was wrong or another layer.

        Raises MissingBlob where no origin has it any more, or what the last registry says.
        """
        failed: LayerwrightError | None = None
        for origin in self.origins(diff_id):
            reference = parse_reference(f"{origin.repository}@{origin.descriptor.digest}")
            try:
                return self._registry().read_blob(reference, origin.descriptor, read)
            except Cancelled:
                raise
            except MissingBlob as error:
                self._store.forget_blob(diff_id, origin.descriptor.digest)
                if self._elsewhere is not None:
                    self._elsewhere.lose(origin)
                failed = error
            except LayerwrightError as error:
                failed = self.lose(origin, error)
        raise failed or MissingBlob(f"layer {diff_id} is not in the store, and nothing says where it came from", mend="build again")

    def _indexed(self, stream: BinaryIO) -> tuple[FileIndex, int]:
        counted = CountedStream(stream)
        return index_tar(counted, self.limits), counted.size  # type: ignore[arg-type]  # reading is all that it does

    def _proven(self, diff_id: DiffId, read: Callable[[BinaryIO], tuple[_Read, int]], *, stored: bool = True, fetched: bool = True) -> tuple[_Read, int]:
        """What `read` makes of the layer's bytes: of each blob said to be the layer, until one is. Raises MissingBlob, or BadLayer if none can be read."""
        failed: LayerwrightError | None = None
        tried: set[str] = set()
        while True:
            try:
                source = (self._claimed(diff_id, tried) if stored else None) or self._fetched(diff_id, tried, may=fetched)
            except MissingBlob as error:
                raise failed or error from None
            tried.add(source.digest)
            try:
                with self._opened(source) as stream:
                    made, size = read(stream)
            except BadLayer as damage:
                place = damage.where
                damage.where = f"layer {diff_id}, {place}" if place else f"layer {diff_id}"
                failed = damage
                continue
            if made.diff_id == diff_id:
                self._store.note_layer(diff_id, blobs=(source,), proven=True)
                return made, size
            self._store.forget_blob(diff_id, source.digest)
            what = f"what is stored for layer {diff_id} is another layer, {made.diff_id}"
            failed = failed or MissingBlob(what, mend="build again; if a base image is to blame, push it again")

    # Bytes.

    @contextmanager
    def tar(self, diff_id: DiffId) -> Iterator[BinaryIO]:
        """The uncompressed tar. Raises MissingBlob."""
        tree = self._store.tree_path(self._flavour, diff_id)
        if self.stored(diff_id) is None and os.path.isdir(tree) and (index := self._stored_index(diff_id)) is not None:
            try:
                self._retar(diff_id, tree, index)
            except MissingBlob:
                if not self.origins(diff_id):
                    raise  # else it may have been written by another tool, which we do not write like: it is fetched
        with self._opened(self.stored(diff_id) or self.fetch(diff_id)) as stream:
            yield stream

    def write_tar(self, diff_id: DiffId, out: Callable[[bytes], object]) -> None:
        """Write the uncompressed tar to `out` in pieces. Raises MissingBlob."""
        tree = self._store.tree_path(self._flavour, diff_id)
        if self.stored(diff_id) is None and os.path.isdir(tree) and (index := self._stored_index(diff_id)) is not None:
            self._check_written(diff_id, tree, index, out)
            return
        with self.tar(diff_id) as stream:
            while piece := stream.read(1 << 20):
                out(piece)

    def tar_size(self, diff_id: DiffId) -> int:
        """Bytes of the uncompressed tar; read through once if nobody knows. Raises MissingBlob."""
        if self._store.has_blob(BlobDigest(diff_id)):
            return self._store.blob_size(BlobDigest(diff_id))
        if (known := self._store.holding(diff_id).size) >= 0:
            return known
        size = 0
        with self.tar(diff_id) as stream:
            while piece := stream.read(1 << 20):
                size += len(piece)
        self._store.note_layer(diff_id, size=size)
        return size

    def _check_written(self, diff_id: DiffId, tree: str, index: FileIndex, out: Callable[[bytes], object]) -> None:
        wrong = self._owner.write_tar(diff_id, out) if self._owner else write_again(tree, index, out)
        if wrong:
            if self._owner:
                self._owner.discard(diff_id)
            else:
                self._store.discard_tree(self._flavour, diff_id)
            raise MissingBlob(f"the unpacked layer {diff_id} {wrong}", mend="build again")

    def _retar(self, diff_id: DiffId, tree: str, index: FileIndex) -> None:
        """Keep the tar of an unpacked layer as a blob from now on."""
        with self._store.new_blob(diff_id) as out:
            self._check_written(diff_id, tree, index, out.write)

    @contextmanager
    def _opened(self, source: Descriptor) -> Iterator[BinaryIO]:
        """The uncompressed bytes of a blob of the store. Raises DamagedBlob rather than what a reader says of damaged bytes."""
        try:
            with self._store.open_blob(source.digest) as stream:
                yield decompressed(stream, source.media_type, most=self.limits.layer_bytes)
        except (BadLayer, UnwritableEntry):
            self._store.check_blob(source.digest)
            raise

    def check(self, diff_ids: Iterable[DiffId]) -> None:
        """Read what the store has of these layers to the end. Raises DamagedBlob."""
        for diff_id in diff_ids:
            if (source := self.stored(diff_id)) is not None:
                self._store.check_blob(source.digest)

    def stored(self, diff_id: DiffId) -> Descriptor | None:
        """The blob that is this layer in the store: compressed if there is one, else its tar; None if neither is here.

        A blob that is only said to be it is read to its end first, once; one that is another layer is forgotten.
        """
        source = self._claimed(diff_id)
        if source is None or self._is_proven(diff_id, source):
            return source
        try:
            self._proven(diff_id, self._hashed, fetched=False)
        except MissingBlob:
            return None
        return self._claimed(diff_id)

    def _claimed(self, diff_id: DiffId, but: Collection[str] = ()) -> Descriptor | None:
        """The blob of the store that is, or else is said to be, this layer."""
        holding = self._store.holding(diff_id)
        here = [one for one in holding.blobs if one.digest not in but and self._store.has_blob(one.digest, size=one.size)]
        if proven := [one for one in here if one.digest in holding.proven]:
            return proven[0]
        if diff_id not in but and self._store.has_blob(BlobDigest(diff_id)):
            return Descriptor(media_type="", digest=BlobDigest(diff_id), size=self._store.blob_size(BlobDigest(diff_id)))
        return here[0] if here else None

    def _is_proven(self, diff_id: DiffId, source: Descriptor) -> bool:
        return source.digest == BlobDigest(diff_id) or source.digest in self._store.holding(diff_id).proven

    def _hashed(self, stream: BinaryIO) -> tuple[HashedStream, int]:
        hashed = HashedStream(stream)
        while hashed.read(1 << 20):
            pass
        return hashed, -1

    def fetch(self, diff_id: DiffId) -> Descriptor:
        """Get the layer from where it came, and see that it is this layer. Raises MissingBlob, or what the registry says."""
        self._proven(diff_id, self._hashed, stored=False)
        source = self._claimed(diff_id)
        assert source is not None, diff_id
        return source

    def _fetched(self, diff_id: DiffId, but: Collection[str] = (), *, may: bool = True) -> Descriptor:
        """The blob as its registry has it; that it holds this layer is for the caller to check."""
        failed: LayerwrightError | None = None
        for origin in self.origins(diff_id) if may else ():
            if origin.descriptor.digest in but:
                continue
            self._store.uses.add(layer_use(diff_id), blob_use(origin.descriptor.digest))
            with self._store.lock(f"blob-{origin.descriptor.digest[7:]}", cancelled=self._cancelled):
                if self._store.has_blob(origin.descriptor.digest, size=origin.descriptor.size):
                    return self._kept(diff_id, origin.descriptor)
                try:
                    self._download(origin.repository, origin.descriptor)
                except Cancelled:
                    raise
                except LayerwrightError as error:
                    failed = self.lose(origin, error)
                    continue
                return self._kept(diff_id, origin.descriptor)
        if failed is not None:
            raise failed
        raise MissingBlob(f"layer {diff_id} is not in the store, and nothing says where it came from", mend="build again")

    def origins(self, diff_id: DiffId) -> tuple[Origin, ...]:
        """Where the layer can be fetched from: repositories of stages, then registries that base images came from."""
        known = self._store.holding(diff_id).origins
        if self._elsewhere is None:
            return known
        return tuple({(one.repository, one.descriptor.digest): one for one in (*self._elsewhere.origins(diff_id), *known)}.values())

    def lose(self, origin: Origin, error: LayerwrightError) -> LayerwrightError:
        """Note what an origin has lost: a stage that needs it is built again then, and MissingBlob says so. Any other error stays what it is."""
        if isinstance(error, NotFound | WrongBytes) and self._elsewhere is not None and self._elsewhere.lose(origin):
            return MissingBlob(error.what, where=error.where, mend=error.mend)
        return error

    def has_tree(self, diff_id: DiffId) -> bool:
        """Whether the layer lies unpacked in the store, and its tar can be written again from there."""
        return self._store.has_tree(self._flavour, diff_id) and self._store.has_index(diff_id)

    def holds(self, diff_id: DiffId) -> bool:
        """Whether the layer is in the store with its index, as a tar or unpacked."""
        return self._store.has_index(diff_id) and (self._store.has_blob(BlobDigest(diff_id)) or self.has_tree(diff_id))

    def bring(self, diff_id: DiffId) -> None:
        """Have the layer's blob and its index in the store. Raises MissingBlob, or what the registry says."""
        self.index(diff_id)
        if self.stored(diff_id) is None and not self.has_tree(diff_id):
            self.fetch(diff_id)

    def _kept(self, diff_id: DiffId, descriptor: Descriptor) -> Descriptor:
        self._store.note_layer(diff_id, blobs=(descriptor,))
        return descriptor

    def _download(self, repository: str, descriptor: Descriptor) -> None:
        reference = parse_reference(f"{repository}@{descriptor.digest}")

        def keep(stream: BinaryIO) -> None:
            with self._store.new_blob(descriptor.digest, size=descriptor.size) as out:
                out.copy(stream)

        self._registry().read_blob(reference, descriptor, keep)

    def fetch_all(self, diff_ids: Iterable[DiffId], run: Callable[[Callable[[DiffId], object], Iterable[DiffId]], None]) -> None:
        """Index every layer that has no index yet; `run` maps over them, several at once."""
        run(self.index, [diff_id for diff_id in dict.fromkeys(diff_ids) if diff_id not in self._indexes and self._stored_index(diff_id) is None])

    # Contents of single files.

    def contents(self, wanted: Mapping[DiffId, Sequence[Entry]], spool: str) -> Callable[[DiffId, Entry], Content]:
        """How to read files of several layers, each layer's bytes passed over once; what only a compressed blob holds is copied below `spool`."""
        places: dict[tuple[DiffId, int], tuple[str, int]] = {}
        for diff_id, entries in wanted.items():
            places |= self._places(diff_id, entries, spool)

        def content(diff_id: DiffId, entry: Entry) -> Content:
            path, offset = places[diff_id, entry.offset]
            return lambda: _open_at(path, offset, entry.size)

        return content

    def _places(self, diff_id: DiffId, entries: Sequence[Entry], spool: str) -> dict[tuple[DiffId, int], tuple[str, int]]:
        if self._store.has_blob(BlobDigest(diff_id)):
            path = self._store.blob_path(BlobDigest(diff_id))
            return {(diff_id, entry.offset): (path, entry.offset) for entry in entries}
        spooled = os.path.join(spool, f"{diff_id[7:]}-{threading.get_ident()}")
        found: dict[tuple[DiffId, int], tuple[str, int]] = {}
        with self.tar(diff_id) as stream, open(spooled, "wb") as out:
            at = 0
            for offset, size in sorted({(entry.offset, entry.size) for entry in entries}):
                _skip(stream, offset - at)
                found[diff_id, offset] = (spooled, out.tell())
                _copy(stream, out, size, diff_id)
                at = offset + size
        return found

    def _lock(self, diff_id: DiffId) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(diff_id, threading.Lock())


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        piece = stream.read(min(size, 1 << 20))
        if not piece:
            return
        size -= len(piece)


def _copy(stream: BinaryIO, out: BinaryIO, size: int, diff_id: DiffId) -> None:
    while size > 0:
        piece = stream.read(min(size, 1 << 20))
        if not piece:
            raise BadLayer(f"layer {diff_id} ends before its index says")
        out.write(piece)
        size -= len(piece)


class _Window:
    """`size` bytes of a file from `offset`."""

    def __init__(self, path: str, offset: int, size: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self._file.seek(offset)
        self._left = size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        piece = self._file.read(wanted)
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._file.close()


def _open_at(path: str, offset: int, size: int) -> BinaryIO:
    return _Window(path, offset, size)  # type: ignore[return-value]  # read and close are all that a Content's stream is asked for
