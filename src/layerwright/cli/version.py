"""`layerwright version`."""

from __future__ import annotations

import click

from layerwright import __version__


@click.command("version")
def command() -> None:
    """Print the version.

    \b
    layerwright version
    """
    click.echo(__version__)
