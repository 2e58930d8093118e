"""A whole build: every image in dependency order, independent ones at once; for several platforms one after the other."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Literal

from layerwright.build.at_work import working_on
from layerwright.build.events import BuildDone, BuildStarted, Event, ImageDone, ImageFound, ImageStarted, Listener, StageBuilt, StageReused
from layerwright.build.facts import Known, gather
from layerwright.build.image_build import ImageBuild
from layerwright.build.introspection import chosen_stages
from layerwright.build.options import HEALINGS
from layerwright.build.result import BuildResult, BuiltImage, Held, Placed, Wanted
from layerwright.build.session import Session
from layerwright.build.tiers import loader
from layerwright.config.order import sets, with_needs
from layerwright.errors import Cancelled, LayerwrightError
from layerwright.layers.index import BadIndex
from layerwright.oci.platform import Platform
from layerwright.stages.key import platforms_digest
from layerwright.storage.contract import MissingBlob
from layerwright.storage.records import ContentDigest, Record

LOOK_UP_S = 0.25  # a signal that came just before a wait is handled when the wait ends, so no wait is without end


class NotBuilt(LayerwrightError):
    """An image is not built, and was not to be built now (--require-built-images)."""


class _Tally:
    """Hands events on, one at a time, and counts."""

    def __init__(self, tell: Listener) -> None:
        self._tell = tell
        self._guard = threading.Lock()
        self.built = self.reused = self.found = 0
        self.seconds: dict[str, dict[str, float]] = {}
        self.sources: dict[str, dict[str, str]] = {}

    def __call__(self, event: Event) -> None:
        with self._guard:
            match event:
                case StageReused(image=image, stage=stage, source=source):
                    self.reused += 1
                    self.sources.setdefault(image, {})[stage] = source
                case StageBuilt(image=image, stage=stage, seconds=seconds):
                    self.built += 1
                    self.seconds.setdefault(image, {})[stage] = seconds
                case ImageFound():
                    self.found += 1
            self._tell(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """The images of one platform, or of all where each has just one; what is known of them, and what came of it."""

    session: Session
    order: tuple[str, ...]
    known: Mapping[str, Known]
    done: dict[str, Record] = field(default_factory=dict)
    there: dict[str, Placed] = field(default_factory=dict)


def build(session: Session, names: Sequence[str]) -> BuildResult:
    """Build `names` and all they need. The first error stops what has not begun, and is raised when what runs has ended."""
    started = time.monotonic()
    tally = _Tally(session.tell)
    session = replace(session, tell=tally)
    outcome: Literal["done", "failed", "cancelled"] = "failed"
    try:
        result = _build(session, names, tally, started)
        outcome = "done"
        return result
    except Cancelled:
        outcome = "cancelled"
        raise
    finally:
        moved = session.traffic()
        session.tell(
            BuildDone(
                built=tally.built,
                reused=tally.reused,
                pulled_bytes=moved.bytes_in,
                pushed_bytes=moved.bytes_out,
                requests=moved.requests,
                seconds=time.monotonic() - started,
                outcome=outcome,
            )
        )


def _build(session: Session, names: Sequence[str], tally: _Tally, started: float) -> BuildResult:
    order = with_needs(session.config, names)
    session.store.sweep_work()
    session.tell(BuildStarted(commit=session.commit.id, sets=sets(session.config, names)))
    introspected = chosen_stages(session.config, order, session.options.introspect.stages)
    passes = _passes(session, order)
    wholes = {name: _whole_digest(passes, name) for name in order}
    there = session.tiers.finished(wholes.values()) if not introspected else {}
    missing = [name for name in order if wholes[name] not in there]
    for name in order:
        if (placed := there.get(wholes[name])) is not None:
            _tell_found(session, name, placed)
    absent: dict[str, list[str]] = {}
    for one in passes:
        for name in _run_pass(one, [name for name in one.order if name in missing], introspected, asked=set(wholes.values())):
            absent.setdefault(name or "~", []).append(one.session.shown(name) or "~")
    if absent:
        raise _not_built(session, absent)
    images = tuple(_built(session, passes, name, wholes[name], there.get(wholes[name]), tally) for name in order)
    traffic = session.traffic()
    return BuildResult(
        commit=session.commit.id,
        images=images,
        built=tally.built,
        reused=tally.reused,
        found=tally.found,
        pulled_bytes=traffic.bytes_in,
        pushed_bytes=traffic.bytes_out,
        requests=traffic.requests,
        seconds=time.monotonic() - started,
    )


# Platforms.


def _passes(session: Session, order: Sequence[str]) -> list[_Pass]:
    wanted = {name: session.platforms_of(session.config.image(name)) for name in order}
    if all(len(platforms) == 1 for platforms in wanted.values()):
        return [_Pass(session=session, order=tuple(order), known=gather(session, bases_first(session, order)))]
    platforms = dict.fromkeys(one for name in order for one in wanted[name])
    return [_pass_of(session, platform, [name for name in order if platform in wanted[name]]) for platform in platforms]


def _pass_of(session: Session, platform: Platform, order: Sequence[str]) -> _Pass:
    label = str(platform)
    own = replace(session, platform=platform, platforms=(platform,), platform_forced=True, label=label, tell=_labelled(session.tell, label))
    return _Pass(session=own, order=tuple(order), known=gather(own, bases_first(own, order)))


def _labelled(tell: Listener, label: str) -> Listener:
    """Tells of each image with its platform."""

    def told(event: Event) -> None:
        named = "image" in event._fields and not (event._fields[0] != "image" and not getattr(event, "image", ""))
        tell(event._replace(image=f"{event.image or '~'} ({label})") if named else event)  # type: ignore[union-attr, call-arg]

    return told


def _whole_digest(passes: Sequence[_Pass], name: str) -> ContentDigest:
    """Of an image for one platform its own, whatever others are built for."""
    digests = [one.known[name].content for one in passes if name in one.known]
    return digests[0] if len(digests) == 1 else platforms_digest(digests)


def bases_first(session: Session, order: Sequence[str]) -> list[str]:
    placed: list[str] = []
    for level in sets(session.config, order):
        placed += [name for name in level if name in order]
    return placed


# One pass.


def _tell_found(session: Session, name: str, placed: Placed) -> None:
    session.tell(ImageFound(image=name, content_digest=placed.tag, name=str(placed), manifest=placed.manifest))
    session.tell(ImageDone(image=name, content_digest=placed.tag, rebuilt=False))


def _run_pass(one: _Pass, wanted: Sequence[str], introspected: Mapping[str, frozenset[str]], *, asked: Collection[ContentDigest]) -> list[str]:
    """Build what is wanted of a pass, and what that needs; the rest of it is not looked at. Where nothing may be built: what would have to be, as it is shown."""
    session = one.session
    if session.label and not introspected:
        found = session.tiers.finished([content for name in wanted if (content := one.known[name].content) not in asked])
        one.there.update({name: placed for name in wanted if (placed := found.get(one.known[name].content)) is not None})
        for name, placed in one.there.items():
            _tell_found(session, name, placed)
    to_build = [name for name in wanted if name not in one.there]
    if session.options.require_built:
        return [name for name in to_build if not _taken(one, name)]
    one.done.update(_build_all(session, one.known, introspected, to_build))
    return []


def _taken(one: _Pass, name: str) -> bool:
    """Whether some storage has it; it is in the repository then."""
    session = one.session
    record = session.tiers.find_image(one.known[name].content)
    if record is None:
        return False
    one.done[name] = record
    if (placed := session.tiers.placed(record)) is not None:
        _tell_found(session, name, placed)
    else:
        session.tell(ImageDone(image=name, content_digest=record.digest, rebuilt=False))
    return True


def _not_built(session: Session, absent: Mapping[str, Sequence[str]]) -> NotBuilt:
    """`absent`: what lacks, by image."""
    shown = ", ".join(one for several in absent.values() for one in several)
    what = f"not built at commit {session.commit.id[:12]}: {shown}"
    return NotBuilt(what, where="--require-built-images", mend=f"run first: {how_to_build(session, list(absent))}")


def how_to_build(session: Session, names: Sequence[str]) -> str:
    """What to type; options that have no say in where the images are kept are left to whoever types it."""
    platforms = ["--platform", ",".join(map(str, session.platforms))] if session.platform_forced else []
    repository = ["--repo", session.tiers.repository] if session.tiers.repository else []
    return shlex.join(["layerwright", "build", *names, *platforms, *repository])


def _build_all(session: Session, known: Mapping[str, Known], introspected: Mapping[str, frozenset[str]], wanted: Collection[str]) -> dict[str, Record]:
    done: dict[str, Record] = {}
    waiting: dict[str, Known] = {}
    for name in known:  # bases come first
        if name in wanted:
            _plan(session, known, name, waiting, done)
    session.cabinet.keeps = session.cabinet.keeps or any(one.facts.image.commands for one in waiting.values())
    healings = HEALINGS
    at_once = 1 if session.options.introspect.wanted else max(1, session.options.parallel)
    with ThreadPoolExecutor(at_once, thread_name_prefix="image") as pool:
        running: dict[Future[Record], str] = {}
        failed: BaseException | None = None
        while waiting or running:
            if failed is None:
                for name in [name for name, one in waiting.items() if all(need in done for need in one.facts.image.needs)]:
                    running[pool.submit(_build_one, session, waiting.pop(name), dict(done), introspected.get(name, frozenset()))] = name
            if not running:
                break
            finished, _ = wait(running, timeout=LOOK_UP_S, return_when=FIRST_COMPLETED)
            for future in finished:
                name = running.pop(future)
                error = future.exception()
                if error is None:
                    done[name] = future.result()
                elif isinstance(error, MissingBlob | BadIndex) and healings > 0 and (broken := _broken(session, done)):
                    healings -= 1
                    for again in broken:
                        del done[again]
                    for again in (*broken, name):
                        _plan(session, known, again, waiting, done)
                elif failed is None or isinstance(failed, Cancelled):
                    failed = error
                    session.cancel.set()
    if failed is not None:
        raise failed
    return done


def _plan(session: Session, known: Mapping[str, Known], name: str, waiting: dict[str, Known], done: dict[str, Record]) -> None:
    """Have an image built, and each that it needs, unless that is in a repository: then its record is enough."""
    if name in waiting or name in done:
        return
    waiting[name] = known[name]
    for need in known[name].facts.image.needs:
        if need in waiting or need in done:
            continue
        record = session.tiers.find_image(known[need].content) if not session.tiers.checks_bases else None
        if record is not None:
            done[need] = record
        else:
            _plan(session, known, need, waiting, done)


def _broken(session: Session, done: Mapping[str, Record]) -> list[str]:
    """Images that were finished, and of which something turned out damaged when another image needed it."""
    return [name for name, record in done.items() if not session.tiers.whole(record)]


def _build_one(session: Session, one: Known, done: Mapping[str, Record], introspected: frozenset[str]) -> Record:
    name = one.facts.image.name
    session.tell(ImageStarted(image=name))
    build = ImageBuild(session=session, image=one.facts.image, facts=one.facts, content=one.content, sources=one.sources, done=done, introspected=introspected)
    with working_on(session.shown(name)):
        record = build.run()
    session.tell(ImageDone(image=name, content_digest=record.digest, rebuilt=build.rebuilt))
    return record


def find(session: Session, name: str) -> BuiltImage | None:
    """The finished image if it is built, else None; where there is a repository, if it is there. Nothing is built or written."""
    passes = _passes(session, with_needs(session.config, [name]))
    tally = _Tally(lambda event: None)
    digest = _whole_digest(passes, name)
    placed = session.tiers.finished([digest]).get(digest)
    if placed is None and session.tiers.repository:
        return None
    if placed is None:
        for one in passes:
            if name in one.known and (record := session.tiers.find_image(one.known[name].content)) is not None:
                one.done[name] = record
        if not all(name in one.done for one in passes if name in one.known):
            return None
    return _built(session, passes, name, digest, placed, tally)


# The result.


def _built(session: Session, passes: Sequence[_Pass], name: str, digest: ContentDigest, placed: Placed | None, tally: _Tally) -> BuiltImage:
    """The image as it now is, for one platform or several."""
    final, project = session.config.image(name).final, session.config.project
    parts = [one for one in passes if name in one.known]
    if len(parts) == 1:
        return _one_built(parts[0], name, placed, tally)
    platforms = tuple(_one_built(one, name, one.there.get(name) or _beside(placed, one.known[name].content), tally) for one in parts)
    if placed is None and not all(one.placed is None for one in platforms):
        placed = session.tiers.publish_index(digest, [(one.session.platform, image.record) for one, image in zip(parts, platforms, strict=True)])
    return BuiltImage(name=name, final=final, project=project, content_digest=digest, load=platforms[0].load, placed=placed, platforms=platforms)


def _beside(whole: Placed | None, content: ContentDigest) -> Placed | None:
    """What the image of one platform is called where that of all is; nobody asked for its manifest."""
    return Placed(whole.repository, content, "") if whole is not None else None


def _one_built(one: _Pass, name: str, placed: Placed | None, tally: _Tally) -> BuiltImage:
    session, content = one.session, one.known[name].content
    shown = session.shown(name)
    record = one.done.get(name)
    sources = tally.sources.get(shown, {})
    placed = placed or (session.tiers.placed(record) if record is not None else None)
    return BuiltImage(
        name=name,
        final=session.config.image(name).final,
        project=session.config.project,
        content_digest=content,
        load=Held(record) if record is not None else Wanted(loader(session.tiers, content)),
        seconds_by_stage=tally.seconds.get(shown, {}),
        sources=sources,
        moved_by_stage={stage: tuple(session.ledger.of(shown, stage)) for stage in (*tally.seconds.get(shown, ()), *sources, "")},  # type: ignore[misc]
        placed=placed,
        stage_repository=placed.repository if placed is not None else "",
        platform=str(one.known[name].facts.platform),
    )
