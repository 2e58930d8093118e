"""`layerwright export`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from layerwright.build.destinations import refuse_several, refuse_unusable
from layerwright.build.places import KINDS, Place, parse_place
from layerwright.cli.auto_cleanup import cleaned_up_after
from layerwright.cli.command import command as define
from layerwright.cli.limits_of_store import after_build_options
from layerwright.cli.options import (
    build_options,
    complete_places,
    image_argument,
    introspect_options,
    log_options,
    not_yet,
    option,
    outcome_options,
    project_options,
    registry_options,
    repo_options,
    with_numbered,
)
from layerwright.cli.render import renderer_of
from layerwright.cli.wiring import build_options as as_build_options
from layerwright.cli.wiring import cancelled_by_signals, looking_into_stages, open_project


class Destinations(click.types.StringParamType):
    """In the variable a line each: a path may have spaces."""

    envvar_list_splitter = "\n"


@define("export")
@image_argument("image")
@option(
    "--to",
    "places",
    multiple=True,
    type=Destinations(),
    callback=with_numbered,
    help=f"{KINDS}; any number of times.",
    metavar="DESTINATION",
    own=True,
    shell_complete=complete_places,
)
@option("--compression", type=click.Choice(["gzip", "zstd", "none"]), default="gzip", help="Of layers built here.", show_default=True, own=True)
@project_options
@build_options
@introspect_options
@repo_options
@outcome_options
@registry_options
@after_build_options
@log_options
@not_yet
def command(image: str, places: tuple[str, ...], compression: Any, **options: Any) -> None:
    """Build an image if need be, and send it to where other tools can use it.

    \b
    layerwright export app --to oci-archive:app.tar
    layerwright export app --to docker-archive:-:app:1 | ssh host docker load
    layerwright export app --to docker://example.com/app:1 --to oci:directory
    layerwright export app --to containers-storage:app:1
    """
    _refuse(places)
    renderer = renderer_of(options, out=sys.stderr)
    building = as_build_options(options)
    with cleaned_up_after(options, renderer), open_project(options) as project, cancelled_by_signals(renderer.restore_terminal) as cancel, renderer:
        names = project.select([image])
        if len(names) != 1:
            raise click.UsageError(f"`{image}` means several images ({', '.join(names)}): name one")
        with project.session() as session:
            platforms = [str(one) for one in session.platforms_of(project.config.image(names[0]))]
        for place in places:
            refuse_several(parse_place(place), platforms)
        with looking_into_stages(project, building, renderer, cancel) as on_event:
            result = project.build([image], options=building, on_event=on_event, cancel=cancel)
        built = result.image(names[0])
        for place in places:
            exported = project.export(built, place, compression=compression, out=sys.stdout.buffer, on_event=renderer, cancel=cancel)
            renderer.pause()
            click.echo(exported.digest or exported.image_id, err=any(parse_place(one).is_stream for one in places))
        renderer.summary(result, project.registry_traffic())


def _refuse(places: tuple[str, ...]) -> None:
    """What is wrong with the destinations is told before anything is built for them."""
    if not places:
        raise click.UsageError(f"--to is missing: {KINDS}")
    parsed = [parse_place(one) for one in places]
    if sum(one.is_stream for one in parsed) > 1:
        raise click.UsageError("--to: standard output takes one archive")
    for place in parsed:
        _refuse_one(place)


def _refuse_one(place: Place) -> None:
    refuse_unusable(place, os.environ, sys.stdout.buffer)
