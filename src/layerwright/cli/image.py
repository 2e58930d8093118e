"""`layerwright image`: base images in the store."""

from __future__ import annotations

import os
from typing import Any

import click

from layerwright.build.base_image_store import open_images
from layerwright.build.events import Event, Warned
from layerwright.cli.command import group
from layerwright.cli.options import option, registry_options, twins
from layerwright.cli.shown import size_text
from layerwright.cli.wiring import cancelled_by_signals
from layerwright.errors import UsageError

home_option = option("--home", "home", default=None, help="The store.  [default: $XDG_DATA_HOME/layerwright]", metavar="DIR", envvar="LAYERWRIGHT_HOME")
platform_option = option("--platform", default=None, help="OS/ARCH[/VARIANT].", metavar="PLATFORM", envvar=[*twins("--platform"), "DOCKER_DEFAULT_PLATFORM"])


@group("image")
def command() -> None:
    """Base images in the store."""


@command.command("load")
@click.argument("file", type=click.Path())
@option("--name", default=None, help="Name for the image, if the file has none or another is wanted.", metavar="NAME[:TAG]", own=True)
@platform_option
@home_option
def load_command(file: str, name: str | None, platform: str | None, home: str | None) -> None:
    """Load an image from an oci-archive, a docker-archive or an OCI directory.

    \b
    layerwright image load base.tar --name example.com/base:1
    """
    if not os.path.exists(file):
        raise UsageError("there is no such file or directory", where=file, mend="name an image saved by skopeo, podman, docker or `layerwright export`")
    with open_images(home) as images:
        for image in images.load(file, name=name, platform=platform):
            click.echo(f"{image.reference}  {image.platform}  {image.manifest}")


@command.command("ls")
@home_option
def list_command(home: str | None) -> None:
    """List the images: name, platform, digest, size as stored, and where from.

    \b
    layerwright image ls
    """
    with open_images(home) as images:
        rows = [(one.reference, one.platform, one.manifest, size_text(one.size), one.source) for one in images.list()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@command.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@platform_option
@home_option
def remove_command(names: tuple[str, ...], platform: str | None, home: str | None) -> None:
    """Forget images, and free what no other image and no build uses.

    \b
    layerwright image rm example.com/base:1
    """
    with open_images(home) as images:
        chosen, freed = images.remove(names, platform=platform)
    click.echo(f"{len(chosen)} removed, {size_text(freed.size_bytes)} freed")


@command.command("pull")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@platform_option
@home_option
@registry_options
def pull_command(names: tuple[str, ...], platform: str | None, home: str | None, **options: Any) -> None:
    """Pull images with all their layers, so that builds need no registry.

    \b
    layerwright image pull debian:12-slim example.com/base:1
    """
    chosen = {name: options[name] for name in ("insecure_registry", "skip_tls_verify_registry", "docker_config", "container_registry_mirror")}
    with open_images(home, **chosen) as images, cancelled_by_signals() as cancel:
        for name in names:
            image = images.pull(name, platform=platform, on_event=_warn, cancel=cancel)
            click.echo(f"{image.reference}  {image.platform}  {image.manifest}")


def _warn(event: Event) -> None:
    if isinstance(event, Warned):
        click.echo(f"Warning: {event.text}", err=True)
