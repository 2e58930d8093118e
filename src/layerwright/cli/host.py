"""`layerwright host`: the store of this host, cleaned up, removed, checked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from layerwright.build.own_store import open_store
from layerwright.cli.command import group
from layerwright.cli.limits_of_store import limit_of, limit_options
from layerwright.cli.options import option, switch
from layerwright.storage.local import LocalStore

if TYPE_CHECKING:
    from layerwright.storage.removal import Hands

home_option = option("--home", "home", default=None, help="The store.  [default: $XDG_DATA_HOME/layerwright]", metavar="DIR", envvar="LAYERWRIGHT_HOME")
json_switch = switch("--json", "as_json", help="Print the result as JSON.", own=True)
verbose_switch = switch("--log-verbose", "verbose", help="Say of all that stays why it stays, too.")


@group("host")
def command() -> None:
    """The store of this host."""


@contextmanager
def opened(home: str | None) -> Iterator[tuple[LocalStore, Hands]]:
    from layerwright.build.hands import hands_of

    with open_store(home, os.environ) as store, hands_of(store) as hands:
        yield store, hands


def is_there(store: LocalStore) -> bool:
    if os.path.isdir(store.paths.home):
        return True
    click.echo(f"no store at {store.paths.home}: nothing to do", err=True)
    return False


@command.command("cleanup")
@limit_options
@switch("--dry-run", help="Say what would go, and why; remove nothing.")
@switch("--force", help="Remove also what running builds use: they may fail.")
@verbose_switch
@json_switch
@home_option
def cleanup_command(dry_run: bool, force: bool, verbose: bool, as_json: bool, home: str | None, **options: Any) -> int:
    """Bring the store below its limit: what nothing needs goes, then what was used least recently.

    \b
    layerwright host cleanup                     to 70% of the volume
    layerwright host cleanup --allowed-local-cache-volume-usage 20GB
    layerwright host cleanup --dry-run --log-verbose
    """
    from layerwright.cleanup.clean_up import LOCK, clean_up, note_looked
    from layerwright.cli.host_shown import print_clean_up

    limit = limit_of(options)
    with opened(home) as (store, hands):
        if not is_there(store):
            return 0
        with store.lock(LOCK, waiting=lambda: click.echo("waiting for another clean-up", err=True)):
            done = clean_up(store, limit, hands, now_ns=time.time_ns(), dry_run=dry_run, force=force)
            if not dry_run:
                note_looked(store, done, now_ms=time.time_ns() // 1_000_000)
    print_clean_up(done, as_json=as_json, verbose=verbose)
    return 0


@command.command("purge")
@option("--project-name", "-N", "project", default="", help="Only what this project has in the store.", metavar="NAME")
@switch("--dry-run", help="Say what would go; remove nothing.")
@switch("--force", help="Also while builds run: they may fail.")
@json_switch
@home_option
def purge_command(project: str, dry_run: bool, force: bool, as_json: bool, home: str | None) -> int:
    """Remove the whole store, with loaded images and build_dir caches. Asks nothing.

    \b
    layerwright host purge
    layerwright host purge --project-name shop
    """
    from layerwright.cleanup.clean_up import LOCK
    from layerwright.cleanup.purge import purge, purge_project
    from layerwright.cli.host_shown import print_purged

    with opened(home) as (store, hands):
        if not is_there(store):
            return 0
        with store.lock(LOCK, waiting=lambda: click.echo("waiting for a clean-up", err=True)):
            if project:
                purged = purge_project(store, project, hands, dry_run=dry_run, force=force)
            else:
                purged = purge(store, hands, dry_run=dry_run, force=force)
    print_purged(purged, dry_run=dry_run, as_json=as_json)
    return 1 if purged.stayed else 0


@command.command("check")
@switch("--dry-run", help="Only list what is damaged; change nothing.")
@json_switch
@home_option
def check_command(dry_run: bool, as_json: bool, home: str | None) -> int:
    """Read the whole store, and heal what is damaged. Ends with 0 if all is whole, with 1 if something was damaged.

    Damaged things are removed, and made again at once where their bytes are here; the next build makes or fetches the rest.

    \b
    layerwright host check
    layerwright host check --dry-run --json
    """
    from layerwright.build.check_store import check_store
    from layerwright.cleanup.clean_up import LOCK
    from layerwright.cli.host_shown import CheckProgress, print_checked
    from layerwright.cli.wiring import cancelled_by_signals

    with open_store(home, os.environ) as store, cancelled_by_signals() as cancel:
        if not is_there(store):
            return 0
        with store.lock(LOCK, waiting=lambda: click.echo("waiting for a clean-up", err=True)), CheckProgress() as progress:
            checked = check_store(store, cancel, dry_run=dry_run, advance=progress)
    print_checked(checked, dry_run=dry_run, as_json=as_json)
    return 1 if checked.findings else 0
