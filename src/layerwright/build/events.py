"""What a build tells while it runs: one value for each thing that happened, in order for each image. Whoever listens prints; a build prints nothing.

Named tuples, because these classes are made at every start and frozen dataclasses take three times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from layerwright.config.position import Position


class BuildStarted(NamedTuple):
    """`sets`: names of the images that may be built at once, in dependency order."""

    commit: str
    sets: tuple[tuple[str, ...], ...]


class StageReused(NamedTuple):
    image: str
    stage: str
    digest: str  # of the stage, or the content digest of the image where the stage has none of its own
    commit: str  # it was built at
    size_bytes: int  # of all layers up to here, uncompressed; -1 if not known
    added_bytes: int  # of this stage's own layers; -1 if not known


class StageStarted(NamedTuple):
    image: str
    stage: str
    reason: str  # why it is not reused: a named input, a path, "no stage <digest> in storage"


class StageOutput(NamedTuple):
    """One line a command of the stage printed, without its newline; bytes that are not UTF-8 replaced."""

    image: str
    stage: str
    text: str


class StageBuilt(NamedTuple):
    image: str
    stage: str
    digest: str
    commit: str
    size_bytes: int
    added_bytes: int
    seconds: float


class StageFailed(NamedTuple):
    """`log`: everything the commands printed."""

    image: str
    stage: str
    log: str


class Progress(NamedTuple):
    """Bytes moved so far of one thing: "pull 127.0.0.1:5000/base sha256:ab12…", "unpack …", "write layer". `total` is 0 if not known."""

    image: str
    what: str
    done: int
    total: int
    finished: bool = False


class ImageDone(NamedTuple):
    """`rebuilt`: at least one stage was built in this run."""

    image: str
    content_digest: str
    rebuilt: bool


class Warned(NamedTuple):
    """`position` is None where no file is to blame."""

    text: str
    position: Position | None = None
    image: str = ""


class BuildDone(NamedTuple):
    built: int  # stages
    reused: int
    pulled_bytes: int
    requests: int
    seconds: float
    outcome: Literal["done", "failed", "cancelled"] = "done"


Event = BuildStarted | StageReused | StageStarted | StageOutput | StageBuilt | StageFailed | Progress | ImageDone | Warned | BuildDone
Listener = Callable[[Event], None]
