"""Where stages are looked for, and where they are kept: the local store alone, or a repository with the local store and others behind it.

In a repository the order is: cache repositories, the repository itself, the local store, secondary repositories. What only a later one has is published
to the repository, without being built. Source: docs/repo.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Literal, Protocol, TypeVar

from layerwright.build.result import WITHIN_AN_IMAGE, Placed
from layerwright.errors import Cancelled, LayerwrightError
from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.oci.platform import Platform
from layerwright.storage.contract import MissingBlob
from layerwright.storage.holdings import Origin
from layerwright.storage.local import LocalStore
from layerwright.storage.records import ContentDigest, Record, StageDigest
from layerwright.storage.remote import RemoteStore

Source = Literal["built", "local", "repo", "secondary", "cache-repo"]
Accepts = Callable[[Record], bool]
A = TypeVar("A")


class Tiers(Protocol):
    """What a build needs of the storages. Keeps the contract `StageStorage` as far as records go.

    `checks_bases`: whether an image counts only on the layers that its base has now. A repository's names are written once, by whoever was first.
    """

    checks_bases: bool
    repository: str  # REGISTRY/PATH, "" without one

    def reading_only(self) -> Tiers:
        """The same for a plan: nothing is published."""

    def find(self, digest: StageDigest) -> Record | None: ...

    def find_image(self, digest: ContentDigest) -> Record | None: ...

    def publish(self, record: Record, *, accepts: Accepts = ...) -> Record: ...

    def whole(self, record: Record) -> bool:
        """Whether nothing of it is known to be missing."""

    def finished(self, digests: Collection[ContentDigest]) -> Mapping[ContentDigest, Placed]:
        """Those of the finished images that can be said to be there without reading them. Nothing is written."""

    def source_of(self, kind: str, digest: str) -> Source:
        """Where a record that was found came from; "built" for none."""

    def placed(self, record: Record) -> Placed | None:
        """What it is called in the repository; None without one."""

    def publish_index(self, digest: ContentDigest, images: Sequence[tuple[Platform, Record]]) -> Placed | None:
        """Let the content digest of an image for several platforms name an index of theirs; None without a repository."""

    def before_work(self) -> None:
        """Called before something is built: raises what would only come to light after the work, a push that is not allowed."""

    # For layers (build.cabinet).

    def origins(self, diff_id: DiffId) -> Sequence[Origin]: ...

    def index_part(self, diff_id: DiffId, part: str) -> bytes | None: ...

    def lose(self, origin: Origin) -> bool: ...

    def state(self, record: Record, files: BlobDigest) -> bytes | None: ...


class LocalTier:
    """The local store alone."""

    checks_bases = True
    repository = ""

    def reading_only(self) -> Tiers:
        return self

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def find(self, digest: StageDigest) -> Record | None:
        return self._store.find(digest)

    def find_image(self, digest: ContentDigest) -> Record | None:
        return self._store.find_image(digest)

    def publish(self, record: Record, *, accepts: Accepts = lambda winner: True) -> Record:
        return self._store.publish(record, accepts=accepts)

    def whole(self, record: Record) -> bool:
        return self._store.whole(record)

    def finished(self, digests: Collection[ContentDigest]) -> Mapping[ContentDigest, Placed]:
        return {}

    def source_of(self, kind: str, digest: str) -> Source:
        return "local"

    def placed(self, record: Record) -> Placed | None:
        return None

    def publish_index(self, digest: ContentDigest, images: Sequence[tuple[Platform, Record]]) -> Placed | None:
        return None

    def before_work(self) -> None:
        pass

    def origins(self, diff_id: DiffId) -> Sequence[Origin]:
        return ()

    def index_part(self, diff_id: DiffId, part: str) -> bytes | None:
        return None

    def lose(self, origin: Origin) -> bool:
        return False

    def state(self, record: Record, files: BlobDigest) -> bytes | None:
        return None


class RepoTiers:
    """A repository, and behind it the local store and repositories that are only read; before it caches.

    `writes`: False for a plan, which publishes nothing. `at_once` asks for many images side by side; `warn` tells what goes wrong with a cache or a
    secondary repository, which stops nothing: the run goes on without it.
    """

    checks_bases = False

    def __init__(
        self,
        store: LocalStore,
        primary: RemoteStore,
        *,
        secondaries: Sequence[RemoteStore] = (),
        caches: Sequence[RemoteStore] = (),
        at_once: Callable[[Callable[[ContentDigest], BlobDigest | None], Sequence[ContentDigest]], list[BlobDigest | None]],
        check_push: Callable[[], None],
        warn: Callable[[str], None],
        writes: bool = True,
    ) -> None:
        self._store = store
        self.primary = primary
        self.repository = primary.name
        self._secondaries = list(secondaries)
        self._caches = list(caches)
        self._at_once = at_once
        self._check_push = check_push
        self._warn = warn
        self._writes = writes
        self._sources: dict[tuple[str, str], Source] = {}
        self._manifests: dict[tuple[str, str], BlobDigest] = {}
        self._absent: set[str] = set()
        self._asking = threading.Lock()
        self._guard = threading.Lock()
        self._may_push = False

    def reading_only(self) -> Tiers:
        reading = copy(self)
        reading._writes = False
        return reading

    # Finding.

    def find(self, digest: StageDigest) -> Record | None:
        cached = self._asked(self._caches, lambda cache: cache.look_up("stage", digest))
        if cached is not None:
            named = self.primary.named(f"stage-{digest}")
            if named is None:
                return self._taken_over(cached.record, "cache-repo", self._caches)
            if named == cached.manifest:
                self._manifests["stage", digest] = named
                return self._took(cached.record, "cache-repo")
        return self._found("stage", digest)

    def find_image(self, digest: ContentDigest) -> Record | None:
        return self._found("image", digest)

    def _found(self, kind: Literal["stage", "image"], digest: str) -> Record | None:
        was_asked = digest in self._absent  # just now, with all others: asked again only where time has passed
        self._absent.discard(digest)
        if not was_asked and (found := self.primary.look_up(kind, digest)) is not None:
            self._manifests[kind, digest] = found.manifest
            record = self._took(found.record, "repo")
            self._fill_caches(record)
            return record
        local = self._store.find(StageDigest(digest)) if kind == "stage" else self._store.find_image(ContentDigest(digest))
        if local is not None:
            return self._taken_over(local, "local")
        elsewhere = self._asked(self._secondaries, lambda secondary: secondary.look_up(kind, digest))
        return self._taken_over(elsewhere.record, "secondary", self._secondaries) if elsewhere is not None else None

    def _took(self, record: Record, source: Source) -> Record:
        self._sources.setdefault((record.kind, record.digest), source)
        return record

    def _taken_over(self, record: Record, source: Source, stores: list[RemoteStore] | None = None) -> Record | None:
        """What another storage, the local one or one of `stores`, has, published here; None if a part of it turns out to be gone there."""
        self._took(record, source)
        if not self._writes:
            return record
        self.before_work()
        try:
            if record.kind == "image":
                self._take_over_stages(record)
            else:
                self._take_over_states(record, stores or [])
            return self._published(record)
        except MissingBlob as damage:
            self._sources.pop((record.kind, record.digest), None)
            self._warn(f"{damage.what}; the stage is built")
            return None

    def _take_over_stages(self, image: Record) -> None:
        """Those that a later commit may be built upon; what is nowhere any more is not missed."""
        for step in image.steps:
            if step.stage not in WITHIN_AN_IMAGE:
                self.find(StageDigest(step.digest))

    def _take_over_states(self, stage: Record, stores: list[RemoteStore]) -> None:
        for files in dict.fromkeys(state.files for state in stage.states):
            if not self._store.has_blob(files) and (content := self._asked(stores, partial(_state, stage, files))) is not None:
                self._store.add_blob(content)

    def finished(self, digests: Collection[ContentDigest]) -> Mapping[ContentDigest, Placed]:
        asked = list(dict.fromkeys(digests))
        there = {digest: named for digest, named in zip(asked, self._at_once(self.primary.has_image, asked), strict=True) if named is not None}
        self._absent |= set(asked) - there.keys()
        for digest, named in there.items():
            self._manifests["image", digest] = named
            self._sources.setdefault(("image", digest), "repo")
        return {digest: Placed(self.primary.name, digest, named) for digest, named in there.items()}

    # Publishing.

    def publish(self, record: Record, *, accepts: Accepts = lambda winner: True) -> Record:
        """To the local store too, if it has all of it: what cannot be pushed now need not be built again."""
        self._sources[record.kind, record.digest] = "built"
        if self._store.whole(record):
            self._store.publish(record, accepts=accepts)
        return self._published(record)

    def _published(self, record: Record) -> Record:
        found = self.primary.publish_found(record)
        self._manifests[record.kind, record.digest] = found.manifest
        self._fill_caches(found.record)
        return found.record

    def publish_index(self, digest: ContentDigest, images: Sequence[tuple[Platform, Record]]) -> Placed | None:
        named = [(platform, self.primary.publish_found(record)) for platform, record in images]
        manifest = self.primary.publish_index(digest, [found.described(platform) for platform, found in named])
        return Placed(self.primary.name, digest, manifest)

    def before_work(self) -> None:
        with self._asking:
            if not self._may_push and self._writes:
                self._check_push()
                self._may_push = True

    # Caches and secondary repositories.

    def _asked(self, stores: list[RemoteStore], ask: Callable[[RemoteStore], A | None]) -> A | None:
        """What the first of them has; one that cannot be asked is left out."""
        for store in list(stores):
            try:
                answer = ask(store)
            except Cancelled:
                raise
            except LayerwrightError as error:
                self._leave_out(stores, store, error)
                continue
            if answer is not None:
                return answer
        return None

    def _fill_caches(self, record: Record) -> None:
        for cache in list(self._caches) if self._writes and record.kind == "stage" else ():
            try:
                cache.publish(record)
            except Cancelled:
                raise
            except LayerwrightError as error:
                self._leave_out(self._caches, cache, error)

    def _leave_out(self, stores: list[RemoteStore], store: RemoteStore, error: LayerwrightError) -> None:
        with self._guard:
            if store not in stores:
                return  # another thread has met it, too
            stores.remove(store)
        kind = "cache" if stores is self._caches else "secondary"
        self._warn(f"the {kind} repository {store.name} is left out: {error.what}" + (f"; {error.mend}" if error.mend else ""))

    # What is known of them.

    def whole(self, record: Record) -> bool:
        return self.primary.is_whole(record) or self._store.whole(record)

    def source_of(self, kind: str, digest: str) -> Source:
        return self._sources.get((kind, digest), "built")

    def placed(self, record: Record) -> Placed | None:
        tag = record.digest if record.kind == "image" else f"stage-{record.digest}"
        return Placed(self.primary.name, tag, self._manifests.get((record.kind, record.digest), ""))

    # For layers.

    def origins(self, diff_id: DiffId) -> Sequence[Origin]:
        return [
            Origin(repository=store.name, descriptor=layer)
            for store in (*self._caches, self.primary, *self._secondaries)
            if (layer := store.layer(diff_id)) is not None
        ]

    def index_part(self, diff_id: DiffId, part: str) -> bytes | None:
        if (content := self.primary.index_part(diff_id, part)) is not None:
            return content
        return self._asked(self._secondaries, lambda secondary: secondary.index_part(diff_id, part))

    def lose(self, origin: Origin) -> bool:
        lost = False
        for store in (*self._caches, self.primary, *self._secondaries):
            if store.name == origin.repository:
                lost = store.lose(origin.descriptor.digest) or lost
        return lost

    def state(self, record: Record, files: BlobDigest) -> bytes | None:
        content = self.primary.state(record, files)
        if content is None:
            content = self._asked(self._secondaries, partial(_state, record, files))
        if content is None:
            self.primary.forget(record.kind, record.digest)
        return content


def _state(record: Record, files: BlobDigest, store: RemoteStore) -> bytes | None:
    return store.state(record, files)


def loader(tiers: Tiers, content: ContentDigest) -> Callable[[], Record]:
    """Reads a finished image's record when it is wanted. Raises MissingBlob, which has it built again."""

    def load() -> Record:
        record = tiers.find_image(content)
        if record is None:
            raise MissingBlob(f"what is published as {content} is damaged or gone", mend="build again")
        return record

    return load
