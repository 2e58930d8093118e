"""A build with nothing to do, in a repository: the images that are remembered are asked for by their names, and nothing else is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from layerwright.build.events import BuildDone, ImageDone, ImageFound, Listener
from layerwright.build.memo import NamedImage, Names
from layerwright.build.options import Traffic
from layerwright.build.result import BuildResult, BuiltImage, Placed, Wanted
from layerwright.build.tiers import RepoTiers, loader


def _built(tiers: RepoTiers, project: str, one: NamedImage, placed: Placed) -> BuiltImage:
    platforms = [
        replace(_built(tiers, project, NamedImage(one.name, one.final, content), Placed(placed.repository, content, "")), platform=platform)
        for platform, content in one.platforms
    ]
    return BuiltImage(
        name=one.name,
        final=one.final,
        project=project,
        content_digest=one.content,
        load=platforms[0].load if platforms else Wanted(loader(tiers, one.content)),
        placed=placed,
        stage_repository=placed.repository,
        platforms=tuple(platforms),
    )


def found_in_repo(
    tiers: RepoTiers, commit: str, remembered: Names, tell: Listener, traffic: Callable[[], Traffic], started_s: float, before_the_end: Callable[[], object]
) -> BuildResult | None:
    """The result, if the repository has every image; else None, and nothing is told. `started_s` is monotonic; `before_the_end` as for told.tell_remembered."""
    there = tiers.finished([one.content for one in remembered.images])
    if not all(one.content in there for one in remembered.images):
        return None
    images = []
    for one in remembered.images:
        placed = there[one.content]
        tell(ImageFound(image=one.name, content_digest=one.content, name=str(placed), manifest=placed.manifest))
        tell(ImageDone(image=one.name, content_digest=one.content, rebuilt=False))
        images.append(_built(tiers, remembered.project, one, placed))
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
