"""The whole clean-up of a store: look, plan, sweep; and by itself after a build, when the limit is passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from layerwright.cleanup.due import MEMO, Looked
from layerwright.cleanup.limit import Limit, need
from layerwright.cleanup.policy import Plan, plan
from layerwright.cleanup.sweep import Skipped, StoreIsBusy, Swept, sweep
from layerwright.errors import LayerwrightError
from layerwright.storage.disk_use import Volume, volume_of
from layerwright.storage.inventory import Inventory
from layerwright.storage.local import LocalStore
from layerwright.storage.removal import Hands
from layerwright.storage.survey import survey

LOCK = "host-cleanup"
_ROUNDS = 3  # what was in use, and is not any more, may go in a second one


class CannotCleanUp(LayerwrightError):
    """Nothing was removed, because something could be in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanUp:
    """What a clean-up found and did; with `dry_run` what it would do. Sizes in bytes. `short_bytes`: what is lacking to the aim."""

    home: str
    limit: Limit
    dry_run: bool
    volume: Volume
    store_bytes: int
    over: bool
    to_free: int
    plan: Plan
    swept: Swept

    @property
    def freed_bytes(self) -> int:
        return self.plan.freed_bytes if self.dry_run else self.swept.freed_bytes

    @property
    def short_bytes(self) -> int:
        return max(self.to_free - self.freed_bytes, 0)


def clean_up(
    store: LocalStore,
    limit: Limit,
    hands: Hands,
    *,
    now_ns: int,
    dry_run: bool = False,
    force: bool = False,
    keep_since_ns: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    check: Callable[[], object] = lambda: None,
) -> CleanUp:
    """Bring the store below the limit. Hold the store's lock LOCK around it, so that only one runs.

    What was used since `keep_since_ns` stays. `force`: what running processes use goes as well. `stop` ends it early, `check` may raise while the store is read. Raises CannotCleanUp.
    """
    first: CleanUp | None = None
    total = Swept()
    for _ in range(_ROUNDS):
        found, inventory = _look(store, limit, hands, now_ns=now_ns, dry_run=dry_run, force=force, keep_since_ns=keep_since_ns, check=check)
        first = first or found
        if dry_run:
            return first
        swept = _sweep(store, inventory, found.plan, hands, force=force, stop=stop)
        _add(total, swept)
        if swept.stopped or not swept.skipped or not swept.freed_bytes or total.freed_bytes >= first.to_free:
            break
    assert first is not None
    return replace(first, swept=total)


def _look(
    store: LocalStore, limit: Limit, hands: Hands, *, now_ns: int, dry_run: bool, force: bool, keep_since_ns: int | None, check: Callable[[], object]
) -> tuple[CleanUp, Inventory]:
    users = () if force else store.uses.others()
    inventory = survey(store, measure=hands.measure, check=check)
    volume = volume_of(store.paths.home)
    asked = need(limit, volume_bytes=volume.size_bytes, used_bytes=volume.used_bytes, store_bytes=inventory.total_bytes)
    planned = plan(inventory, to_free=asked.to_free, now_ns=now_ns, users=users, keep_since_ns=keep_since_ns)
    done = CleanUp(
        home=store.paths.home,
        limit=limit,
        dry_run=dry_run,
        volume=volume,
        store_bytes=inventory.total_bytes,
        over=asked.over,
        to_free=asked.to_free,
        plan=planned,
        swept=Swept(),
    )
    return done, inventory


def _sweep(store: LocalStore, inventory: Inventory, planned: Plan, hands: Hands, *, force: bool, stop: Callable[[], bool]) -> Swept:
    try:
        return sweep(store, inventory, planned.drops, remove=hands.remove, stop=stop, force=force)
    except StoreIsBusy as error:
        mend = "wait for the builds that run, or use --force; on a file system without locks nothing tells what builds use, and only --force removes"
        raise CannotCleanUp("the store is locked: a process holds it, or its file system has no locks", where=store.paths.home, mend=mend) from error


def _add(total: Swept, more: Swept) -> None:
    again = {drop.name for drop in more.dropped}
    total.skipped = [one for one in total.skipped if one.drop.name not in again] + _news(total.skipped, more.skipped)
    total.dropped += more.dropped
    total.freed_bytes += more.freed_bytes
    total.stopped = more.stopped
    total.stayed += more.stayed


def _news(known: list[Skipped], more: list[Skipped]) -> list[Skipped]:
    names = {one.drop.name for one in known}
    return [one for one in more if one.drop.name not in names]


def note_looked(store: LocalStore, done: CleanUp, *, now_ms: int) -> None:
    """Remember how it went, for `due.is_due`."""
    looked = Looked(
        at_ms=now_ms,
        limit=(done.limit.allowed, done.limit.margin, done.limit.is_percent),
        store_bytes=done.store_bytes - done.freed_bytes,
        volume_used_bytes=volume_of(store.paths.home).used_bytes,
        vain=done.over and done.short_bytes > 0 and not done.swept.stopped,
    )
    store.memo_put(MEMO, looked._asdict())
