"""`layerwright run`."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from layerwright.build.result import record_for
from layerwright.build.run_image import arguments_of
from layerwright.cli.auto_cleanup import cleaned_up_after
from layerwright.cli.command import CommandWithArguments
from layerwright.cli.command import command as define
from layerwright.cli.limits_of_store import after_build_options
from layerwright.cli.options import (
    build_options,
    image_argument,
    introspect_options,
    log_options,
    not_yet,
    option,
    outcome_options,
    project_options,
    registry_options,
    repo_options,
    switch,
    with_numbered,
)
from layerwright.cli.render import renderer_of
from layerwright.cli.wiring import build_options as as_build_options
from layerwright.cli.wiring import cancelled_by_signals, looking_into_stages, open_project
from layerwright.errors import LayerwrightError
from layerwright.oci.platform import host_platform
from layerwright.runtime.runner import ProgramNotStarted


class NotInImage(LayerwrightError):
    """The program to run is not there or cannot be executed: what shells and other container tools end with then."""

    exit_code = 127


@define("run", cls=CommandWithArguments)
@image_argument("image", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
@project_options
@build_options
@introspect_options
@repo_options
@outcome_options
@registry_options
@switch("--shell", help="Run /bin/sh in the image.", own=True)
@switch("--bash", help="Run /bin/bash in the image.", own=True)
@option("--entrypoint", default=None, help="Run this instead of the image's ENTRYPOINT.", metavar="PROGRAM", own=True)
@option("--env-var", "-e", "variables", multiple=True, callback=with_numbered, help="NAME=VALUE for the command.", metavar="NAME=VALUE", own=True)
@option("--user", "-u", default="", help="Run as NAME[:GROUP] or UID[:GID].", metavar="USER", own=True)
@option("--workdir", "-w", default="", help="Start in this directory.", metavar="DIR", own=True)
@switch("--dry-run", help="Build the image, and print what would run in it.")
@after_build_options
@log_options
@not_yet
def command(
    image: str | None,
    arguments: tuple[str, ...],
    shell: bool,
    bash: bool,
    entrypoint: str | None,
    variables: tuple[str, ...],
    user: str,
    workdir: str,
    dry_run: bool,
    **options: Any,
) -> int:
    """Run a command in an image, built first if need be. Ends with the command's exit status.

    \b
    layerwright run app                    what the image runs by itself
    layerwright run app -- ls -l /app      another command
    layerwright run app --shell            a shell in it
    """
    if (shell and bash) or ((shell or bash) and arguments):
        raise click.UsageError("--shell, --bash and a command exclude one another: give one of them")
    wrong = next((one for one in variables if one.find("=") < 1), None)
    if wrong is not None:
        raise click.UsageError(f"-e {wrong}: write NAME=VALUE")
    chosen = ["/bin/sh"] if shell else ["/bin/bash"] if bash else [entrypoint] if entrypoint else None
    renderer = renderer_of(options, out=sys.stderr)
    with cleaned_up_after(options, renderer), open_project(options) as project, cancelled_by_signals(renderer.restore_terminal) as cancel:
        name = _only_image(project.select([image] if image else [], final_only=not image), asked=image)
        building = as_build_options(options)
        with renderer, looking_into_stages(project, building, renderer, cancel) as on_event:
            result = project.build([name], options=building, on_event=on_event, cancel=cancel)
        built = result.image("" if name == "~" else name)
        if dry_run:
            click.echo(shlex.join(arguments_of(record_for(built, host_platform()), arguments, chosen)))
            return 0
        try:
            return project.run(
                built,
                arguments,
                options=building,
                on_event=renderer,
                cancel=cancel,
                entrypoint=chosen,
                env=variables,
                user=user,
                workdir=workdir,
                network=options["network"] or "host",
            )
        except ProgramNotStarted as error:
            raise NotInImage(f"image {name!r}: {error.what}", mend=error.mend) from error


def _only_image(names: tuple[str, ...], *, asked: str | None) -> str:
    if len(names) != 1:
        shown = ", ".join(name or "~" for name in names)
        raise click.UsageError(f"`{asked}` means several images ({shown}): name one" if asked else f"name the image to run: {shown}")
    return names[0] or "~"
