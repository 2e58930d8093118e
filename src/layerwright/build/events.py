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


class ImageStarted(NamedTuple):
    """Work on the image begins: all it is made from is there."""

    image: str


class StageReused(NamedTuple):
    image: str
    stage: str
    digest: str  # of the stage, or the content digest of the image where the stage has none of its own
    commit: str  # it was built at
    size_bytes: int  # of all layers up to here, uncompressed; -1 if not known
    added_bytes: int  # of this stage's own layers; -1 if not known
    source: str = "local"  # where it was found: "local", "repo", "secondary", "cache-repo"


class ImageFound(NamedTuple):
    """The finished image is in the repository, which was asked for its name and nothing more. `name`: REPOSITORY:TAG; `manifest`: its digest."""

    image: str
    content_digest: str
    name: str
    manifest: str


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
    """`log`: what the commands printed; of very much only the end."""

    image: str
    stage: str
    log: str


class StateKept(NamedTuple):
    """The state of a stage was kept under the id `state`: after its failed command, before its commands (of which one failed), or as it was built."""

    image: str
    stage: str
    moment: Literal["error", "before-error", "stage"]
    state: str


class Progress(NamedTuple):
    """How many bytes of one thing have moved so far. `done` starts again where a transfer has to.

    `subject`: a repository for "pull" and "push", the destination for "export", else "". `part`: which blob or layer, 12 hex digits; "" for a
    whole image. `total` is 0 if not known, and so is `image` "".
    """

    image: str
    action: Literal["pull", "push", "unpack", "export"]
    subject: str
    part: str
    done: int
    total: int
    finished: bool = False

    @property
    def what(self) -> str:
        return " ".join(one for one in (self.action, self.subject, self.part) if one)


class ContainerStarts(NamedTuple):
    """A container of the image is about to run on the caller's own terminal or pipes: from here on these are its."""

    image: str


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


class Detail(NamedTuple):
    """What only someone who looks for a fault wants to know. `topic`: "registry", "container", "layer"."""

    topic: str
    text: str
    image: str = ""


class BuildDone(NamedTuple):
    """The last event of a build, also of one that failed or was stopped. Bytes and requests: of all registries."""

    built: int  # stages
    reused: int
    pulled_bytes: int
    pushed_bytes: int
    requests: int
    seconds: float
    outcome: Literal["done", "failed", "cancelled"] = "done"


Event = (
    BuildStarted
    | ImageStarted
    | StageReused
    | ImageFound
    | StageStarted
    | StageOutput
    | StageBuilt
    | StageFailed
    | StateKept
    | Progress
    | ContainerStarts
    | ImageDone
    | Warned
    | Detail
    | BuildDone
)
Listener = Callable[[Event], None]
