"""Keeping the states of stages that somebody asked to look into: which stages are meant, and what of a run makes a kept state (`storage.kept_states`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from layerwright.build.events import StateKept, Warned
from layerwright.build.layer_makers import StageFailedError, command_environment, find_shell
from layerwright.build.session import Session
from layerwright.build.trees import CommandRun, CommandsDone, Left
from layerwright.config.faults import suggestion
from layerwright.config.model import Config, Image
from layerwright.config.select import select_images
from layerwright.errors import UsageError
from layerwright.stages.conveyor import ORDER, conveyor
from layerwright.stages.instructions import apply_instructions
from layerwright.storage.kept_states import Failure, KeptState, Moment
from layerwright.storage.records import Record, StageDigest

FLAG = "--introspect-stage"


def chosen_stages(config: Config, built: Sequence[str], wanted: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """The stages to keep, by image. Each of `wanted` is "IMAGE/STAGE" or "STAGE", which is that of every image; `built` are the images of this run.

    IMAGE is a name, "~" or a pattern; "*" is every image. Raises UsageError for what names no stage of this run.
    """
    chosen: dict[str, frozenset[str]] = {}
    for text in wanted:
        for name, stage in _stages_meant(config, built, text):
            chosen[name] = chosen.get(name, frozenset()) | {stage}
    return chosen


def _stages_meant(config: Config, built: Sequence[str], text: str) -> list[tuple[str, str]]:
    pattern, _, stage = text.strip().rpartition("/")
    if stage not in ORDER:
        meant = suggestion(stage, ORDER)
        raise UsageError(
            f"{FLAG} {text}: {stage!r} is no stage",
            mend=f"{f'did you mean {meant!r}? ' if meant else ''}there are: {', '.join(ORDER)}; write IMAGE/STAGE or STAGE",
        )
    every = pattern in ("", "*")
    named = [image.name for image in config.images] if every else list(select_images(config, [pattern]))
    images = [config.image(name) for name in named if name in built]
    if not images:
        raise UsageError(f"{FLAG} {text}: {named[0] or '~'} is not built in this run", mend=f"name it: layerwright build {named[0] or '~'}")
    found = [(image.name, stage) for image in images if stage in _stage_names(image)]
    if not found:
        what = f"no image of this run has a stage {stage}" if every else f"image {images[0].shown!r} has no stage {stage}"
        there = dict.fromkeys(name for image in images for name in _stage_names(image))
        raise UsageError(f"{FLAG} {text}: {what}", where=str(images[0].position), mend=f"there are: {', '.join(there)}")
    return found


def _stage_names(image: Image) -> list[str]:
    return [stage.name for stage in conveyor(image)]


# States of stages that were built.


@dataclass(slots=True)
class Looks:
    """The stages of one image that are to be looked into, while it is built. A state is kept, and told of, where no lock is held that others wait for;
    whoever is told looks at it, and then the build goes on."""

    session: Session
    image: Image
    stages: frozenset[str]
    _coming: list[tuple[str, Record]] = field(default_factory=list)  # reached, but the walk may have to go back
    _done: dict[str, Record] = field(default_factory=dict)

    def reached(self, stage: str, record: Record) -> None:
        """The walk stands behind `stage`, which may have had nothing to do: then `record` is that of the stage before."""
        if stage in self.stages and record.steps[-1].stage == stage:
            self._coming.append((stage, record))

    def went_back(self) -> None:
        self._coming.clear()

    def keep(self) -> None:
        """The walk keeps what it has reached."""
        coming, self._coming = self._coming, []
        for stage, record in coming:
            before = self._done.get(stage)
            if before is None or before.chain_id != record.chain_id:
                self._done[stage] = record
                keep_stage(self.session, self.image, stage, record)

    def keep_of(self, finished: Record) -> None:
        """The image was found as it is."""
        self._coming = [(step.stage, as_of(self.session, self.image, step.stage, finished)) for step in finished.steps if step.stage in self.stages]
        self.end()

    def end(self) -> None:
        self.keep()
        for stage in sorted(self.stages - self._done.keys()):
            self.session.tell(Warned(text=f"{FLAG}: this build has nothing for the stage {stage}", image=self.image.name))


def keep_stage(session: Session, image: Image, stage: str, record: Record) -> None:
    """Keep the state right after `stage`, of which `record` is the record, with its trees: no registry will be needed to enter it."""
    session.trees.make(record.diff_ids, session.cancel)
    shell = find_shell(session.cabinet.stack(record.chain)) or ""
    commands = image.commands[stage].commands if stage in image.commands else ()
    state = KeptState(
        moment="stage",
        project=session.config.project,
        image=image.name,
        stage=stage,
        commit=record.commit,
        kept_ms=session.clock_ms(),
        flavour=session.store.flavour,
        layers=record.diff_ids,
        env=command_environment(session, record),
        mounts=record.mounts,
        network=session.options.network or image.network or "host",
        runtime=session.options.runtime,
        shell=shell,
        commands=commands,
    )
    _keep(session, state)


def as_of(session: Session, image: Image, stage: str, finished: Record) -> Record:
    """A finished image's record as it was after `stage`, one of its steps."""
    steps = finished.steps[: [step.stage for step in finished.steps].index(stage) + 1]
    kept = {step.stage for step in steps}
    chain = tuple(layer for layer in finished.chain if layer.image_level or layer.stage in kept)
    record = replace(finished, steps=steps, chain=chain, commit=steps[-1].commit)
    if stage == "imageSpec":
        return record
    found = next((one for step in reversed(steps) if (one := session.tiers.find(StageDigest(step.digest))) is not None), None)
    if found is None:  # no record of a stage is left: the finished image's variables are the nearest there is
        return record
    config = apply_instructions(found.config, image.docker) if stage == "dockerInstructions" and image.docker is not None else found.config
    return replace(record, config=config)


# States of stages that failed.


def keep_failed(session: Session, stage: str, run: CommandRun, error: StageFailedError, done: CommandsDone, left: Left | None) -> tuple[str, ...]:
    """Keep what was asked for of a stage that failed: the state before its commands, and, where `left` is given, the one that they left. Their ids."""
    wanted = session.options.introspect
    kept = []
    moments: list[Moment] = [*(("before-error",) if wanted.before_error else ()), *(("error",) if left else ())]
    for moment in moments:
        after = left if moment == "error" else None
        state = KeptState(
            moment=moment,
            project=run.project,
            image=run.image,
            stage=stage,
            commit=session.commit.id,
            kept_ms=session.clock_ms(),
            size_bytes=after.size_bytes if after else 0,
            flavour=session.store.flavour,
            layers=run.layers,
            env=run.env,
            mounts=run.mounts,
            network=run.network,
            runtime=done.runtime,
            shell=run.shell,
            commands=run.commands,
            failure=Failure(what=error.what, where=error.where, status=done.status, command=done.failed_command),
            cwd=after.cwd if after else "",
            exports=after.exports if after else "",
        )
        kept.append(_keep(session, state, after.path if after else None))
    return tuple(kept)


def _keep(session: Session, state: KeptState, made: str | None = None) -> str:
    kept = session.store.kept_states.keep(state, made)
    session.tell(StateKept(image=kept.image, stage=kept.stage, moment=kept.moment, state=kept.id))
    return kept.id
