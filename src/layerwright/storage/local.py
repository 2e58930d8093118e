"""The stage storage on this host's disk. Files decide: nothing here needs a repair, a daemon or a database.

Everything is named by its content or written once, by a rename or a link, and what makes a thing exist comes last. So a process may
be killed at any moment: what it had not finished is not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from layerwright.host import locks
from layerwright.host.files import make_private, remove_tree, replacing, telling_full, with_parent, write_once
from layerwright.limits import Limits
from layerwright.oci.digest import BlobDigest, ChainId, DiffId, chain_id
from layerwright.oci.manifest import Descriptor
from layerwright.storage.blobs import Blobs, BlobWriter
from layerwright.storage.contract import MissingBlob
from layerwright.storage.holdings import Holding, Origin, decode_holding, encode_holding
from layerwright.storage.images import Images
from layerwright.storage.memo import Memo
from layerwright.storage.paths import INDEX_PARTS, StorePaths
from layerwright.storage.records import BadRecord, ContentDigest, LayerRef, Record, StageDigest, decode_record, encode_record
from layerwright.storage.seals import read_sealed, sealed
from layerwright.storage.trees import Trees
from layerwright.storage.uses import Uses, layer_use, path_use, record_use
from layerwright.storage.work import Remove, Work, WorkArea

if TYPE_CHECKING:
    from layerwright.storage.kept_states import KeptStates


class LocalStore:
    """A store at `home`; keeps the contract `StageStorage`. Opening it touches no disk; directories are made by the first write.

    Safe for any number of threads and processes. `flavour`: of the trees this process can use, "root" or the hash of its uid and gid maps.
    `limits`: what an image may ask for to come in. `remove` is for what is left in `work/`: files of mapped users, too.
    `trees`, `images` and `memo` are its rooms for unpacked layers, named images and hints.
    """

    def __init__(self, home: str, *, flavour: str = "root", remove: Remove = remove_tree, limits: Limits | None = None) -> None:
        self.paths = StorePaths(home)
        self.flavour = flavour
        self.limits = limits or Limits()
        self._remove = remove
        self._area = WorkArea(self.paths.work, remove=remove)
        self.uses = Uses(self.paths, self._area)
        self._blobs = Blobs(self.paths, self._area)
        self.trees = Trees(self.paths, self._area)
        self.images = Images(self.paths, self._area, self.uses)
        self.memo = Memo(self.paths, self._area)

    @cached_property
    def kept_states(self) -> KeptStates:
        """Its room for states of stages that are kept to be looked into."""
        from layerwright.storage.kept_states import KeptStates as Room  # most runs have none

        return Room(self.paths, self._area, remove=self._remove)

    def __enter__(self) -> LocalStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove this process's temporary directory; if it is not called, the next build does."""
        self._area.close()
        self.uses.close()

    # Records

    def find(self, digest: StageDigest) -> Record | None:
        return self._find("stage", digest)

    def find_image(self, digest: ContentDigest) -> Record | None:
        return self._find("image", digest)

    def publish(self, record: Record, *, accepts: Callable[[Record], bool] = lambda winner: True) -> Record:
        """Make the record exist and return the one that won: an earlier whole one that `accepts` takes, else this.

        A record that is damaged, or refers to what is gone, is replaced; so is an image over another edition of its base, which a caller does
        not accept. What `record` refers to has been stored before. Raises MissingBlob if something of it is gone by now: a layer that was there
        already, say, and that a clean-up took before anybody said that it is used.
        """
        path = self.paths.record(record.kind, record.digest)
        content = sealed(path, encode_record(record))
        self.uses.add(record_use(record.kind, record.digest), *(layer_use(layer.diff_id) for layer in record.chain))
        if (gone := self.missing(record)) is not None:
            raise MissingBlob(f"{gone} is not in the store any more", mend="build again")
        if write_once(path, content, scratch=self._area.scratch()):
            return record
        with self.lock(f"publish-{record.kind}-{record.digest}"):
            if (winner := self._find(record.kind, record.digest)) is not None and accepts(winner):
                return winner
            with replacing(path, scratch=self._area.scratch()) as out:
                out.write(content)
            return record

    def missing(self, record: Record) -> str | None:
        """What of a record is gone, in words; None if it is whole. Looks at names and sizes only: contents are checked where they are read.

        A record is whole if for every layer of its chain there is its tar (a blob under the diff id), or a compressed blob known for it,
        or for a base's layer a registry it came from, or its unpacked tree (of this flavour) with all parts of its index, from which the tar
        is written again; and if the blob of every git state is here. An index is not needed otherwise: reading the layer makes it again.
        """
        for position, layer in enumerate(record.chain):
            if not self._holds(layer, record, position):
                return f"layer {layer.diff_id} of {layer.stage}"
        for state in record.states:
            if not self.has_blob(state.files):
                return f"the git state {state.files}"
        return None

    def whole(self, record: Record) -> bool:
        return self.missing(record) is None

    def records(self) -> Iterator[tuple[Record, float]]:
        """Every readable record, whole or not, and when it was last used (Unix time, seconds)."""
        for kind in ("image", "stage"):
            for folder, _, names in os.walk(self.paths.records(kind)):
                for name in sorted(names):
                    record = self._read_record(kind, name.removesuffix(".json"))
                    if record is not None:
                        with suppress(OSError):
                            yield record, os.stat(os.path.join(folder, name)).st_mtime

    def _find(self, kind: str, digest: str) -> Record | None:
        record = self._read_record(kind, digest)
        if record is None:
            return None
        self.uses.add(record_use(kind, digest))
        path = self.paths.record(kind, digest)
        if self.missing(record) is not None or not self.uses.touch(path):
            return None
        return record

    def _read_record(self, kind: str, digest: str) -> Record | None:
        content = read_sealed(self.paths.record(kind, digest))
        if content is None:
            return None
        try:
            record = decode_record(content)
        except BadRecord:
            return None
        return record if (record.kind, record.digest) == (kind, digest) else None

    def _holds(self, layer: LayerRef, record: Record, position: int) -> bool:
        diff_id = layer.diff_id
        if layer.kind != "base" and self.has_tree(self.flavour, diff_id) and self.has_index(diff_id):
            return True
        if self._blobs.has(diff_id, size=layer.size):
            return True
        holding = self.holding(diff_id)
        if any(self._blobs.has(one.digest, size=one.size) for one in holding.blobs) or (layer.kind == "base" and holding.origins):
            return True
        chain = chain_id(record.diff_ids[: position + 1])
        return self.has_index(diff_id) and (self.has_tree(self.flavour, diff_id) or (chain is not None and self.has_tree(self.flavour, chain)))

    # Blobs

    def has_blob(self, digest: str, *, size: int = -1) -> bool:
        """Whether a blob is here, and of this size if one is given."""
        return self._blobs.has(digest, size=size)

    def new_blob(self, expected: str | None = None, *, size: int | None = None) -> AbstractContextManager[BlobWriter]:
        """A blob to be written; it exists once the block ends well. Raises DamagedBlob if it is not the `expected` one, DiskFull."""
        return self._blobs.new(expected, size=size)

    def add_blob(self, content: bytes) -> BlobDigest:
        return self._blobs.put(content)

    def blob_path(self, digest: BlobDigest) -> str:
        """Where a blob lies if it is here: to seek in, never to write."""
        return self.paths.blob(digest)

    def blob_size(self, digest: BlobDigest) -> int:
        """Raises MissingBlob."""
        return self._blobs.size(digest)

    def read_blob(self, digest: BlobDigest) -> bytes:
        """A small blob's bytes, verified. Raises MissingBlob; DamagedBlob, and then it is no longer here."""
        return self._blobs.read(digest)

    def open_blob(self, digest: BlobDigest, *, verify: bool = True) -> AbstractContextManager[BinaryIO]:
        """A blob's bytes. Raises MissingBlob.

        Verified, the read that reaches the end raises DamagedBlob if they are not the digest's, and removes them. Not verified, it can seek.
        """
        return self._blobs.open(digest, verify=verify)

    def opened_blob(self, digest: BlobDigest) -> BinaryIO:
        """As open_blob, verified, for the caller to close. Raises MissingBlob."""
        return self._blobs.opened(digest)

    def check_blob(self, digest: BlobDigest) -> None:
        """Read a blob to the end. Raises MissingBlob; DamagedBlob, and then it is no longer here."""
        with self.open_blob(digest) as stream:
            while stream.read(1 << 20):
                pass

    def remove_blob(self, digest: BlobDigest) -> int:
        """Remove a blob, found wrong or no longer used; the bytes it had."""
        return self._blobs.remove(digest)

    # Layers: indexes, holdings, trees

    def index_part(self, diff_id: DiffId, part: str) -> bytes | None:
        return read_sealed(self.paths.index(diff_id, part))

    def has_index(self, diff_id: DiffId) -> bool:
        """Whether all parts of a layer's index are here, by name."""
        return all(os.access(self.paths.index(diff_id, part), os.F_OK) for part in INDEX_PARTS)  # half the time of os.stat

    def put_index(self, diff_id: DiffId, parts: Mapping[str, bytes]) -> None:
        """Keep a layer's file index, the skeleton last. Parts that are here and readable stay as they are."""
        self.uses.add(layer_use(diff_id))
        for part, content in sorted(parts.items(), key=lambda one: INDEX_PARTS.index(one[0]), reverse=True):
            path = self.paths.index(diff_id, part)
            if read_sealed(path) is None:
                with replacing(path, scratch=self._area.scratch(), durable=False, needed_bytes=len(content)) as out:
                    out.write(sealed(path, content))

    def discard_index(self, diff_id: DiffId) -> None:
        """Make the index a miss: it is damaged, and cannot be made again."""
        for part in INDEX_PARTS:
            with suppress(FileNotFoundError):
                os.unlink(self.paths.index(diff_id, part))

    def holding(self, diff_id: DiffId) -> Holding:
        """What is known of a layer; an empty holding if nothing is."""
        return decode_holding(read_sealed(self.paths.layer(diff_id)), diff_id)

    def note_layer(
        self, diff_id: DiffId, *, blobs: tuple[Descriptor, ...] = (), origins: tuple[Origin, ...] = (), size: int = -1, proven: bool = False
    ) -> None:
        """Remember blobs a layer is stored in, registries it can be fetched from, and the bytes of its uncompressed tar.

        `proven`: the blobs were read, and their uncompressed bytes are the diff id's; else an image says so.
        """
        self._change_holding(diff_id, lambda known: known.merged(blobs=blobs, origins=origins, size=size, proven=proven))

    def forget_blob(self, diff_id: DiffId, digest: BlobDigest) -> None:
        """Forget a blob or origin whose bytes turned out not to be this layer."""
        self._change_holding(diff_id, lambda known: known.without(digest))

    def _change_holding(self, diff_id: DiffId, change: Callable[[Holding], Holding]) -> None:
        self.uses.add(layer_use(diff_id))
        with self.lock(f"layer-{diff_id[7:]}"):
            known = self.holding(diff_id)
            changed = change(known)
            if changed == known:
                return
            path = self.paths.layer(diff_id)
            with replacing(path, scratch=self._area.scratch()) as out:
                out.write(sealed(path, encode_holding(changed)))

    def tree_path(self, flavour: str, identity: DiffId | ChainId) -> str:
        return self.paths.tree(flavour, identity)

    def has_tree(self, flavour: str, identity: str) -> bool:
        return self.trees.has(flavour, identity)

    def adopt_tree(self, made: str, flavour: str, identity: DiffId | ChainId, *, remove: Callable[[str], object] = remove_tree) -> str:
        """Move a finished and synced tree into place, or remove it if another was first; the path it has now."""
        return self.trees.adopt(made, flavour, identity, remove=remove)

    def discard_tree(self, flavour: str, identity: DiffId | ChainId, *, remove: Callable[[str], object] = remove_tree) -> None:
        """Make a tree a miss, and remove it."""
        self.trees.discard(flavour, identity, remove=remove)

    # A build's own

    def work(self, *, remove: Remove | None = None) -> AbstractContextManager[Work]:
        """A private directory until the block ends; the first one of a process removes those of dead builds."""
        return self._area.work(remove=remove)

    def sweep_work(self, *, remove: Remove | None = None) -> tuple[str, ...]:
        """Remove what dead builds left; the paths that had to stay."""
        return self._area.sweep(remove)

    @contextmanager
    def lock(self, name: str, *, cancelled: Callable[[], bool] | None = None, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Be the only thread and process in the block with this name: a digest. Only saves work. Raises Cancelled once `cancelled` says so.

        `waiting` is called once if another has it: the caller says "waiting for another process".
        """
        with locks.hold(self.paths.lock(name), cancelled=cancelled, waiting=waiting):
            yield

    def memo_get(self, key: str) -> dict[str, Any] | None:
        return self.memo.get(key)

    def memo_put(self, key: str, value: Mapping[str, Any]) -> None:
        self.memo.put(key, value)

    def mount_dir(self, project: str, to: str) -> str:
        """The directory of a build_dir mount, made if it is not there; kept from build to build."""
        path = self.paths.mount(project, to)
        self.uses.add(path_use(os.path.relpath(path, self.paths.home)))
        with telling_full(path):
            make_private(os.path.dirname(os.path.dirname(path)))
            with_parent(path, lambda: os.makedirs(path, exist_ok=True))
        return path

    def secret_key(self) -> bytes:
        """32 random bytes, the same for the life of the store and known to its owner only."""
        for _ in range(2):
            with suppress(OSError):
                with open(self.paths.key, "rb") as file:
                    key = file.read()
                if len(key) == 32:
                    return key
                os.unlink(self.paths.key)
            write_once(self.paths.key, os.urandom(32), scratch=self._area.scratch(), mode=0o600)
        with open(self.paths.key, "rb") as file:
            return file.read()
