"""From options to what a command works with."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

from layerwright.errors import Cancelled
from layerwright.project import Project

if TYPE_CHECKING:
    from layerwright.build.events import Listener
    from layerwright.build.options import BuildOptions, Cancel
    from layerwright.cli.render import Renderer

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTROSPECT = ("introspect_error", "introspect_before_error", "introspect_stage")
_PROJECT_OPTIONS = (
    "work_tree",
    "config_file",
    "home",
    "loose_giterminism",
    "project_name",
    "insecure_registry",
    "skip_tls_verify_registry",
    "docker_config",
    "container_registry_mirror",
    "repo",
    "secondary_repo",
    "cache_repo",
    "final_repo",
)


def open_project(options: dict[str, Any]) -> Project:
    """The project that the shared options mean. Raises UsageError."""
    given = {name: options[name] for name in _PROJECT_OPTIONS if name in options}
    return Project(options["directory"], platform=options.get("platform", ()), **given)


def build_options(options: dict[str, Any]) -> BuildOptions:
    from layerwright.build.options import BuildOptions as Options
    from layerwright.build.options import Introspect, default_parallel

    parallel = options["parallel"] or options["parallel_tasks_limit"] or default_parallel()
    introspect = Introspect(*(options[name] for name in _INTROSPECT)) if _INTROSPECT[0] in options else Introspect()
    return Options(
        parallel=parallel,
        network=options["network"],
        runtime=options["runtime"],
        introspect=introspect,
        require_built=options.get("require_built_images", False),
        custom_tags=tuple(options.get("add_custom_tag", ())),
    )


def looking_into_stages(project: Project, options: BuildOptions, renderer: Renderer, cancel: Cancel) -> AbstractContextManager[Listener]:
    """Around a build: the listener to give it, which opens shells where the options ask for them."""
    if not options.introspect.wanted:
        return nullcontext(renderer)
    from layerwright.cli.looking import looking

    return looking(project, renderer, cancel)


class Interrupted(Cancelled):
    """A signal asked this process to stop; it ends as one that the signal killed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextmanager
def cancelled_by_signals(before_exit: Callable[[], None] = lambda: None) -> Iterator[Cancel]:
    """The first Ctrl-C, SIGTERM or SIGHUP asks the build to stop; it ends its containers and leaves no mount. A second one ends this process at once,
    after `before_exit`. Raises Interrupted."""
    from layerwright.build.options import Cancel as NewCancel

    cancel = NewCancel()
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if received:
            before_exit()
            os._exit(128 + number)
        received.append(number)
        cancel.set()

    before = {number: signal.signal(number, stop) for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield cancel
    except Cancelled as error:
        if received:
            raise Interrupted(received[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
