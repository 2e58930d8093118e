"""Folding a log in CI: what a stage's commands print stands in a fold of its own, of which GitLab and GitHub show the title.

Folds cannot stand in one another and must not mix, and images are built in parallel: so one stage at a time has the floor and is shown as it runs; what
others print waits, in memory up to a size and then in a file, until the floor is free. What a failed stage printed is shown unfolded.

Sources: GitLab docs, "CI/CD job logs", custom collapsible sections; GitHub docs, "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from typing import IO, Literal, Protocol

from layerwright.cli.lines import Lines

IN_MEMORY_BYTES = 1 << 20  # of each stage that waits
AGAIN_LINES = 200  # of a failed stage's log that was shown folded already
Kind = Literal["gitlab", "github"]


def kind_wanted(asked: str, lines: Lines, env: Mapping[str, str]) -> Kind | None:
    """`asked`: auto, gitlab, github or off. Auto is by what CI systems set, and never on a terminal."""
    if asked == "gitlab" or (asked == "auto" and env.get("GITLAB_CI") == "true" and not lines.out.isatty()):
        return "gitlab"
    if asked == "github" or (asked == "auto" and env.get("GITHUB_ACTIONS") == "true" and not lines.out.isatty()):
        return "github"
    return None


class Marks(Protocol):
    """How one CI system writes a fold."""

    def begin(self, stage: str) -> str: ...
    def end(self) -> str: ...
    def unfolded(self, lines: list[str]) -> list[str]: ...
    def warning(self, text: str, position: tuple[str, int, int] | None) -> str | None: ...


class GitLab:
    """`section_start` and `section_end`. A section is named by letters, digits, `_`, `.` and `-`, and no name comes twice."""

    def __init__(self) -> None:
        self._count = 0
        self._name = ""

    def begin(self, stage: str) -> str:
        self._count += 1
        letters = "".join(one if one.isascii() and one.isalnum() else "_" for one in stage)
        self._name = f"{letters}_{self._count}"
        return f"section_start:{int(time.time())}:{self._name}[collapsed=true]\r\x1b[0K{stage}: output"

    def end(self) -> str:
        return f"section_end:{int(time.time())}:{self._name}\r\x1b[0K"

    def unfolded(self, lines: list[str]) -> list[str]:
        return lines

    def warning(self, text: str, position: tuple[str, int, int] | None) -> str | None:
        return None


class GitHub:
    """`::group::`. Between `::stop-commands::TOKEN` and `::TOKEN::`, which nobody can guess, nothing a command prints is taken for a workflow command."""

    def __init__(self) -> None:
        self._token = os.urandom(16).hex()

    def begin(self, stage: str) -> str:
        return f"::group::{escaped(stage)}: output\n::stop-commands::{self._token}"

    def end(self) -> str:
        return f"::{self._token}::\n::endgroup::"

    def unfolded(self, lines: list[str]) -> list[str]:
        return [f"::stop-commands::{self._token}", *lines, f"::{self._token}::"]

    def warning(self, text: str, position: tuple[str, int, int] | None) -> str | None:
        return annotation("warning", text, position)


def annotation(level: Literal["error", "warning"], text: str, position: tuple[str, int, int] | None) -> str:
    """A workflow command that GitHub shows beside the file and on the run's page."""
    place = ""
    if position is not None:
        file, line, column = position
        place = f" file={_escaped_property(_in_workspace(file))},line={line}" + (f",col={column}" if column else "")
    return f"::{level}{place}::{escaped(text)}"


def escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return escaped(text).replace(":", "%3A").replace(",", "%2C")


def _in_workspace(file: str) -> str:
    """GitHub knows files by their path in the repository."""
    workspace = os.environ.get("GITHUB_WORKSPACE", "")
    if not workspace or not os.path.exists(file):
        return file
    path = os.path.relpath(os.path.realpath(file), os.path.realpath(workspace))
    return file if path.startswith("..") else path


class Folds:
    """The folds of one build. Not thread-safe."""

    def __init__(self, kind: Kind, lines: Lines) -> None:
        self._marks: Marks = GitLab() if kind == "gitlab" else GitHub()
        self._lines = lines
        self._floor = ""
        self._waiting: dict[str, IO[str]] = {}  # what stages print that have not the floor, in the order they began to
        self._ended: list[str] = []  # of those, the ones that are at their end
        self._between: list[tuple[str, bool]] = []  # lines for which no fold is the place

    def output(self, stage: str, text: str) -> None:
        """A line that a command of the stage printed, as it is to be shown."""
        if not self._floor:
            self._open(stage)
        if stage == self._floor:
            self._lines.raw(text)
            return
        if stage not in self._waiting:
            self._waiting[stage] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, "w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed when shown
        self._waiting[stage].write(text + "\n")

    def line(self, text: str, *, warning: bool = False) -> None:
        """A finished line of another kind, as `Lines.raw` takes it."""
        if self._floor:
            self._between.append((text, warning))
        else:
            self._lines.raw(text, warning=warning)

    def warning(self, text: str, position: tuple[str, int, int] | None) -> str | None:
        return self._marks.warning(text, position)

    def built(self, stage: str) -> None:
        """The stage is at its end, and well."""
        if stage == self._floor:
            self._close()
        elif stage in self._waiting:
            self._ended.append(stage)

    def failed(self, stage: str, log: list[str]) -> None:
        """Everything that waits for a place is shown, and last what the failed stage printed, not folded."""
        was_shown = stage == self._floor
        if (held := self._waiting.pop(stage, None)) is not None:
            held.close()  # `log` has it
        self.close()
        if was_shown and len(log) > AGAIN_LINES:
            log = [f"… {len(log) - AGAIN_LINES} lines more stand in the fold above", *log[-AGAIN_LINES:]]
        for text in self._marks.unfolded(log):
            self._lines.raw(text)

    def close(self) -> None:
        """The build is at its end: show what still waits, folded."""
        if self._floor:
            self._close()
        while self._waiting:
            self._show(next(iter(self._waiting)))

    def _open(self, stage: str) -> None:
        self._floor = stage
        self._lines.raw(self._marks.begin(stage))

    def _close(self) -> None:
        """End the open fold; who has waited for the floor comes next."""
        self._floor = ""
        self._lines.raw(self._marks.end())
        between, self._between = self._between, []
        for text, warning in between:
            self._lines.raw(text, warning=warning)
        for stage in self._ended:
            self._show(stage)
        self._ended.clear()
        if self._waiting:
            stage = next(iter(self._waiting))
            self._open(stage)
            self._write_out(stage)

    def _show(self, stage: str) -> None:
        """The whole fold of a stage that waited."""
        self._lines.raw(self._marks.begin(stage))
        self._write_out(stage)
        self._lines.raw(self._marks.end())

    def _write_out(self, stage: str) -> None:
        with self._waiting.pop(stage) as held:
            held.seek(0)
            for line in held:
                self._lines.raw(line.removesuffix("\n"))
