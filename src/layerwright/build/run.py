"""A whole build: every image in dependency order, independent ones at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Literal

from layerwright.build.at_work import working_on
from layerwright.build.events import BuildDone, BuildStarted, Event, ImageDone, ImageStarted, Listener, StageBuilt, StageReused
from layerwright.build.facts import Known, gather
from layerwright.build.image_build import ImageBuild
from layerwright.build.introspection import chosen_stages
from layerwright.build.options import HEALINGS
from layerwright.build.result import BuildResult, BuiltImage
from layerwright.build.session import Session
from layerwright.config.order import sets, with_needs
from layerwright.errors import Cancelled
from layerwright.layers.index import BadIndex
from layerwright.storage.contract import MissingBlob
from layerwright.storage.records import Record

LOOK_UP_S = 0.25  # a signal that came just before a wait is handled when the wait ends, so no wait is without end


class _Tally:
    """Hands events on, one at a time, and counts."""

    def __init__(self, tell: Listener) -> None:
        self._tell = tell
        self._guard = threading.Lock()
        self.built = self.reused = 0
        self.seconds: dict[str, dict[str, float]] = {}

    def __call__(self, event: Event) -> None:
        with self._guard:
            match event:
                case StageReused():
                    self.reused += 1
                case StageBuilt(image=image, stage=stage, seconds=seconds):
                    self.built += 1
                    self.seconds.setdefault(image, {})[stage] = seconds
            self._tell(event)


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
    known = gather(session, bases_first(session, order))
    done = _build_all(session, known, introspected)
    traffic = session.traffic()
    images = tuple(
        BuiltImage(name=name, final=session.config.image(name).final, record=done[name], seconds_by_stage=tally.seconds.get(name, {})) for name in order
    )
    return BuildResult(
        commit=session.commit.id,
        images=images,
        built=sum(len(image.seconds_by_stage) for image in images),
        reused=tally.reused,
        pulled_bytes=traffic.bytes_in,
        requests=traffic.requests,
        seconds=time.monotonic() - started,
    )


def bases_first(session: Session, order: Sequence[str]) -> list[str]:
    placed: list[str] = []
    for level in sets(session.config, order):
        placed += [name for name in level if name in order]
    return placed


def _build_all(session: Session, known: Mapping[str, Known], introspected: Mapping[str, frozenset[str]]) -> dict[str, Record]:
    done: dict[str, Record] = {}
    waiting = dict(known)
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
                    waiting |= {again: known[again] for again in (*broken, name)}
                elif failed is None or isinstance(failed, Cancelled):
                    failed = error
                    session.cancel.set()
    if failed is not None:
        raise failed
    return done


def _broken(session: Session, done: Mapping[str, Record]) -> list[str]:
    """Images that were finished, and of which something turned out damaged when another image needed it."""
    return [name for name, record in done.items() if not session.store.whole(record)]


def _build_one(session: Session, one: Known, done: Mapping[str, Record], introspected: frozenset[str]) -> Record:
    name = one.facts.image.name
    session.tell(ImageStarted(image=name))
    build = ImageBuild(session=session, image=one.facts.image, facts=one.facts, content=one.content, sources=one.sources, done=done, introspected=introspected)
    with working_on(name):
        record = build.run()
    session.tell(ImageDone(image=name, content_digest=record.digest, rebuilt=build.rebuilt))
    return record
