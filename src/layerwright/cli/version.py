"""`layerwright version`."""

from __future__ import annotations

import click

from layerwright import __version__
from layerwright.cli.command import command as define


@define("version")
def command() -> None:
    """Print the version.

    \b
    layerwright version
    """
    click.echo(__version__)
