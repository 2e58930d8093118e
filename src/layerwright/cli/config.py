"""`layerwright config`."""

from __future__ import annotations

from typing import Any

import click

from layerwright.cli.command import group
from layerwright.cli.options import image_argument, project_options, switch
from layerwright.cli.wiring import open_project


@group("config")
def command() -> None:
    """What werf.yaml at HEAD says."""


@command.command("list")
@project_options
@switch("--final-images-only", help="Leave out images with `final: false` and artifacts.")
def list_command(final_images_only: bool, **options: Any) -> None:
    """Print the names of the images, one on each line; `~` is the nameless one.

    \b
    layerwright config list
    layerwright config list --final-images-only
    """
    with open_project(options) as project:
        for name in project.select(final_only=final_images_only):
            click.echo(name or "~")


@command.command("graph")
@image_argument("images", nargs=-1, metavar="[IMAGE]...")
@project_options
@switch("--final-images-only", help="Leave out images with `final: false` and artifacts.")
def graph_command(images: tuple[str, ...], final_images_only: bool, **options: Any) -> None:
    """Print which image is made from which, as YAML.

    \b
    layerwright config graph          all images
    layerwright config graph 'b*'     some of them
    """
    with open_project(options) as project:
        from layerwright.config.order import graph_text

        click.echo(graph_text(project.config, project.select(images, final_only=final_images_only)), nl=False)
