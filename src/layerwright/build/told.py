"""Events that both a real build and one with nothing to do give. Light: imported on the path where nothing is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerwright.build.events import BuildDone, Event, ImageDone, Listener, Progress, StageReused, Warned
from layerwright.build.memo import Place, Remembered
from layerwright.build.result import BuildResult, BuiltImage, Held
from layerwright.storage.records import Record

if TYPE_CHECKING:
    from layerwright.git.values import PathFilter
    from layerwright.registry.options import Transfer

MOST_NAMED = 5


def tell_reused(tell: Listener, image: str, record: Record, *, source: str = "local") -> None:
    """One event for each stage of a finished image that was found."""
    total = 0
    known = True
    sizes: dict[str, int] = {}
    for layer in record.chain:
        known = known and layer.size >= 0
        total += layer.size
        if not layer.image_level:
            sizes[layer.digest] = sizes.get(layer.digest, 0) + layer.size
    for step in record.steps:
        tell(
            StageReused(
                image=image,
                stage=step.stage,
                digest=step.digest,
                commit=step.commit,
                size_bytes=total if known else -1,
                added_bytes=max(sizes.get(step.digest, 0), -1),
                source=source,
            )
        )


def tell_remembered(tell: Listener, commit: str, found: Remembered, started_s: float, before_the_end: Callable[[], object]) -> BuildResult:
    """What a build with nothing to do tells and gives. `before_the_end` is called when only the last event is left; `started_s` is monotonic."""
    for name, _, record in found.images:
        tell_reused(tell, name, record)
        tell(ImageDone(image=name, content_digest=record.digest, rebuilt=False))
    before_the_end()
    images = tuple(
        BuiltImage(
            name=name,
            final=final,
            project=record.project,
            content_digest=record.digest,
            load=Held(record),
            sources={step.stage: "local" for step in record.steps},
        )
        for name, final, record in found.images
    )
    reused = sum(len(record.steps) for _, _, record in found.images)
    seconds = time.monotonic() - started_s
    tell(BuildDone(built=0, reused=reused, pulled_bytes=0, pushed_bytes=0, requests=0, seconds=seconds))
    return BuildResult(commit=commit, images=images, built=0, reused=reused, pulled_bytes=0, requests=0, seconds=seconds)


def tell_warnings(tell: Listener, warnings: Sequence[tuple[str, Place | None]]) -> None:
    """`warnings` of the configuration: text, and position or None."""
    if warnings:
        from layerwright.config.position import Position

        for text, place in warnings:
            tell(Warned(text=text, position=Position(*place) if place else None))


def transferred(transfer: Transfer) -> Progress:
    """What a registry's transfer is for those who listen."""
    from layerwright.build.at_work import image_at_work

    return Progress(
        image=image_at_work(),
        action=transfer.direction,
        subject=transfer.reference.partition("@")[0],
        part=transfer.digest[7:19],
        done=transfer.done_bytes,
        total=transfer.total_bytes,
        finished=transfer.done_bytes >= transfer.total_bytes,
    )


def as_filter(wanted: PathFilter) -> dict[str, Any]:
    """A filter as a memo keeps it."""
    return {"base": wanted.base.decode("utf-8", "surrogateescape"), "includes": list(wanted.includes), "excludes": list(wanted.excludes)}


def uncommitted_warning(differing: Sequence[bytes], filters: Sequence[Mapping[str, Any]]) -> Warned | None:
    """Names the files that git mappings match and that differ from the commit; None if there are none."""
    from layerwright.git.values import PathFilter

    wanted = [
        PathFilter(base=one["base"].encode("utf-8", "surrogateescape"), includes=tuple(one["includes"]), excludes=tuple(one["excludes"])) for one in filters
    ]
    matched = [path for path in differing if any(one.takes(path) for one in wanted)]
    if not matched:
        return None
    named = ", ".join(path.decode("utf-8", "backslashreplace") for path in matched[:MOST_NAMED])
    more = f" and {len(matched) - MOST_NAMED} more" if len(matched) > MOST_NAMED else ""
    return Warned(text=f"uncommitted changes are not in the images: {named}{more}; commit them to build them")


def one_at_a_time(on_event: Listener) -> Listener:
    """Images are built and bytes moved in several threads; who listens need not know."""
    guard = threading.Lock()

    def tell(event: Event) -> None:
        with guard:
            on_event(event)

    return tell
