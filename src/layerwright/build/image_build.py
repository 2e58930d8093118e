"""One image, stage by stage: what is found is reused, what is not is built, and the finished image is published under its content digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NoReturn

from layerwright.build import base_images, introspection, layer_makers
from layerwright.build.at_work import working_on_stage
from layerwright.build.events import StageBuilt, StageReused, StageStarted, Warned
from layerwright.build.git_update import ARCHIVE, Chain, Update, changes_between, shown_changes
from layerwright.build.image_sources import ImageSources, StageMustBeRebuilt
from layerwright.build.options import HEALINGS
from layerwright.build.plan import Build, Decision, Reuse, decide
from layerwright.build.session import Session
from layerwright.build.sources import MappingSource, doubts
from layerwright.build.standing import Naming, document_of, extend, finished, git_layers_from, size_of, with_labels
from layerwright.build.told import tell_reused
from layerwright.config.model import Commands, Image, InternalBase
from layerwright.errors import LayerwrightError, UsageError
from layerwright.layers.compose import PathBlocked
from layerwright.layers.devices import BadDevices
from layerwright.layers.index import BadIndex
from layerwright.layers.stack import SymlinkLoop
from layerwright.layers.tar import BadLayer
from layerwright.runtime.foreign import refuse_foreign
from layerwright.runtime.namespace_refusals import IdOutside
from layerwright.stages.commands import command_inputs
from layerwright.stages.conveyor import (
    CommandStage,
    FromStage,
    GitArchiveStage,
    GitCacheStage,
    GitLatestPatchStage,
    ImageFacts,
    ImageSpecStage,
    ImportStage,
    InstructionsStage,
    Stage,
    conveyor,
)
from layerwright.stages.from_image import from_inputs
from layerwright.stages.git_archive import archive_inputs
from layerwright.stages.git_patch import cache_inputs, patch_inputs
from layerwright.stages.image_spec import apply_image_spec, spec_inputs
from layerwright.stages.imports import import_inputs
from layerwright.stages.instructions import apply_instructions, instructions_inputs
from layerwright.stages.key import Inputs, KeyDocument, stage_digest
from layerwright.storage.contract import MissingBlob
from layerwright.storage.records import ContentDigest, LayerRef, MappingState, Record, StageDigest

Maker = Callable[[], Record]


@dataclass(kw_only=True)
class ImageBuild:
    """Builds one image whose base and import sources are `done` already."""

    session: Session
    image: Image
    facts: ImageFacts
    content: ContentDigest
    sources: tuple[MappingSource, ...]
    done: Mapping[str, Record]
    introspected: frozenset[str] = frozenset()  # the stages whose states are kept
    rebuilt: bool = False
    _told: set[str] = field(default_factory=set)
    _untold: list[StageReused] = field(default_factory=list)  # until it is sure that the walk keeps these stages
    _conflicts: dict[str, dict[bytes, str | None]] = field(default_factory=dict)

    def run(self) -> Record:
        """The finished image's record. Raises what the stages raise."""
        if (found := self._found()) is not None:
            return self._reuse_whole(found)
        with self._alone(self.content):
            if (found := self._found()) is not None:
                return self._reuse_whole(found)
            for warning in doubts(self.image, self.sources):
                self.session.tell(warning)
            return self._walk_until_done()

    def _alone(self, digest: str) -> AbstractContextManager[None]:
        """Be the only one to build this; locks only save work, and nobody is to wait for a shell to end."""
        return nullcontext() if self.introspected else self.session.store.lock(digest, cancelled=self.session.cancel.is_set)

    def _walk_until_done(self) -> Record:
        damages = 0
        while True:
            self.session.cancel.check()
            try:
                return self._finish(self._walk())
            except StageMustBeRebuilt as conflict:
                self._untold.clear()
                self._looks.went_back()
                for stage, paths in conflict.conflicts.items():
                    self._conflicts.setdefault(stage, {}).update(paths)
            except (MissingBlob, BadIndex) as damage:  # what is damaged counts as absent now: the next walk builds it again
                damages += 1
                if damages > HEALINGS or not all(self.session.tiers.whole(record) for record in self.done.values()):
                    raise
                self.session.tell(Warned(text=f"{damage.what}; it is made again", image=self.image.name))
            except (BadDevices, BadLayer, IdOutside, SymlinkLoop) as bad:
                raise layer_makers.told_of(bad, self.image) from bad

    @property
    def naming(self) -> Naming:
        commit = self.session.commit
        return Naming(
            project=self.session.config.project, image=self.image.name, platform=str(self.facts.platform), commit=commit.id, commit_time_s=commit.time_s
        )

    def _found(self) -> Record | None:
        found = self.session.tiers.find_image(self.content)
        return found if found is not None and self._stands_on_its_base(found) else None

    def _stands_on_its_base(self, record: Record) -> bool:
        """Whether it has the layers that its base has now. A base that was lost and built again may have others; then what stands on it is built again, too."""
        base = self._base_record() if self.session.tiers.checks_bases else None
        return base is None or record.base_diff_ids == base.diff_ids

    def _reuse_whole(self, record: Record) -> Record:
        tell_reused(self.session.tell, self.image.name, record, source=self.session.tiers.source_of("image", record.digest))
        self._looks.keep_of(record)
        return record

    @cached_property
    def _git(self) -> ImageSources:
        return ImageSources(self.session, self.image, self.sources)

    @cached_property
    def _looks(self) -> introspection.Looks:
        return introspection.Looks(self.session, self.image, self.introspected)

    def _walk(self) -> Record:
        record: Record | None = None
        labelled = False
        for stage in conveyor(self.image):
            if isinstance(stage, InstructionsStage | ImageSpecStage) and not labelled:
                assert record is not None
                record, labelled = self._labelled(record), True
            with working_on_stage(stage.name):
                record = self._stage(stage, record)
            assert record is not None
            self._looks.reached(stage.name, record)
            if not self._untold:
                self._looks.keep()
        assert record is not None
        return record if labelled else self._labelled(record)

    def _stage(self, stage: Stage, previous: Record | None) -> Record | None:
        match stage:
            case FromStage():
                return self._from()
            case CommandStage():
                return self._commands(stage, _some(previous))
            case ImportStage():
                return self._imports(stage, _some(previous))
            case GitArchiveStage():
                return self._archive(_some(previous))
            case GitCacheStage():
                return self._cache(_some(previous))
            case GitLatestPatchStage():
                return self._latest_patch(_some(previous))
            case InstructionsStage(docker=docker):
                config = apply_instructions(_some(previous).config, docker)
                return self._config_stage(stage.name, _some(previous), instructions_inputs(docker), replace(_some(previous), config=config), history="docker")
            case ImageSpecStage(spec=spec):
                names = {"image": self.image.name, "project": self.session.config.project}
                config = apply_image_spec(_some(previous).config, spec, **names)
                history = None if spec.clear_history else "imageSpec"
                return self._config_stage(stage.name, _some(previous), spec_inputs(spec, **names), replace(_some(previous), config=config), history=history)

    # Reuse points: found by their digest, or built under its lock.

    def _find_or_build(self, document: KeyDocument, prepare: Callable[[], Maker], blamed: Mapping[bytes, str | None] | None = None) -> Record:
        """`prepare` plans, and may send the walk back; what it returns does the work."""
        digest = stage_digest(document)
        self.session.cancel.check()
        match self._decide(document, digest, blamed):
            case Reuse(record=record):
                return self._reused(record, document.stage)
            case Build():
                pass
        with self._alone(digest):
            match self._decide(document, digest, blamed):
                case Reuse(record=record):
                    return self._reused(record, document.stage)
                case Build(reason=reason):
                    make = prepare()
                    return self._built(document.stage, reason, lambda: self.session.tiers.publish(make()))

    def _decide(self, document: KeyDocument, digest: StageDigest, blamed: Mapping[bytes, str | None] | None) -> Decision:
        return decide(document.stage, digest, self.session.tiers.find(digest), blamed or {})

    def _reused(self, record: Record, stage: str) -> Record:
        own = sum(max(layer.size, 0) for layer in record.chain if layer.stage == stage and not layer.image_level)
        self._tell_reused_once(stage, record.digest, record, own)
        return record

    def _tell_reused_once(self, stage: str, digest: str, record: Record, added: int) -> None:
        if digest not in self._told:
            commit = next((step.commit for step in record.steps if step.digest == digest), record.commit)
            source = self.session.tiers.source_of("stage", digest)
            told = StageReused(image=self.image.name, stage=stage, digest=digest, commit=commit, size_bytes=size_of(record), added_bytes=added, source=source)
            self._untold.append(told)

    def _tell_reused_now(self) -> None:
        for event in self._untold:
            self._told.add(event.digest)
            self.session.tell(event)
        self._untold.clear()
        self._looks.keep()

    def _built(self, stage: str, reason: str, make: Callable[[], Record]) -> Record:
        self._tell_reused_now()
        self.session.tiers.before_work()
        self.session.tell(StageStarted(image=self.image.name, stage=stage, reason=reason))
        started = time.monotonic()
        record = make()
        self.rebuilt = True
        self._told.add(record.digest)
        added = sum(layer.size for layer in record.chain if layer.stage == stage and not layer.image_level and layer.size > 0)
        self.session.tell(
            StageBuilt(
                image=self.image.name,
                stage=stage,
                digest=record.digest,
                commit=record.commit,
                size_bytes=size_of(record),
                added_bytes=added,
                seconds=time.monotonic() - started,
            )
        )
        return record

    # The stages, in the conveyor's order.

    def _from(self) -> Record:
        document = document_of("from", str(self.facts.platform), self._base_record(), from_inputs(self.image, self.facts.base))

        def make() -> Record:
            if commands := [stage.commands for stage in conveyor(self.image) if isinstance(stage, CommandStage)]:
                self._refuse_foreign(commands[0])  # before a base is pulled in vain
            return base_images.build_from(self.session, self.image, document, self.naming, self._base_record())

        return self._find_or_build(document, lambda: make)

    def _base_record(self) -> Record | None:
        return self.done[self.image.base.image] if isinstance(self.image.base, InternalBase) else None

    def _commands(self, stage: CommandStage, previous: Record) -> Record:
        blamed = self._conflicts.get(stage.name, {})
        document = document_of(stage.name, str(self.facts.platform), previous, command_inputs(stage.commands, [one.facts for one in self.sources], blamed))

        def prepare() -> Maker:
            if git_layers_from(previous) == len(previous.chain):  # no sources yet
                return lambda: self._run_commands(stage, document, previous, list, None)
            changes, chain = self._git.changes(previous)
            update = self._git.update(previous, changes, chain)
            written = partial(self._git.written, update, previous, chain, stage.name, stage_digest(document))
            return lambda: self._run_commands(stage, document, previous, written, self._git.states())

        return self._find_or_build(document, prepare, blamed)

    def _refuse_foreign(self, commands: Commands) -> None:
        refuse_foreign(self.facts.platform, where=f"{commands.position}, image {self.image.shown!r}, stage {commands.stage}")

    def _run_commands(
        self,
        stage: CommandStage,
        document: KeyDocument,
        previous: Record,
        write_updates: Callable[[], list[LayerRef]],
        states: tuple[MappingState, ...] | None,
    ) -> Record:
        self._refuse_foreign(stage.commands)
        updates = write_updates()
        updated = replace(previous, chain=(*previous.chain, *updates))
        keep_failed = partial(introspection.keep_failed, self.session, stage.name)
        made = layer_makers.run_commands(self.session, self.image, stage.commands, updated, stage_digest(document), keep_failed)
        layers = [*updates, *([made] if made is not None else [])]
        return extend(
            previous, document, self.naming, layers=layers, config=previous.config, built_ms=self.session.clock_ms(), states=states, history="commands"
        )

    def _imports(self, stage: ImportStage, previous: Record) -> Record:
        selections = [layer_makers.select_import(self.session, one, self.done[one.image]) for one in stage.imports]
        checksums = [selection.checksum for selection in selections]
        document = document_of(stage.name, str(self.facts.platform), previous, import_inputs(stage.imports, checksums))

        def make() -> Record:
            for one, selection in zip(stage.imports, selections, strict=True):
                if selection.selection.is_empty:
                    text = f"import of {one.add!r} from {one.image!r} takes no file"
                    self.session.tell(Warned(text=text, position=one.position, image=self.image.name))
            try:
                layer = layer_makers.import_layer(self.session, self.image, selections, previous, stage.name, stage_digest(document))
            except (PathBlocked, SymlinkLoop, UsageError) as error:
                self._retry_above_present_sources(previous, error)
            layers = [layer] if layer is not None else []
            return extend(previous, document, self.naming, layers=layers, config=previous.config, built_ms=self.session.clock_ms(), history="imports")

        return self._find_or_build(document, lambda: make)

    def _retry_above_present_sources(self, previous: Record, error: LayerwrightError) -> NoReturn:
        """Older sources, which the present commit has changed since, may be all that the import fails for."""
        changes = self._git.changes(previous)[0] if git_layers_from(previous) < len(previous.chain) else []
        if not changes:
            raise error
        raise StageMustBeRebuilt({ARCHIVE: {change.path: change.new.state if change.new else None for change in changes}}) from error

    def _archive(self, previous: Record) -> Record:
        blamed = self._conflicts.get(ARCHIVE, {})
        document = document_of(ARCHIVE, str(self.facts.platform), previous, archive_inputs(self.image, blamed))

        def prepare() -> Maker:
            view = self.session.cabinet.stack(previous.chain)
            chain = Chain(previous.chain, view, view, len(previous.chain))
            return self._git_stage(document, previous, self._git.update(previous, changes_between({}, self._git.landed(chain)), chain), chain)

        return self._find_or_build(document, prepare, blamed)

    def _cache(self, previous: Record) -> Record:
        if self._git.up_to_date(previous):
            return previous
        changes, chain = self._git.changes(previous)
        sizes = self.session.repo.blob_sizes(change.new.source for change in changes if change.new is not None)
        changed_bytes = sum(sizes[change.new.source.repository, change.new.source.oid] for change in changes if change.new is not None)
        inputs = cache_inputs(changed_bytes)
        if inputs is None:
            return previous
        document = document_of("gitCache", str(self.facts.platform), previous, inputs)

        return self._find_or_build(document, lambda: self._git_stage(document, previous, self._git.update(previous, changes, chain), chain))

    def _latest_patch(self, previous: Record) -> Record:
        if self._git.up_to_date(previous):
            return previous
        changes, chain = self._git.changes(previous)
        if not changes:  # other paths, which lead to the same files
            return previous
        inputs = patch_inputs((change.path, change.new.state if change.new else None) for change in changes)
        document = document_of("gitLatestPatch", str(self.facts.platform), previous, inputs)

        make = self._git_stage(document, previous, self._git.update(previous, changes, chain), chain)
        return self._built("gitLatestPatch", f"{shown_changes(changes)} changed in git since {previous.commit[:12]}", make)

    def _git_stage(self, document: KeyDocument, previous: Record, update: Update, chain: Chain) -> Maker:
        def make() -> Record:
            layers = self._git.written(update, previous, chain, document.stage, stage_digest(document))
            return extend(
                previous,
                document,
                self.naming,
                layers=layers,
                config=previous.config,
                built_ms=self.session.clock_ms(),
                states=self._git.states(),
                history="git",
            )

        return make

    def _config_stage(self, name: str, previous: Record, inputs: Inputs, changed: Record, *, history: str | None) -> Record:
        document = document_of(name, str(self.facts.platform), previous, inputs)
        built_ms = self.session.clock_ms()
        return self._built(
            name,
            "the finished image is new",
            lambda: extend(changed, document, self.naming, layers=[], config=changed.config, built_ms=built_ms, history=history),
        )

    # The finished image.

    def _labelled(self, record: Record) -> Record:
        return with_labels(record, project=self.session.config.project, commit=self.session.commit.id, content=self.content)

    def _finish(self, record: Record) -> Record:
        self._tell_reused_now()
        self._looks.end()
        store = self.session.store
        sizes = {layer.diff_id: store.holding(layer.diff_id).size for layer in record.chain if layer.size < 0}
        done = finished(record, self.naming, content=self.content, built_ms=self.session.clock_ms(), sizes=sizes)
        return self.session.tiers.publish(done, accepts=self._stands_on_its_base)


def _some(record: Record | None) -> Record:
    assert record is not None, "`from` comes first"
    return record
