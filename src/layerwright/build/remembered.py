"""A build with nothing to do, in a repository: the images that are remembered are asked for by their names, and nothing else is done."""

from __future__ import annotations

import time

from layerwright.build.events import BuildDone, ImageDone, ImageFound
from layerwright.build.memo import Names
from layerwright.build.result import BuildResult, BuiltImage, Wanted
from layerwright.build.run import loader
from layerwright.build.session import Session


def found_in_repo(session: Session, remembered: Names, started_s: float) -> BuildResult | None:
    """The result, if the repository has every image; else None, and nothing is told. `started_s` is monotonic."""
    there = session.tiers.finished([content for _, _, content in remembered.images])
    if not all(content in there for _, _, content in remembered.images):
        return None
    images = []
    for name, final, content in remembered.images:
        placed = there[content]
        session.tell(ImageFound(image=name, content_digest=content, name=str(placed), manifest=placed.manifest))
        session.tell(ImageDone(image=name, content_digest=content, rebuilt=False))
        images.append(
            BuiltImage(name=name, final=final, project=remembered.project, content_digest=content, load=Wanted(loader(session, content)), placed=placed)
        )
    moved, seconds = session.traffic(), time.monotonic() - started_s
    session.tell(BuildDone(built=0, reused=0, pulled_bytes=moved.bytes_in, pushed_bytes=moved.bytes_out, requests=moved.requests, seconds=seconds))
    return BuildResult(
        commit=session.commit.id,
        images=tuple(images),
        built=0,
        reused=0,
        found=len(images),
        pulled_bytes=moved.bytes_in,
        pushed_bytes=moved.bytes_out,
        requests=moved.requests,
        seconds=seconds,
    )
