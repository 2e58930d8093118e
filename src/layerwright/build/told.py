"""Events that both a real build and one with nothing to do give. Light: imported on the path where nothing is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerwright.build.events import Listener, StageReused, Warned
from layerwright.storage.records import Record

MOST_NAMED = 5


def tell_reused(tell: Listener, image: str, record: Record) -> None:
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
            )
        )


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
