"""What people and programs see of a build: a line for each thing that happened, and on a terminal below them what is going on.

Light: on the path where nothing is done only this module, `lines` and `shown` are loaded.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from layerwright.build.events import (
    BuildDone,
    BuildStarted,
    ContainerStarts,
    Detail,
    Event,
    ImageFound,
    ImageStarted,
    Progress,
    StageBuilt,
    StageFailed,
    StageOutput,
    StageReused,
    StageStarted,
    Warned,
)
from layerwright.cli.lines import Lines, LogSettings
from layerwright.cli.shown import counted, printable, size_text

if TYPE_CHECKING:
    from layerwright.build.options import Traffic
    from layerwright.build.result import BuildResult
    from layerwright.cli.activity import Activity
    from layerwright.cli.folds import Folds
    from layerwright.cli.json_log import JsonLog
    from layerwright.cli.pulse import Pulse
    from layerwright.cli.screen import Screen

WORTH_A_LINE = 1 << 20  # bytes; what is smaller is told afterwards only by --log-verbose


def renderer_of(options: Mapping[str, Any], out: TextIO | None = None) -> Renderer:
    """As the log options of a command say."""
    return Renderer(
        LogSettings(
            quiet=options["quiet"],
            verbose=options["verbose"] or options["debug"],
            debug=options["debug"],
            color_mode=options["color_mode"],
            format=options["log_format"],
            with_time=options["log_time"],
            time_format=options["log_time_format"],
            width=max(options["terminal_width"], 0),
            folding=options["folding"],
            progress_every_s=options["progress_every"],
        ),
        out=out,
    )


class Renderer:
    """Prints the events of one build. `out` takes what happened, `err` warnings and, on a terminal, what is going on. Thread-safe; a context manager."""

    def __init__(self, settings: LogSettings, *, out: TextIO | None = None, err: TextIO | None = None, env: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._env = env
        self._lines = Lines(settings, env, out, err)
        self._guard = threading.RLock()
        self._json: JsonLog | None = None
        self._folds: Folds | None = None
        self._activity: Activity | None = None
        self._screen: Screen | None = None
        self._pulse: Pulse | None = None
        self._handed_over = False
        self._begun = time.monotonic()
        if settings.format == "json":
            from layerwright.cli.json_log import JsonLog as Log

            self._json = Log(self._lines.err, quiet=settings.quiet, debug=settings.debug)
        elif settings.folding != "off" and not settings.quiet:
            self._folds = self._wanted_folds(settings.folding)

    def _wanted_folds(self, asked: str) -> Folds | None:
        if asked == "auto" and "GITLAB_CI" not in self._env and "GITHUB_ACTIONS" not in self._env:
            return None
        from layerwright.cli.folds import Folds as Made
        from layerwright.cli.folds import kind_wanted

        kind = kind_wanted(asked, self._lines, self._env)
        return Made(kind, self._lines) if kind else None

    def __call__(self, event: Event) -> None:
        with self._guard:
            if self._json is not None:
                self._json(event)
                return
            self._follow(event)
            self._show(event)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()
        with self._guard:
            if self._folds is not None:
                self._folds.close()
        self._lines.out.flush()

    def restore_terminal(self) -> None:
        """For a signal handler that ends the process at once."""
        if self._screen is not None:
            self._screen.restore()

    def note(self, text: str) -> None:
        """A line on standard error, where that is for people; quiet or not."""
        if self._json is None:
            self._lines.raw(text, warning=True)

    def take_back(self) -> None:
        """After ContainerStarts: the container has ended, and the terminal is ours again."""
        with self._guard:
            self._handed_over = False

    # What is going on.

    def _follow(self, event: Event) -> None:
        """Keep the live area, or the signs of life where there is no terminal, up to date; they begin when something does that takes time."""
        if self._activity is None:
            if self._handed_over or self._settings.quiet or not isinstance(event, BuildStarted | ImageStarted | Progress):
                return
            self._begin_live()
        if isinstance(event, ContainerStarts | BuildDone):
            self.pause()
            self._handed_over = isinstance(event, ContainerStarts)
        elif self._activity is not None:
            self._activity.told(event, time.monotonic())

    def _begin_live(self) -> None:
        from layerwright.cli.activity import Activity as Begun

        self._activity = Begun(time.monotonic())
        err = self._lines.err
        if err.isatty() and self._env.get("TERM") not in (None, "", "dumb"):
            self._screen = self._begun_screen(self._activity, err)
            self._lines.above(self._screen)
        elif self._settings.progress_every_s > 0:
            from layerwright.cli.pulse import Pulse as Beating

            self._pulse = Beating(self._activity, self._guard, self._say_alive, self._settings.progress_every_s)

    def _begun_screen(self, activity: Activity, err: TextIO) -> Screen:
        from layerwright.cli.layout import Look, lines
        from layerwright.cli.lines import colours_wanted
        from layerwright.cli.screen import Screen as Opened

        simple = "utf" not in (err.encoding or "").lower() or self._env.get("TERM") == "linux"
        look = Look(colours=colours_wanted(self._settings.color_mode, err, self._env), simple=simple)

        def draw(width: int, height: int) -> list[str]:
            now = time.monotonic()
            return lines(activity.rows(now), activity.totals(now), now, width=width, height=height, look=look)

        return Opened(err, draw, self._guard, width=self._settings.width)

    def pause(self) -> None:
        """Take the live area away, so that something else can be printed; the next thing that moves brings it back."""
        with self._guard:
            if self._screen is not None:
                self._screen.close()
                self._lines.above(None)
            if self._pulse is not None:
                self._pulse.close()
            self._activity = self._screen = self._pulse = None

    def _say_alive(self, text: str) -> None:
        self._line(text, "quiet")

    # What happened.

    def _show(self, event: Event) -> None:
        match event:
            case StageReused():
                self._line(f"Use previously built image for {_stage(event)}  ({_sizes(event)})", "good")
            case ImageFound(image=image, name=name):
                self._line(f"Use previously built image for {_name(image or '~')}  ({name})", "good")
            case StageStarted(reason=reason):
                self._line(f"Building stage {_stage(event)}" + (f"  ({reason})" if self._settings.verbose else ""), "work")
            case StageOutput(text=text):
                self._output(_stage(event), text)
            case StageBuilt(seconds=seconds):
                if self._folds is not None:
                    self._folds.built(_stage(event))
                self._line(f"Built stage {_stage(event)}  ({_sizes(event)}, {seconds:.1f} s)", "good")
            case StageFailed():
                self._failed(event)
            case Warned():
                self._warning(event)
            case Progress(finished=True):
                if event.action != "unpack" and event.done >= (1 if self._settings.verbose else WORTH_A_LINE) and self._screen is None:
                    self._line(f"{event.what}  {size_text(event.done)}", "quiet")
            case Detail(topic=topic, text=text) if self._settings.debug:
                self._line(f"[{topic}] {text}", "quiet")
            case BuildDone(outcome="failed" | "cancelled"):
                word = "Failed" if event.outcome == "failed" else "Stopped"
                self._line(f"{word} after {event.seconds:.2f} seconds  ({_totals(event)})", "bad")
            case _:
                pass

    def _output(self, stage: str, text: str) -> None:
        if self._settings.quiet:
            return
        line = self._lines.stamped(f"{stage} | {printable(text, colours=self._lines.colours)}")
        if self._folds is not None:
            self._folds.output(stage, line)
        else:
            self._heard()
            self._lines.raw(line)

    def _failed(self, event: StageFailed) -> None:
        log = [f"{_stage(event)} | {printable(line, colours=self._lines.colours)}" for line in event.log.splitlines()]
        if self._folds is not None:
            self._folds.failed(_stage(event), log)
        elif self._settings.quiet:
            for line in log:
                self._lines.raw(line)
        self._lines.line(f"Failed stage {_stage(event)}", "bad")

    def _warning(self, event: Warned) -> None:
        text = printable(event.text, colours=False)
        if self._folds is not None and (command := self._folds.warning(text, event.position)) is not None:
            self._folds.line(command, warning=True)
            return
        place = _name(f"{event.position}: " if event.position else f"{event.image}: " if event.image else "")
        self._placed(self._lines.stamped(self._lines.coloured(f"Warning: {place}{text}", "warn", warning=True)), warning=True)

    def _line(self, text: str, colour: str = "") -> None:
        if not self._settings.quiet:
            self._heard()
            self._placed(self._lines.stamped(self._lines.coloured(printable(text, colours=False), colour)))

    def _placed(self, text: str, *, warning: bool = False) -> None:
        place: Callable[..., None] = self._folds.line if self._folds is not None else self._lines.raw
        place(text, warning=warning)

    def _heard(self) -> None:
        if self._pulse is not None:
            self._pulse.heard()

    def summary(self, result: BuildResult, traffic: Traffic | None = None) -> None:
        """The last lines: what each image is called, and totals. `traffic`: of the whole run, where more than the build moved bytes."""
        self.pause()
        if self._settings.quiet:
            return
        for image in result.images:
            self._lines.raw(f"Image {_name(image.name or '~')}  {image.full_name}{f'@{image.placed.manifest}' if image.placed is not None else ''}")
        if self._json is None:
            self._lines.line(f"Running time {time.monotonic() - self._begun:.2f} seconds  ({_summed(result, traffic)})")


def _stage(event: StageReused | StageStarted | StageOutput | StageBuilt | StageFailed) -> str:
    return _name(f"{event.image or '~'}/{event.stage}")


def _name(text: str) -> str:
    """Names of images are free text."""
    return printable(text, colours=False)


def _sizes(event: StageReused | StageBuilt) -> str:
    size = f"size {size_text(event.size_bytes)}, " if event.size_bytes >= 0 else ""
    added = f"+{size_text(event.added_bytes)}, " if event.added_bytes > 0 else ""
    return f"{size}{added}commit {event.commit[:12]}"


def _totals(event: BuildDone) -> str:
    return _done_text(event.built, event.reused, event.pulled_bytes, event.pushed_bytes, event.requests)


def _summed(result: BuildResult, traffic: Traffic | None) -> str:
    done = f"{counted(len(result.images), 'image')}, " + (f"{result.found} found in the repository, " if result.found else "")
    if traffic is not None:
        return done + _done_text(result.built, result.reused, traffic.bytes_in, traffic.bytes_out, traffic.requests)
    return done + _done_text(result.built, result.reused, result.pulled_bytes, result.pushed_bytes, result.requests)


def _done_text(built: int, reused: int, pulled: int, pushed: int, requests: int) -> str:
    moved = f", {size_text(pulled)} pulled" if pulled else ""
    moved += f", {size_text(pushed)} pushed" if pushed else ""
    moved += f", {counted(requests, 'request')}" if requests else ""
    return f"{counted(built, 'stage')} built, {reused} reused{moved}"
