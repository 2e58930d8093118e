"""`layerwright image`: base images in the store."""

from __future__ import annotations

import os
from typing import Any

import click

from layerwright.cli.options import option, registry_options, twins
from layerwright.cli.render import size_text
from layerwright.errors import UsageError
from layerwright.oci.platform import host_platform, parse_platform
from layerwright.oci.reference import parse_reference
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import default_home

home_option = option("--home", "home", default=None, help="The store.  [default: $XDG_DATA_HOME/layerwright]", metavar="DIR", envvar="LAYERWRIGHT_HOME")
platform_option = option("--platform", default=None, help="OS/ARCH[/VARIANT].", metavar="PLATFORM", envvar=[*twins("--platform"), "DOCKER_DEFAULT_PLATFORM"])


def _store(home: str | None) -> LocalStore:
    return LocalStore(home or default_home(os.environ))


@click.group("image")
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
    from layerwright.storage.archives import load_archive

    reference = parse_reference(name, where="--name") if name else None
    with _store(home) as store:
        for image in load_archive(store, file, name=reference, platform=parse_platform(platform) if platform else None):
            click.echo(f"{image.reference}  {image.platform}  {image.manifest}")


@command.command("ls")
@home_option
def list_command(home: str | None) -> None:
    """List the images: name, platform, digest, size as stored, and where from.

    \b
    layerwright image ls
    """
    with _store(home) as store:
        rows = [(one.reference, one.platform, one.manifest, size_text(one.size), one.source) for one in store.images.all()]
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
    from layerwright.storage.image_removal import remove_images

    with _store(home) as store:
        known = store.images.all()
        chosen = []
        for name in names:
            reference = str(parse_reference(name))
            found = [one for one in known if one.reference == reference and (platform is None or one.platform == str(parse_platform(platform)))]
            if not found:
                raise UsageError(f"no image {reference} in the store", mend="`layerwright image ls` lists what is there")
            chosen += found
        freed = remove_images(store, chosen)
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
    from concurrent.futures import ThreadPoolExecutor

    from layerwright.build.bases import Bases
    from layerwright.build.cabinet import Cabinet
    from layerwright.build.registries import make_registry

    wanted = parse_platform(platform) if platform else host_platform()
    registry = make_registry(
        os.environ, insecure=options["insecure_registry"], skip_tls_verify=options["skip_tls_verify_registry"], docker_config=options["docker_config"]
    )
    with _store(home) as store:
        bases = Bases(store, lambda: registry, lambda text: click.echo(f"Warning: {text}", err=True))
        cabinet = Cabinet(store, lambda: registry)
        for name in names:
            held = bases.pull(parse_reference(name), wanted)
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda diff_id: cabinet.stored(diff_id) or cabinet.fetch(diff_id), held.config.diff_ids))
            click.echo(f"{held.reference}  {wanted}  {held.manifest_digest}")
