"""`layerwright stage image`."""

from __future__ import annotations

from typing import Any

import click

from layerwright.cli.command import group
from layerwright.cli.options import image_argument, log_options, project_options, registry_options, repo_options
from layerwright.cli.wiring import open_project
from layerwright.errors import LayerwrightError


class NotBuilt(LayerwrightError):
    """The image is not built at this commit."""


@group("stage")
def command() -> None:
    """Names of what is built."""


@command.command("image")
@image_argument("image", required=False)
@project_options
@repo_options
@registry_options
@log_options
def image_command(image: str | None, **options: Any) -> None:
    """Print the name of the finished image: PROJECT:CONTENT-DIGEST, or with --repo REPO:CONTENT-DIGEST. Builds nothing; fails if it is not built.

    \b
    layerwright stage image app
    """
    with open_project(options) as project:
        names = project.select([image] if image else [], final_only=not image)
        if len(names) != 1:
            raise click.UsageError(f"name one image: {', '.join(name or '~' for name in names)}")
        found = project.find(names[0])
        if found is None:
            raise NotBuilt(
                f"image {names[0] or '~'!r} is not built at commit {project.commit.id[:12]}", mend=f"run: layerwright build {names[0] or ''}".rstrip()
            )
        click.echo(found.full_name)
