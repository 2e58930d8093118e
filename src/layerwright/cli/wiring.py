"""From options to what a command works with."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from layerwright.project import Project

if TYPE_CHECKING:
    from layerwright.build.options import BuildOptions, Cancel

_PROJECT_OPTIONS = (
    "work_tree",
    "config_file",
    "home",
    "loose_giterminism",
    "project_name",
    "insecure_registry",
    "skip_tls_verify_registry",
    "docker_config",
)


def open_project(options: dict[str, Any]) -> Project:
    """The project that the shared options mean. Raises UsageError."""
    platforms = [one for item in options.get("platform", ()) for one in item.split(",") if one]
    if len(platforms) > 1:
        raise click.UsageError(f'--platform: several platforms in one run are not supported yet (README, "Not yet"); name one of {", ".join(platforms)}')
    given = {name: options[name] for name in _PROJECT_OPTIONS if name in options}
    return Project(options["directory"], platform=platforms[0] if platforms else None, **given)


def build_options(options: dict[str, Any]) -> BuildOptions:
    from layerwright.build.options import BuildOptions as Options
    from layerwright.build.options import default_parallel

    parallel = options["parallel"] or options["parallel_tasks_limit"] or default_parallel()
    return Options(parallel=parallel, network=options["network"], runtime=options["runtime"])


@contextmanager
def cancelled_by_signals() -> Iterator[Cancel]:
    """The first Ctrl-C or SIGTERM asks the build to stop; it ends its containers and leaves no mount. A second one ends this process at once."""
    from layerwright.build.options import Cancel as NewCancel

    cancel = NewCancel()

    def stop(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            os._exit(130)
        cancel.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
