"""How `layerwright host` tells what it did: as a table, or as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from layerwright.cli.shown import counted, size_text, visible

if TYPE_CHECKING:
    from layerwright.build.check_store import Checked
    from layerwright.cleanup.clean_up import CleanUp
    from layerwright.cleanup.policy import Drop, Kept
    from layerwright.cleanup.purge import Purged

_ROOTS = ("image", "stage", "reference", "kept state", "build_dir")


def print_clean_up(done: CleanUp, *, as_json: bool, verbose: bool) -> None:
    if as_json:
        click.echo(json.dumps(_clean_up_json(done), indent=2))
        return
    drops = done.plan.drops if done.dry_run else tuple(done.swept.dropped)
    print_drops(drops)
    for skipped in done.swept.skipped:
        click.echo(f"stayed: {skipped.drop.kind} {_whose(skipped.drop)}: {skipped.reason}")
    if verbose:
        print_kept(done.plan.kept)
    if drops:
        click.echo("")
    verb = "would be freed" if done.dry_run else "freed"
    click.echo(f"{size_text(done.freed_bytes)} {verb}, {_counts(drops)}.")
    click.echo(_aim(done))
    for path in done.swept.stayed:
        click.echo(f"Warning: could not be removed: {visible(path)}", err=True)


def _aim(done: CleanUp) -> str:
    volume = f"the volume is used to {done.volume.used_percent:.1f}%"
    limit = f"{done.limit.shown} of the volume" if done.limit.is_percent else size_text(done.limit.allowed)
    head = f"The store took {size_text(done.store_bytes)}, {volume}; the limit is {limit}"
    if not done.over:
        return f"{head}: not reached, so nothing more has to go."
    if done.short_bytes:
        return f"{head}: {size_text(done.short_bytes)} too much stay, because nothing more may go (--log-verbose says why)."
    return f"{head}."


def _counts(drops: Iterable[Drop]) -> str:
    kinds = [drop.kind if drop.kind in _ROOTS else "other" for drop in drops]
    shown = [counted(kinds.count(kind), kind) for kind in _ROOTS if kind in kinds]
    others = kinds.count("other")
    return ", ".join([*shown, *([counted(others, "thing") + " that can be made again or nothing needs"] if others else [])]) or "nothing to remove"


def print_drops(drops: Sequence[Drop]) -> None:
    rows = [(drop.kind, size_text(drop.size_bytes), _time(drop.last_use_ns), _whose(drop), drop.reason) for drop in drops]
    _table(("KIND", "FREES", "LAST USE", "IMAGE OR NAME", "REASON"), rows)


def print_kept(kept: Sequence[Kept]) -> None:
    click.echo("")
    _table(("STAYS", "LAST USE", "IMAGE OR NAME", "REASON"), [(one.kind, _time(one.last_use_ns), one.label or one.name, one.reason) for one in kept])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    all_rows = [head, *rows]
    widths = [max(len(row[column]) for row in all_rows) for column in range(len(head))]
    for row in all_rows:
        click.echo(visible("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()))


def _whose(drop: Drop) -> str:
    """The image, and the first digits of the digest that tell its stages apart; a thing by its name."""
    short = drop.name.rpartition("/")[2].removesuffix(".json")[:12]
    if drop.kind in ("image", "stage"):
        return f"{drop.label} {short}"
    if drop.kind in _ROOTS or "/" not in drop.name:
        return drop.label or drop.name
    return f"{drop.name.partition('/')[0]}/{short}" + (f" of {drop.label}" if drop.label else "")


def _time(last_use_ns: int | None) -> str:
    return "" if last_use_ns is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(last_use_ns // 1_000_000_000))


def _clean_up_json(done: CleanUp) -> dict[str, Any]:
    limit, target = ("percent", done.limit.target) if done.limit.is_percent else ("bytes", int(done.limit.target))
    return {
        "home": done.home,
        "dry_run": done.dry_run,
        "limit": {"unit": limit, "allowed": done.limit.allowed, "target": target},
        "volume": {"size_bytes": done.volume.size_bytes, "used_bytes": done.volume.used_bytes},
        "store_bytes": done.store_bytes,
        "over": done.over,
        "to_free_bytes": done.to_free,
        "freed_bytes": done.freed_bytes,
        "short_bytes": done.short_bytes if done.over else 0,
        "removed": [drop_json(drop) for drop in (done.plan.drops if done.dry_run else done.swept.dropped)],
        "stayed": [drop_json(one.drop) | {"reason": one.reason} for one in done.swept.skipped],
        "kept": [
            {"kind": one.kind, "name": one.name, "image": one.label, "last_use": _rfc3339(one.last_use_ns), "reason": one.reason} for one in done.plan.kept
        ],
        "not_removable": list(done.swept.stayed),
    }


def drop_json(drop: Drop) -> dict[str, Any]:
    return {
        "kind": drop.kind,
        "name": drop.name,
        "image": drop.label,
        "size_bytes": drop.size_bytes,
        "last_use": None if drop.last_use_ns is None else _rfc3339(drop.last_use_ns),
        "reason": drop.reason,
        "with": list(drop.things),
    }


def _rfc3339(time_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000))


def print_purged(purged: Purged, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        shown = {
            "dry_run": dry_run,
            "freed_bytes": purged.freed_bytes,
            "removed": [drop_json(one) for one in purged.drops],
            "not_removable": list(purged.stayed),
        }
        click.echo(json.dumps(shown, indent=2))
        return
    if dry_run:
        print_drops(purged.drops)
    click.echo(f"{size_text(purged.freed_bytes)} {'would be freed' if dry_run else 'freed'}.")
    for path in purged.stayed:
        click.echo(f"Warning: could not be removed: {visible(path)}", err=True)


class CheckProgress:
    """How far a check has come, on standard error: a line that moves on a terminal, elsewhere one every ten seconds."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._every_s = 0.2 if self._is_terminal else 10.0
        self._next = time.monotonic() + self._every_s
        self._shown = False

    def __enter__(self) -> CheckProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._is_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every_s
        self._shown = True
        text = f"checked {size_text(min(done, total))} of {size_text(total)}"
        click.echo(f"\r\x1b[K{text}" if self._is_terminal else text, nl=not self._is_terminal, err=True)


def print_checked(checked: Checked, *, dry_run: bool, as_json: bool) -> None:
    looked = {"records": checked.records, "blobs": checked.blobs, "indexes": checked.indexes, "trees": checked.trees, "trees_unchecked": checked.unchecked}
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, "checked": looked, "damaged": [one._asdict() for one in checked.findings]}, indent=2))
        return
    for one in checked.findings:
        click.echo(visible(f"damaged: {one.kind} {one.name}: {one.wrong}"))
        click.echo(f"  {one.means}" + (f"; {one.done}" if one.done else ""))
    numbers = ", ".join((counted(checked.records, "record"), counted(checked.blobs, "blob"), f"{checked.indexes} indexes", counted(checked.trees, "tree")))
    left = f"; {counted(checked.unchecked, 'tree')} not checked: another user's, or nothing describes them" if checked.unchecked else ""
    click.echo(f"{numbers} checked{left}. " + (f"{len(checked.findings)} damaged." if checked.findings else "All is whole."))
