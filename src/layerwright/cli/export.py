"""`layerwright export`."""

from __future__ import annotations

import sys
from typing import Any

import click

from layerwright.build.destinations import KINDS, check_destination
from layerwright.cli.options import build_options, log_options, not_yet, option, project_options, registry_options
from layerwright.cli.render import Renderer
from layerwright.cli.wiring import build_options as as_build_options
from layerwright.cli.wiring import cancelled_by_signals, open_project


@click.command("export")
@click.argument("image")
@option("--to", required=True, help=KINDS, metavar="DESTINATION", own=True)
@project_options
@build_options
@registry_options
@log_options
@not_yet
def command(image: str, to: str, **options: Any) -> None:
    """Build an image if need be, and write it to where other tools can use it.

    \b
    layerwright export app --to oci-archive:app.tar
    layerwright export app --to docker-archive:app.tar:example/app:1
    layerwright export app --to docker://registry.example.com/app:1
    """
    check_destination(to)
    renderer = Renderer(quiet=options["quiet"], verbose=options["verbose"], color_mode=options["color_mode"], out=sys.stderr)
    with open_project(options) as project, cancelled_by_signals() as cancel, renderer:
        names = project.select([image])
        if len(names) != 1:
            raise click.UsageError(f"`{image}` means several images ({', '.join(names)}): name one")
        result = project.build([image], options=as_build_options(options), on_event=renderer, cancel=cancel)
        exported = project.export(result.image(names[0]), to, on_event=renderer, cancel=cancel)
    click.echo(exported.digest)
