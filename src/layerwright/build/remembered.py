"""A build with nothing to do, in a repository: the images that are remembered are asked for by their names, and nothing else is done."""

from __future__ import annotations

import time
from collections.abc import Callable

from layerwright.build.events import BuildDone, ImageDone, ImageFound, Listener
from layerwright.build.memo import Names
from layerwright.build.options import Traffic
from layerwright.build.result import BuildResult, BuiltImage, Wanted
from layerwright.build.tiers import RepoTiers, loader


def found_in_repo(
    tiers: RepoTiers, commit: str, remembered: Names, tell: Listener, traffic: Callable[[], Traffic], started_s: float, before_the_end: Callable[[], object]
) -> BuildResult | None:
    """The result, if the repository has every image; else None, and nothing is told. `started_s` is monotonic; `before_the_end` as for told.tell_remembered."""
    there = tiers.finished([content for _, _, content in remembered.images])
    if not all(content in there for _, _, content in remembered.images):
        return None
    images = []
    for name, final, content in remembered.images:
        placed = there[content]
        tell(ImageFound(image=name, content_digest=content, name=str(placed), manifest=placed.manifest))
        tell(ImageDone(image=name, content_digest=content, rebuilt=False))
        images.append(
            BuiltImage(
                name=name,
                final=final,
                project=remembered.project,
                content_digest=content,
                load=Wanted(loader(tiers, content)),
                placed=placed,
                stage_repository=placed.repository,
            )
        )
    before_the_end()
    moved, seconds = traffic(), time.monotonic() - started_s
    tell(BuildDone(built=0, reused=0, pulled_bytes=moved.bytes_in, pushed_bytes=moved.bytes_out, requests=moved.requests, seconds=seconds))
    return BuildResult(
        commit=commit,
        images=tuple(images),
        built=0,
        reused=0,
        found=len(images),
        pulled_bytes=moved.bytes_in,
        pushed_bytes=moved.bytes_out,
        requests=moved.requests,
        seconds=seconds,
    )
