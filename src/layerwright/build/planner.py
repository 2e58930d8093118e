"""What a build would do, told without doing it: the walk of a build, which ends at the first stage that is not there. Nothing is pulled or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from layerwright.build.cabinet import Cabinet
from layerwright.build.facts import Known, gather
from layerwright.build.image_build import ImageBuild, Maker
from layerwright.build.image_sources import StageMustBeRebuilt
from layerwright.build.plan import Build, BuildPlan, Planned, PlannedImage, Reuse, Unknown
from layerwright.build.run import bases_first
from layerwright.build.session import Session
from layerwright.config.model import InternalBase
from layerwright.config.order import with_needs
from layerwright.layers.index import BadIndex
from layerwright.registry.client import Registry
from layerwright.stages.conveyor import (
    CommandStage,
    FromStage,
    GitArchiveStage,
    GitCacheStage,
    GitLatestPatchStage,
    ImportStage,
    Stage,
    conveyor,
)
from layerwright.stages.key import KeyDocument, stage_digest
from layerwright.storage.contract import MissingBlob
from layerwright.storage.records import Record


def plan(session: Session, names: Sequence[str]) -> BuildPlan:
    """Plan `names` and all they need. Raises what the configuration and the sources raise; registries are asked for `fromLatest` only."""
    reading = session.tiers.reading_only()
    elsewhere = None if reading.checks_bases else reading
    session = replace(session, cabinet=Cabinet(session.store, _nothing_fetched, elsewhere=elsewhere), tiers=reading, tell=lambda event: None)
    order = with_needs(session.config, names)
    known = gather(session, bases_first(session, order))
    found = {name: record for name, one in known.items() if (record := session.tiers.find_image(one.content)) is not None}
    for name, one in known.items():  # bases come first
        if name in found and session.tiers.checks_bases and not _stands_on_its_base(one, found):
            del found[name]
    return BuildPlan(commit=session.commit.id, images=tuple(_planned(session, known[name], found) for name in order))


def _stands_on_its_base(one: Known, found: Mapping[str, Record]) -> bool:
    """As a build has it; a base that is to be built may turn out another one."""
    image = one.facts.image
    if not isinstance(image.base, InternalBase):
        return True
    base = found.get(image.base.image)
    return base is not None and found[image.name].base_diff_ids == base.diff_ids


def _nothing_fetched() -> Registry:
    raise MissingBlob("a layer is not in the store, and a plan fetches nothing", mend="build the image")


def _planned(session: Session, one: Known, found: Mapping[str, Record]) -> PlannedImage:
    image = one.facts.image
    record = found.get(image.name)
    return PlannedImage(
        name=image.name,
        final=image.final,
        content_digest=one.content,
        is_built=record is not None,
        stages=_reused_whole(record) if record is not None else _walked(session, one, found),
    )


def _reused_whole(record: Record) -> tuple[Planned, ...]:
    return tuple(Reuse(stage=step.stage, record=record, reason=f"found, built at {step.commit}") for step in record.steps)


def _walked(session: Session, one: Known, found: Mapping[str, Record]) -> tuple[Planned, ...]:
    walk = _PlanWalk(session=session, image=one.facts.image, facts=one.facts, content=one.content, sources=one.sources, done=found)
    return walk.stages()


class _Ends(Exception):
    """The rest of the walk cannot be known. `until`: what must be built first."""

    def __init__(self, until: str) -> None:
        super().__init__(until)
        self.until = until


@dataclass(kw_only=True)
class _PlanWalk(ImageBuild):
    """A build of one image that takes what is there and ends where something must be made."""

    planned: list[Planned] = field(default_factory=list)

    def stages(self) -> tuple[Planned, ...]:
        while True:
            self.session.cancel.check()
            self.planned.clear()
            try:
                self._walk()
                return tuple(self.planned)
            except StageMustBeRebuilt as conflict:
                self._take(conflict)
            except _Ends as end:
                return (*self.planned, *self._beyond(end.until))
            except (MissingBlob, BadIndex) as missing:
                return (*self.planned, *self._beyond("what it needs is in the store", because=missing))

    def _take(self, conflict: StageMustBeRebuilt) -> None:
        for stage, paths in conflict.conflicts.items():
            self._conflicts.setdefault(stage, {}).update(paths)

    def _stage(self, stage: Stage, previous: Record | None) -> Record | None:
        match stage:
            case FromStage() if isinstance(self.image.base, InternalBase):
                self._needs(self.image.base.image)
            case ImportStage(imports=imports):
                for one in imports:
                    self._needs(one.image)
            case _:
                pass
        return super()._stage(stage, previous)

    def _needs(self, image: str) -> None:
        if image not in self.done:
            raise _Ends(f"image {image or '~'} is built")

    def _find_or_build(self, document: KeyDocument, prepare: Callable[[], Maker], blamed: Mapping[bytes, str | None] | None = None) -> Record:
        decision = self._decide(document, stage_digest(document), blamed)
        if isinstance(decision, Build):
            self._look_for_conflicts(document.stage, prepare)
            self._end_with(decision)
        self.planned.append(decision)
        return decision.record

    def _look_for_conflicts(self, stage: str, prepare: Callable[[], Maker]) -> None:
        """Changed sources that an earlier stage had written over send the walk back to that stage, as they do when it is built."""
        if stage not in self.image.commands:
            return
        try:
            prepare()
        except (MissingBlob, BadIndex):
            pass  # a layer of ours is damaged: which stage that makes new is found when it is built

    def _built(self, stage: str, reason: str, make: Callable[[], Record]) -> Record:
        if stage not in ("dockerInstructions", "imageSpec"):
            self._end_with(Build(stage=stage, digest=None, reason=reason))
        record = make()  # a changed config only: nothing is written
        self.planned.append(Build(stage=stage, digest=None, reason=reason))
        return record

    def _end_with(self, build: Build) -> NoReturn:
        self.planned.append(build)
        raise _Ends(f"{build.stage} is built")

    def _beyond(self, until: str, because: MissingBlob | BadIndex | None = None) -> list[Planned]:
        """The stages behind the planned ones. A stage that brings the sources up to date on its way leaves gitCache and gitLatestPatch nothing to do."""
        stages = conveyor(self.image)
        names = [stage.name for stage in stages]
        first = names.index(self.planned[-1].stage) + 1 if self.planned else 0
        to_be_built = stages[first - 1 :] if self.planned and isinstance(self.planned[-1], Build) else stages[first:]
        is_updated = any(isinstance(stage, GitArchiveStage | CommandStage) for stage in to_be_built)
        ahead = [stage.name for stage in stages[first:] if not (is_updated and isinstance(stage, GitCacheStage | GitLatestPatchStage))]
        why = f" ({because})" if because is not None else ""
        return [Unknown(stage=name, reason=f"unknown until {until}{why}") for name in ahead]
