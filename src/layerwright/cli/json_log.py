"""The log for programs: each event as one JSON object on a line of standard error. The names here are a promise; docs/terminal.md has the table."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TextIO

from layerwright.build.events import (
    BuildDone,
    BuildStarted,
    ContainerStarts,
    Detail,
    Event,
    ImageDone,
    ImageFound,
    ImageStarted,
    Progress,
    StageBuilt,
    StageFailed,
    StageOutput,
    StageReused,
    StageStarted,
    StateKept,
    Warned,
)

if TYPE_CHECKING:
    from layerwright.errors import LayerwrightError

NAMES: dict[type, str] = {
    BuildStarted: "build_started",
    ImageStarted: "image_started",
    StageReused: "stage_reused",
    ImageFound: "image_found",
    StageStarted: "stage_started",
    StageOutput: "stage_output",
    StageBuilt: "stage_built",
    StageFailed: "stage_failed",
    StateKept: "state_kept",
    Progress: "progress",
    ContainerStarts: "container_starts",
    ImageDone: "image_done",
    Warned: "warning",
    Detail: "detail",
    BuildDone: "build_done",
}
ERROR_FIELDS = ("what", "where", "mend", "exit_code")
HOST_CLEANUP_FIELDS = ("freed_bytes", "removed", "short_bytes")
PROGRESS_EVERY_S = 1.0
_FOR_NO_IMAGE = (Progress, Warned, Detail)  # where "" is no image; elsewhere it is the nameless one


class JsonLog:
    """Writes events to `err`. Quiet: only warnings and failures. Not thread-safe."""

    def __init__(self, err: TextIO, *, quiet: bool = False, debug: bool = False) -> None:
        self._err, self._quiet, self._debug = err, quiet, debug
        self._told: dict[tuple[str, str, str], float] = {}

    def __call__(self, event: Event) -> None:
        if self._quiet and not isinstance(event, Warned | StageFailed | StateKept):
            return
        if isinstance(event, Detail) and not self._debug:
            return
        if isinstance(event, Progress) and not self._is_due(event):
            return
        self._err.write(line_of(event) + "\n")
        self._err.flush()

    def _is_due(self, event: Progress) -> bool:
        """Of each thing that moves the first event, one a second, and the last."""
        key, now = (event.action, event.subject, event.part), time.monotonic()
        if event.finished:
            self._told.pop(key, None)
            return True
        if now - self._told.get(key, -PROGRESS_EVERY_S) < PROGRESS_EVERY_S:
            return False
        self._told[key] = now
        return True


def line_of(event: Event) -> str:
    """One event as a line, without its end."""
    fields: dict[str, Any] = event._asdict()
    for name, value in fields.items():
        if name == "image":
            fields[name] = value or (None if isinstance(event, _FOR_NO_IMAGE) else "~")
        elif name == "position" and value is not None:
            fields[name] = {"file": value.file, "line": value.line, "column": value.column}
        elif name in ("size_bytes", "added_bytes") and value < 0:
            fields[name] = None
        elif isinstance(value, float):
            fields[name] = round(value, 3)
    if isinstance(event, BuildStarted):
        fields["sets"] = [[name or "~" for name in names] for names in event.sets]
    return _encoded(NAMES[type(event)], fields)


def error_line(error: LayerwrightError) -> str:
    return error_text(error.what, where=error.where, mend=error.mend, exit_code=error.exit_code)


def error_text(what: str, *, where: str = "", mend: str = "", exit_code: int) -> str:
    """The last line of a run that failed."""
    return _encoded("error", {"what": what, "where": where, "mend": mend, "exit_code": exit_code})


def host_cleanup_text(*, freed_bytes: int, removed: int, short_bytes: int) -> str:
    """What the clean-up after a build did."""
    return _encoded("host_cleanup", dict(zip(HOST_CLEANUP_FIELDS, (freed_bytes, removed, short_bytes), strict=True)))


def _encoded(name: str, fields: dict[str, Any]) -> str:
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03d}Z"
    return json.dumps({"event": name, "time": stamp, **fields}, ensure_ascii=True)
