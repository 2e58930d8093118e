"""The stage storage in one registry repository, shared by every machine that may read it. Keeps the contract `StageStorage`.

Nothing is listed and nothing deleted: what is asked for is asked by its name. A name that is there is believed; what turns out to be missing or wrong
where it is read is noted (`lose`), is a miss from then on, and is published again under its name. Source: docs/repo.md.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from layerwright.oci.digest import BlobDigest, DiffId, digest_of
from layerwright.oci.image_config import ImageConfig
from layerwright.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, BadManifest, Descriptor, Index, Manifest, decode_manifest
from layerwright.oci.platform import Platform
from layerwright.oci.reference import Reference
from layerwright.registry.client import Registry
from layerwright.registry.errors import BlobsMissing, NameTaken, NotFound, RegistryError, Unauthorized, WrongBytes
from layerwright.storage.agreement import Seen, agree
from layerwright.storage.contract import DamagedBlob, MissingBlob
from layerwright.storage.paths import INDEX_PARTS
from layerwright.storage.records import BadRecord, ContentDigest, LayerRef, Record, StageDigest, decode_record, encode_record
from layerwright.storage.remote_names import (
    INDEX_OF,
    LAYER,
    MANIFEST,
    RECORD,
    RECORD_OF,
    BlobName,
    Kind,
    index_tag,
    layer_annotation,
    name_annotation,
    parse_blob_name,
    parse_layer_annotation,
    record_tag,
    tag_of,
)
from layerwright.storage.remote_parts import BadPart, Part, SmallImage, content_of, part, part_named, small_image

if TYPE_CHECKING:
    from layerwright.registry.manifests import Fetched

A = TypeVar("A")
R = TypeVar("R")
_RECORD_FILE = "record.json"
_STATE_FILE = "state-"
_TRIES = 4  # of a publication that finds something lost each time it looks


class Together(Protocol):
    """Does one thing to many, maybe several at once; the results in order. The first error is raised once all have stopped."""

    def __call__(self, act: Callable[[A], R], arguments: Iterable[A], /) -> list[R]: ...


def in_order(act: Callable[[A], R], arguments: Iterable[A], /) -> list[R]:
    return [act(one) for one in arguments]


class Supply(Protocol):
    """Where a repository gets the bytes of what is published to it."""

    def layer(self, to: RemoteStore, layer: LayerRef) -> Descriptor:
        """See to it that the layer's blob is in `to`; what it is there. Raises MissingBlob, RegistryError."""

    def index(self, diff_id: DiffId) -> Mapping[str, bytes] | None:
        """The parts of a layer's file index; None if nobody has made it yet."""

    def made_index(self, diff_id: DiffId) -> bool:
        """Whether this run had to make the index from the layer's bytes."""

    def state(self, files: BlobDigest) -> bytes | None:
        """The list of files of a git state; None if it is nowhere."""

    def cached(self, digest: BlobDigest) -> bytes | None:
        """A small blob that was read before."""

    def cache(self, blob: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """A stage or an image as a repository has it. `manifest` is the digest of its manifest."""

    record: Record
    manifest: BlobDigest
    layers: tuple[Descriptor, ...]
    size: int  # bytes of the manifest

    def described(self, platform: Platform) -> Descriptor:
        """As an index names it."""
        return Descriptor(media_type=OCI_MANIFEST, digest=self.manifest, size=self.size, platform=platform)


@dataclass(frozen=True, slots=True)
class _Listed:
    """An index image: its parts, and what the layer is in the repository (None if that was not known)."""

    parts: Mapping[str, Descriptor]
    layer: Descriptor | None


class RemoteStore:
    """Stages in the repository `place` (a reference without tag). Thread-safe.

    `supply` gives what is published. `is_read_only`: mirrors may be asked, since nothing is written. Errors are those of `Registry`; what is not there is a miss.
    """

    def __init__(
        self,
        registry: Callable[[], Registry],
        place: Reference,
        supply: Supply,
        *,
        is_read_only: bool = False,
        together: Together = in_order,
        pause: Callable[[float], None] = time.sleep,
        on_miss: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.place = place
        self.is_read_only = is_read_only
        self._registry = registry
        self.serve(supply, together=together, pause=pause, on_miss=on_miss)
        self._guard = threading.Lock()
        self._asking = threading.Lock()
        self._hides: bool | None = None  # whether what is not there is refused; None while nobody was refused
        self._found: dict[tuple[Kind, str], Found] = {}
        self._layers: dict[DiffId, Descriptor] = {}  # that the repository has, as far as anybody knows
        self._listed: dict[DiffId, _Listed | None] = {}
        self._broken: set[BlobDigest] = set()  # manifests of which something is lost
        self._sent: set[BlobDigest] = set()  # small blobs, in this run
        self._lost: set[str] = set()  # blobs, and names whose manifest cannot be read

    def serve(
        self,
        supply: Supply,
        *,
        together: Together = in_order,
        pause: Callable[[float], None] = time.sleep,
        on_miss: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Work for another run from now on; what is known of the repository, and of what it has lost, stays."""
        self._supply, self._together, self._pause, self._on_miss = supply, together, pause, on_miss

    @property
    def name(self) -> str:
        """REGISTRY/PATH."""
        return self.place.name

    def reference(self, tag: str) -> Reference:
        return replace(self.place, tag=tag)

    def by_digest(self, digest: BlobDigest) -> Reference:
        return replace(self.place, digest=digest)

    def _manifest(self, reference: Reference) -> Fetched:
        try:
            return self._registry().manifest(reference, direct=not self.is_read_only)
        except Unauthorized as error:
            if not self._hides_absence():
                raise
            raise NotFound(error.what, where=error.where, mend=error.mend) from error

    def _head(self, tag: str) -> Descriptor | None:
        try:
            return self._registry().head(self.reference(tag), direct=not self.is_read_only)
        except Unauthorized:
            if not self._hides_absence():
                raise
            return None

    def _hides_absence(self) -> bool:
        """Whether the registry refuses to say what does not exist, as some do of a repository that nothing was pushed to yet: who may push may read."""
        if self.is_read_only:
            return False
        with self._asking:
            if self._hides is None:
                try:
                    self._registry().check_push(self.place)
                    self._hides = True
                except RegistryError:
                    self._hides = False
            return self._hides

    # Finding.

    def find(self, digest: StageDigest) -> Record | None:
        found = self.look_up("stage", digest)
        return found.record if found is not None else None

    def find_image(self, digest: ContentDigest) -> Record | None:
        found = self.look_up("image", digest)
        return found.record if found is not None else None

    def has_image(self, digest: str) -> BlobDigest | None:
        """The manifest, or the index, of the finished image; None if it is not there, or known to be broken. One small request, and nothing is read."""
        return self._named(tag_of("image", digest))

    def look_up(self, kind: Kind, digest: str) -> Found | None:
        """The record and the manifest of a stage or an image, if nothing of it is known to be lost."""
        known = self._found.get((kind, digest))
        if known is not None:
            if known.manifest not in self._broken:
                return known
            del self._found[kind, digest]
        try:
            return self._read(kind, digest, self.reference(tag_of(kind, digest)))
        except NotFound:
            return None

    def _read(self, kind: Kind, digest: str, reference: Reference) -> Found | None:
        try:
            fetched = self._manifest(reference)
        except WrongBytes as damage:
            self._on_miss(f"{reference}: {damage.what}; it is made again")
            with self._guard:
                self._lost.add(tag_of(kind, digest))
            return None
        manifest_digest = fetched.descriptor.digest
        if manifest_digest in self._broken:
            return None
        found = self._decoded(kind, digest, fetched.content, manifest_digest)
        if found is None:
            self._break(manifest_digest)
            self._on_miss(f"{reference}: its record is gone or damaged; it is made again")
            return None
        if any(layer.digest in self._lost for layer in found.layers):
            self._break(manifest_digest)
            return None
        self._keep(found)
        return found

    def _decoded(self, kind: Kind, digest: str, content: bytes, manifest_digest: BlobDigest) -> Found | None:
        """None unless the manifest is of this name, and its record can be read and is of these layers."""
        try:
            manifest = decode_manifest(content)
            if isinstance(manifest, Index) or dict(name_annotation(kind, digest)).items() - manifest.annotations.items():
                return None
            name = parse_blob_name(manifest.annotations.get(RECORD, ""))
            if name is None or (blob := self._small_blob(Descriptor(media_type="", digest=name.digest, size=name.size))) is None:
                return None
            record = decode_record(content_of(blob, _RECORD_FILE))
        except (BadManifest, BadPart, BadRecord):
            return None
        if (record.kind, record.digest) != (kind, digest) or len(record.chain) != len(manifest.layers):
            return None
        if manifest.config.digest != digest_of(published_config(record).encode()):
            return None
        return Found(record, manifest_digest, manifest.layers, len(content))

    def _keep(self, found: Found) -> None:
        with self._guard:
            self._found[found.record.kind, found.record.digest] = found
            for layer, descriptor in zip(found.record.chain, found.layers, strict=True):
                self._layers.setdefault(layer.diff_id, replace(descriptor, annotations={}))

    def _small_blob(self, descriptor: Descriptor) -> bytes | None:
        """A blob that is read whole; None if it is not there, or comes damaged each time."""
        if (known := self._supply.cached(descriptor.digest)) is not None:
            return known
        if descriptor.digest in self._lost:
            return None
        try:
            blob = self._registry().blob_bytes(self.by_digest(descriptor.digest), descriptor)
        except (NotFound, WrongBytes):
            with self._guard:
                self._lost.add(descriptor.digest)
            return None
        self._supply.cache(blob)
        return blob

    # What is lost.

    def lose(self, digest: BlobDigest) -> bool:
        """Note that a blob is missing here, or wrong: no stage that needs it is found any more. False if this repository is not known to have it."""
        with self._guard:
            lost = [diff_id for diff_id, one in self._layers.items() if one.digest == digest]
            self._lost.add(digest)
            for diff_id in lost:
                del self._layers[diff_id]
            for found in self._found.values():
                if any(layer.digest == digest for layer in found.layers):
                    self._broken.add(found.manifest)
        return bool(lost)

    def is_lost(self, digest: str) -> bool:
        return digest in self._lost

    def came_back(self, digest: BlobDigest) -> None:
        """A blob that was lost is there again."""
        with self._guard:
            self._lost.discard(digest)

    def is_whole(self, record: Record) -> bool:
        """Whether the repository has it, as far as is known: it was found or published here, and nothing of it was lost since."""
        found = self._found.get((record.kind, record.digest))
        return found is not None and found.manifest not in self._broken

    def forget(self, kind: Kind, digest: str) -> None:
        """Note that something else of a stage or an image is lost: the list of its files, say."""
        if (found := self._found.get((kind, digest))) is not None:
            self._break(found.manifest)

    def _break(self, manifest: BlobDigest) -> None:
        with self._guard:
            self._broken.add(manifest)

    def layer(self, diff_id: DiffId) -> Descriptor | None:
        """What a layer is in this repository, if a stage or an image that was found or published has it."""
        return self._layers.get(diff_id)

    # Blobs, indexes and states.

    @contextmanager
    def open_blob(self, digest: BlobDigest) -> Iterator[BinaryIO]:
        """A blob's bytes. Raises MissingBlob; DamagedBlob, and from then on it counts as missing."""
        descriptor = None if digest in self._lost else self._registry().find_blob(self.place, digest)
        if descriptor is None:
            raise MissingBlob(f"{self.name} has no blob {digest}", mend="build again: what is missing is made anew")
        try:
            with self._registry().blob(self.by_digest(digest), descriptor) as stream:
                yield stream
        except NotFound as error:
            self.lose(digest)
            raise MissingBlob(error.what, where=error.where, mend=error.mend) from error
        except WrongBytes as error:
            self.lose(digest)
            raise DamagedBlob(error.what, where=error.where, mend=error.mend) from error

    def index_part(self, diff_id: DiffId, part: str) -> bytes | None:
        listed = self._index(diff_id)
        descriptor = listed.parts.get(part) if listed is not None else None
        if descriptor is None or (blob := self._small_blob(descriptor)) is None:
            return None
        try:
            return content_of(blob, part)
        except BadPart:
            return None

    def indexed_layer(self, diff_id: DiffId) -> Descriptor | None:
        """What a layer is in this repository, as its index says; to be looked for before it is relied upon."""
        listed = self._index(diff_id)
        return listed.layer if listed is not None and listed.layer is not None and listed.layer.digest not in self._lost else None

    def _index(self, diff_id: DiffId) -> _Listed | None:
        if diff_id not in self._listed:
            self._listed[diff_id] = self._read_index(diff_id)
        return self._listed[diff_id]

    def _read_index(self, diff_id: DiffId) -> _Listed | None:
        try:
            manifest = decode_manifest(self._manifest(self.reference(index_tag(diff_id))).content)
        except (NotFound, WrongBytes, BadManifest):
            return None
        if isinstance(manifest, Index) or manifest.annotations.get(INDEX_OF) != diff_id:
            return None
        parts = {name: found for name in INDEX_PARTS if (found := part_named(manifest, name)) is not None}
        return _Listed(parts, parse_layer_annotation(manifest.annotations.get(LAYER, "")))

    def put_index(self, diff_id: DiffId, parts: Mapping[str, bytes], layer: Descriptor | None) -> None:
        """Publish a layer's file index unless it is there whole. `layer`: what the layer is in this repository."""
        there = self._index(diff_id)
        if there is not None and set(there.parts) == set(parts) and not any(one.digest in self._lost for one in there.parts.values()):
            return
        made = [part(name, parts[name], compress=False) for name in INDEX_PARTS if name in parts]
        annotations = {INDEX_OF: diff_id} | ({LAYER: layer_annotation(layer)} if layer is not None else {})
        image = small_image(made, annotations=annotations)
        self._put_small(image)
        try:
            self._registry().put_manifest(self.reference(index_tag(diff_id)), image.content, image.manifest.media_type)
        except NameTaken:
            pass
        for one in made:
            self.came_back(one.descriptor.digest)
        self._listed[diff_id] = _Listed({name: one.descriptor for name, one in zip((n for n in INDEX_PARTS if n in parts), made, strict=True)}, layer)

    def state(self, record: Record, files: BlobDigest) -> bytes | None:
        """The list of files of one of the git states of a stage; None if it is not here."""
        try:
            manifest = decode_manifest(self._manifest(self.reference(record_tag(record.digest))).content)
        except (NotFound, WrongBytes, BadManifest):
            return None
        name = f"{_STATE_FILE}{files[7:]}"
        descriptor = part_named(manifest, name) if isinstance(manifest, Manifest) else None
        blob = self._small_blob(descriptor) if descriptor is not None else None
        try:
            content = content_of(blob, name) if blob is not None else None
        except BadPart:
            return None
        return content if content is not None and digest_of(content) == files else None

    # Publishing.

    def publish(self, record: Record, *, accepts: Callable[[Record], bool] = lambda winner: True) -> Record:
        return self.publish_found(record, accepts=accepts).record

    def publish_found(self, record: Record, *, accepts: Callable[[Record], bool] = lambda winner: True) -> Found:
        """Make the record exist, and return the one that won: an earlier whole one that `accepts` takes, else this or that of who was first.

        Order: blobs and file indexes, the manifest by its digest, the record, and last the name. Raises MissingBlob if something that the record
        refers to is nowhere, RegistryError.
        """
        for _ in range(_TRIES):
            winner = self.look_up(record.kind, record.digest)
            if winner is not None and accepts(winner.record):
                return winner
            if winner is not None:
                self._break(winner.manifest)
            decided = self._published(record)
            if decided is not None:
                return decided
        raise MissingBlob(f"{self.name}: what is published there as {record.digest} is lost again and again", mend="build again later")

    def _published(self, record: Record) -> Found | None:
        layers = tuple(self._together(self._delivered, record.chain))
        records = self._record_parts(record)
        config = published_config(record).encode()
        described = Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config))
        blob_name = BlobName(records[0].descriptor.digest, records[0].descriptor.size)
        manifest = Manifest(config=described, layers=layers, annotations={**name_annotation(record.kind, record.digest), RECORD: str(blob_name)})
        content = manifest.encode()
        beside = self._record_image(record, records, digest_of(content))
        self._together(self._put_blob, [(described, config), *beside.blobs])
        self._put_manifest(content, manifest)
        with self._guard:
            self._broken.discard(digest_of(content))  # all of it is there again
        mine = Found(record, digest_of(content), layers, len(content))
        slots = _Slots(self, record, records, mine, content)
        decided = agree(slots, mine.manifest, self._pause)
        if decided == mine.manifest:
            with self._guard:
                self._lost.discard(tag_of(record.kind, record.digest))
            self._keep(mine)
            return mine
        return self._read(record.kind, record.digest, self.by_digest(decided))

    def _delivered(self, layer: LayerRef) -> Descriptor:
        if (known := self._layers.get(layer.diff_id)) is not None:
            if self._supply.made_index(layer.diff_id) and (parts := self._supply.index(layer.diff_id)) is not None:
                self.put_index(layer.diff_id, parts, known)  # nobody had needed it before, or it was lost
            return known
        descriptor = replace(self._supply.layer(self, layer), annotations={})
        if (parts := self._supply.index(layer.diff_id)) is not None:
            self.put_index(layer.diff_id, parts, descriptor)
        with self._guard:
            self._layers[layer.diff_id] = descriptor
            self._lost.discard(descriptor.digest)
        return descriptor

    def _record_parts(self, record: Record) -> list[Part]:
        parts = [part(_RECORD_FILE, encode_record(record), compress=True)]
        if record.kind == "stage":  # nothing is ever brought up to date from a finished image
            for files in dict.fromkeys(state.files for state in record.states):
                if (content := self._supply.state(files)) is not None:
                    parts.append(part(f"{_STATE_FILE}{files[7:]}", content, compress=False))
        return parts

    def _record_image(self, record: Record, parts: list[Part], manifest: BlobDigest) -> SmallImage:
        return small_image(parts, annotations={RECORD_OF: tag_of(record.kind, record.digest), MANIFEST: manifest})

    def _put_manifest(self, content: bytes, manifest: Manifest) -> None:
        """By digest. What the registry misses of it is sent again if it can be had, else noted as lost: MissingBlob."""
        reference = self.by_digest(digest_of(content))
        try:
            self._registry().put_manifest(reference, content, manifest.media_type)
        except BlobsMissing as error:
            missing = [layer for layer in manifest.layers if not self._registry().has_blob(self.place, layer.digest)]
            for layer in missing:
                self.lose(layer.digest)
            raise MissingBlob(f"{error.what}; {len(missing)} of its layers are gone there", where=error.where, mend="build again") from error

    def put_blobs(self, blobs: Iterable[tuple[Descriptor, bytes]]) -> None:
        self._together(self._put_blob, list(blobs))

    def _put_blob(self, blob: tuple[Descriptor, bytes]) -> None:
        descriptor, content = blob
        if descriptor.digest in self._sent and descriptor.digest not in self._lost:
            return
        self._registry().put_blob(self.place, descriptor, partial(io.BytesIO, content), may_exist=False)
        with self._guard:
            self._sent.add(descriptor.digest)
            self._lost.discard(descriptor.digest)

    def _put_small(self, image: SmallImage) -> None:
        self._together(self._put_blob, image.blobs)

    # Other names.

    def named(self, tag: str) -> BlobDigest | None:
        """The manifest that a tag names now."""
        return self._named(tag)

    def put_tag(self, tag: str, manifest: BlobDigest) -> None:
        """Let a tag name a manifest of this repository, in place of what it named. Raises NotFound if it is not here, NameTaken."""
        fetched = self._manifest(self.by_digest(manifest))
        self._registry().put_manifest(self.reference(tag), fetched.content, fetched.descriptor.media_type)

    def copy_image(self, source: RemoteStore, tag: str, manifest: BlobDigest) -> BlobDigest:
        """Have an image of another repository here, under `tag`: its blobs mounted or copied through, its record left where it is. Returns `manifest`.

        Raises MissingBlob if something of it is lost there, RegistryError.
        """
        try:
            content, media_type = self._copied_manifest(source, manifest)
        except (NotFound, WrongBytes) as error:
            source._break(manifest)
            raise MissingBlob(error.what, where=error.where, mend="build again") from error
        try:
            self._registry().put_manifest(self.reference(tag), content, media_type)
        except NameTaken:
            return self._named(tag) or manifest
        return manifest

    def _copied_manifest(self, source: RemoteStore, digest: BlobDigest) -> tuple[bytes, str]:
        fetched = source._manifest(source.by_digest(digest))
        decoded = decode_manifest(fetched.content)
        if isinstance(decoded, Index):
            for one in decoded.manifests:
                self._copied_manifest(source, one.digest)
        else:
            self._together(partial(self._copied_blob, source), list({one.digest: one for one in (decoded.config, *decoded.layers)}.values()))
        self._registry().put_manifest(self.by_digest(digest), fetched.content, fetched.descriptor.media_type)
        return fetched.content, fetched.descriptor.media_type

    def _copied_blob(self, source: RemoteStore, blob: Descriptor) -> None:
        registry = self._registry()
        if registry.has_blob(self.place, blob.digest):
            return
        if source.place.registry == self.place.registry and registry.mount_blob(self.place, blob.digest, source.place.repository):
            return
        try:
            registry.put_blob(self.place, blob, lambda: _Opened(registry.blob(source.by_digest(blob.digest), blob)))
        except (NotFound, WrongBytes):
            source.lose(blob.digest)
            raise

    def publish_index(self, digest: str, images: Iterable[Descriptor]) -> BlobDigest:
        """The finished image for several platforms, whose images are there; the index that has the name in the end."""
        if (there := self.has_image(digest)) is not None:
            return there
        index = Index(manifests=tuple(images), annotations=name_annotation("image", digest))
        content = index.encode()
        self._registry().put_manifest(self.by_digest(digest_of(content)), content, OCI_INDEX)
        slots = _PlainSlots(self, tag_of("image", digest), digest, {digest_of(content): content}, OCI_INDEX)
        return agree(slots, digest_of(content), self._pause)

    def _named(self, tag: str) -> BlobDigest | None:
        """What a tag names now; None if nothing, or what is known to be broken."""
        found = self._head(tag)
        return found.digest if found is not None and found.digest not in self._broken and tag not in self._lost else None

    def _claimed(self, digest: str) -> BlobDigest | None:
        """The manifest that the record stands beside; None if there is none that can be used."""
        try:
            manifest = decode_manifest(self._manifest(self.reference(record_tag(digest))).content)
        except (NotFound, WrongBytes, BadManifest):
            return None
        claimed = manifest.annotations.get(MANIFEST, "")
        return BlobDigest(claimed) if claimed and claimed not in self._broken else None


class _PlainSlots:
    """The two tags of one name. `contents`: manifests that are known, by digest."""

    def __init__(self, store: RemoteStore, tag: str, digest: str, contents: dict[BlobDigest, bytes], media_type: str) -> None:
        self._store, self._tag, self._digest, self._contents, self._media_type = store, tag, digest, contents, media_type
        self._fixed = False  # the registry moves no name

    def look(self) -> Seen:
        asks: list[Callable[[], BlobDigest | None]] = [lambda: self._store._named(self._tag), lambda: self._store._claimed(self._digest)]
        name, claim = self._store._together(lambda ask: ask(), asks)
        return Seen(name, claim)

    def claim(self, manifest: BlobDigest) -> None:
        image = self._beside(manifest)
        self._store._put_small(image)
        try:
            self._store._registry().put_manifest(self._store.reference(record_tag(self._digest)), image.content, image.manifest.media_type)
        except NameTaken:
            self._fixed = True

    def _beside(self, manifest: BlobDigest) -> SmallImage:
        text = part(_RECORD_FILE, b'{"schema":1,"kind":"index"}', compress=True)
        return small_image([text], annotations={RECORD_OF: self._tag, MANIFEST: manifest})

    def name(self, manifest: BlobDigest) -> None:
        if manifest not in self._contents:
            self._contents[manifest] = self._store._manifest(self._store.by_digest(manifest)).content
        try:
            self._store._registry().put_manifest(self._store.reference(self._tag), self._contents[manifest], self._media_type)
        except NameTaken:
            pass  # what is there is taken


class _Slots(_PlainSlots):
    """Those of a stage or an image, with its record in the claim."""

    def __init__(self, store: RemoteStore, record: Record, parts: list[Part], mine: Found, content: bytes) -> None:
        super().__init__(store, tag_of(record.kind, record.digest), record.digest, {mine.manifest: content}, OCI_MANIFEST)
        self._record, self._parts, self._mine = record, parts, mine

    def _beside(self, manifest: BlobDigest) -> SmallImage:
        if manifest == self._mine.manifest:
            return self._store._record_image(self._record, self._parts, manifest)
        winner = self._store._read(self._record.kind, self._record.digest, self._store.by_digest(manifest))
        record = winner.record if winner is not None else self._record
        return self._store._record_image(record, self._store._record_parts(record), manifest)


class _Opened(io.RawIOBase, BinaryIO):
    """A stream that closes what it comes from."""

    def __init__(self, opened: AbstractContextManager[BinaryIO]) -> None:
        self._opened = opened
        self._stream = opened.__enter__()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._stream.read(-1 if size is None else size)

    def close(self) -> None:
        if not self.closed:
            self._opened.__exit__(None, None, None)
        super().close()


def published_config(record: Record) -> ImageConfig:
    """The config that a record's manifest has. A finished image has its labels; those of a stage are not inherited by what is built upon it."""
    if record.kind == "image":
        return record.config
    labels: dict[str, Any] = {
        "werf": record.project,
        "werf-stage-content-digest": record.digest,
        "werf-project-repo-commit": record.commit,
    }
    if len(record.steps) > 1:
        labels["werf.io/parent-stage-id"] = record.steps[-2].digest
    return replace(record.config, labels={**record.config.labels, **labels})


__all__ = ["Found", "RegistryError", "RemoteStore", "Supply", "Together", "in_order", "published_config"]
