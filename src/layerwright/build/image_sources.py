"""The git sources of one image beside a stage that was given older ones: what differs, and the layer that brings it up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from layerwright.build import layer_makers
from layerwright.build.git_layer import resolve_owner
from layerwright.build.git_update import Chain, Change, Files, Update, changes_between, landed, plan_update
from layerwright.build.session import Session
from layerwright.build.sources import MappingSource, files_taken, targets
from layerwright.build.standing import git_layers_from, layer_time
from layerwright.config.model import Image
from layerwright.errors import LayerwrightError
from layerwright.git.states import decode_state, encode_state
from layerwright.git.values import BlobId, CommitId, TreeEntry, state_digest
from layerwright.oci.digest import DiffId
from layerwright.storage.contract import MissingBlob
from layerwright.storage.records import LayerRef, MappingState, Record, StageDigest


class StageMustBeRebuilt(Exception):
    """An update found paths that stages before it must take as inputs. Caught where the walk over the stages starts; no caller of a build sees it."""

    def __init__(self, conflicts: Mapping[str, Mapping[bytes, str | None]]) -> None:
        super().__init__("a stage had written files that changed in git")
        self.conflicts = conflicts


class ImageSources:
    """The present sources of `image`, one for each of its mappings."""

    def __init__(self, session: Session, image: Image, sources: tuple[MappingSource, ...]) -> None:
        self._session = session
        self._image = image
        self._sources = sources
        self._landings: tuple[tuple[DiffId, ...], Files] | None = None

    def up_to_date(self, record: Record) -> bool:
        """Whether the stage was given just these."""
        return [(state.mapping, state.digest) for state in record.states] == [(source.id, source.digest) for source in self._sources]

    def states(self) -> tuple[MappingState, ...]:
        """What a stage that has these sources records; their lists of files are in the store then."""
        commit, store = self._session.commit, self._session.store
        return tuple(
            MappingState(mapping=source.id, commit=commit.id, tree=commit.tree, files=store.add_blob(encode_state(source.listed)), digest=source.digest)
            for source in self._sources
        )

    def landed(self, chain: Chain) -> Files:
        """The sources at their places above what `chain` has below git's layers."""
        below = tuple(layer.diff_id for layer in chain.layers[: chain.git_from])
        if self._landings is None or self._landings[0] != below:
            self._landings = below, landed(self._wanted, chain.below_git, where=f"image {self._image.shown!r}")
        return self._landings[1]

    def changes(self, record: Record) -> tuple[list[Change], Chain]:
        """What differs between the sources the stage was given and these, and the layers they lie in."""
        first = git_layers_from(record)
        cabinet = self._session.cabinet
        chain = Chain(record.chain, cabinet.stack(record.chain), cabinet.stack(record.chain[:first]), first)
        if self.up_to_date(record):
            return [], chain
        before = [self._recorded(record, state) for state in record.states]
        return changes_between(landed(targets(self._image.git, before), chain.below_git), self.landed(chain)), chain

    def update(self, previous: Record, changes: list[Change], chain: Chain) -> Update:
        """How the changes are brought into the image. Raises StageMustBeRebuilt where a command's files are in the way."""
        if not changes:
            return Update()
        where = f"image {self._image.shown!r}"
        owners = [resolve_owner(mapping, chain.below_git, where=f"{mapping.position}, {where}") for mapping in self._image.git]
        update = plan_update(changes, self.landed(chain), chain, owners, time_s=layer_time(self._session.commit.time_s, previous))
        if update.conflicts:
            raise StageMustBeRebuilt(update.conflicts)
        return update

    def written(self, update: Update, previous: Record, chain: Chain, stage: str, digest: StageDigest) -> list[LayerRef]:
        """The update as a layer; none where it changes nothing."""
        if not update.adds and not update.removals:
            return []
        time_s = layer_time(self._session.commit.time_s, previous)
        return [layer_makers.git_layer(self._session, self._image, update, chain.view, stage, digest, time_s=time_s)]

    @cached_property
    def _wanted(self) -> Files:
        return targets(self._image.git, [source.files for source in self._sources])

    def _recorded(self, record: Record, state: MappingState) -> Sequence[tuple[bytes, TreeEntry]]:
        """The files that a stage was given: from the store, else from this clone, else from a repository. Raises MissingBlob."""
        try:
            content = self._session.store.read_blob(state.files)
        except MissingBlob:
            if (from_git := self._from_git(state)) is not None:
                return from_git
            found = self._session.tiers.state(record, state.files)
            if found is None:
                raise
            content = found
        return [(path, TreeEntry(path, mode, BlobId(oid))) for path, mode, oid in decode_state(content)]

    def _from_git(self, state: MappingState) -> Sequence[tuple[bytes, TreeEntry]] | None:
        """The same from the commit that the stage recorded; None if that is not here, or these are other files than it says."""
        mapping = next((source.mapping for source in self._sources if source.id == state.mapping), None)
        repo = self._session.repo
        if mapping is None or not repo.has_commit(CommitId(state.commit)):
            return None
        try:
            files = files_taken(mapping, repo.list_tree(CommitId(state.commit)))
        except LayerwrightError:  # a submodule, or a part of a partial clone, is not here
            return None
        return files if state_digest((path, entry.mode, entry.oid) for path, entry in files) == state.digest else None
