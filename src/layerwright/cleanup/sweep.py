"""Removes what a plan drops, a few things at a time, and looks before each few whether they are still wanted by nobody. Decides nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from layerwright.cleanup.policy import Drop, in_use
from layerwright.oci.digest import DiffId
from layerwright.storage.inventory import Inventory, Root, blob_name
from layerwright.storage.local import LocalStore
from layerwright.storage.removal import Removal, Remove, is_unchanged, remove_empty_folders, removing
from layerwright.storage.roots import record_names, record_root, reference_names, reference_root
from layerwright.storage.uses import User

BATCH = 64  # drops for which builds wait at the gate: some milliseconds


class Skipped(NamedTuple):
    """A drop that was planned and did not happen."""

    drop: Drop
    reason: str


@dataclass(kw_only=True)
class Swept:
    """What a sweep did. `freed_bytes` as the survey measured them; `stopped`: it ended before the end of the plan."""

    dropped: list[Drop] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    freed_bytes: int = 0
    stopped: bool = False
    stayed: tuple[str, ...] = ()


class StoreIsBusy(Exception):
    """Nobody could be kept from noting uses: a process holds the gate, or the file system has no locks."""


def sweep(
    store: LocalStore, inventory: Inventory, drops: Iterable[Drop], *, remove: Remove, stop: Callable[[], bool] = lambda: False, force: bool = False
) -> Swept:
    """Remove `drops` in their order; with `force` what running processes use, too. Raises StoreIsBusy."""
    swept = Swept()
    left = iter(drops)
    checks = _Checks(store, inventory, respect_uses=not force)
    with removing(store, remove) as removal:
        while batch := list(islice(left, BATCH)):
            if stop():
                swept.stopped = True
                break
            with store.uses.alone() as is_alone:
                if not is_alone and not force:
                    raise StoreIsBusy
                checks.look_again()
                for drop in batch:
                    _drop(checks, drop, removal, swept)
            removal.empty()
    if swept.dropped:
        remove_empty_folders(store)
    swept.stayed = tuple(removal.stayed)
    return swept


def _drop(checks: _Checks, drop: Drop, removal: Removal, swept: Swept) -> None:
    reason = checks.objection(drop)
    if reason:
        checks.keep(drop)
        swept.skipped.append(Skipped(drop, reason))
        return
    freed = 0
    if removal.take(drop.name):
        freed += drop.size_bytes - sum(checks.inventory.things[name].size_bytes for name in drop.things)
    for name in drop.things:
        if checks.may_go(name) and removal.take(name):
            freed += checks.inventory.things[name].size_bytes
    swept.freed_bytes += freed
    swept.dropped.append(drop._replace(size_bytes=freed))


class _Checks:
    """What has happened since the survey. Asked only while nobody notes a use."""

    def __init__(self, store: LocalStore, inventory: Inventory, *, respect_uses: bool) -> None:
        self._respect_uses = respect_uses
        self.inventory = inventory
        self._store = store
        self._by_name = {root.name: root for root in inventory.roots}
        self._known = set(self._by_name) | set(inventory.things)
        self._new: list[Root] = []
        self._judged: tuple[tuple[User, ...], int, set[str]] | None = None
        self._roots_in_use: dict[str, str] = {}
        self._things_in_use: set[str] = set()
        self._kept: set[str] = set()

    def look_again(self) -> None:
        self._take_in(record_names(self._store), record_root)
        self._take_in(reference_names(self._store), reference_root)
        users = self._store.uses.others() if self._respect_uses else ()
        kept = self._kept_meanwhile()
        if (judged := (users, len(self._new), kept)) == self._judged:
            return  # half of the time that builds wait
        self._judged = judged
        used = in_use(users, [*self.inventory.roots, *self._new])
        self._roots_in_use = dict(used.roots)
        layers = used.layers | {layer for root in self._new for layer in root.layers} | kept
        roots = [self._by_name[name] for name in used.roots if name in self._by_name]
        blobs = {blob for root in (*self._new, *roots) for blob in root.blobs}
        self._things_in_use = self._things_of(layers, blobs)

    def _take_in(self, names: Iterable[str], read: Callable[[LocalStore, str], Root | None]) -> None:
        for name in set(names) - self._known:
            self._known.add(name)
            if (root := read(self._store, name)) is not None:
                self._new.append(root)

    def _kept_meanwhile(self) -> set[str]:
        """Layers of states that were kept since the survey, by processes that may have ended."""
        states = self._store.kept_states.all()
        return {layer for state in states if f"introspect/{state.id}" not in self._known for layer in state.layers}

    def objection(self, drop: Drop) -> str:
        """Why the drop must not happen now; "" if it may."""
        root = self._by_name.get(drop.name)
        if root is None:
            return "" if self.may_go(drop.name) else "in use"
        if drop.name in self._roots_in_use:
            return self._roots_in_use[drop.name]
        return "used meanwhile" if self._is_used_since(root) else ""

    def _is_used_since(self, root: Root) -> bool:
        if root.kind not in ("image", "stage", "reference"):
            return False
        try:
            return os.stat(os.path.join(self._store.paths.home, root.name)).st_mtime_ns != root.last_use_ns
        except OSError:
            return False

    def keep(self, drop: Drop) -> None:
        """What a root needs that stays after all stays with it, whichever drop would take it."""
        if (root := self._by_name.get(drop.name)) is not None:
            self._kept.update(self.inventory.things_of(root))

    def may_go(self, name: str) -> bool:
        thing = self.inventory.things[name]
        return name not in self._things_in_use and name not in self._kept and (thing.kind == "leftover" or is_unchanged(self._store.paths.home, thing))

    def _things_of(self, layers: Iterable[str], blobs: Iterable[str]) -> set[str]:
        """Names of all that layers and blobs may be in, whether or not the survey knew whose they are."""
        found = {blob_name(digest) for digest in blobs}
        unknown: list[str] = []
        for diff_id in layers:
            if diff_id in self.inventory.layers:
                found.update(self.inventory.needed((diff_id,), ()))
            else:
                unknown.append(diff_id)
        if unknown:
            found.update(self._unknown(unknown))
        return found

    def _unknown(self, layers: Sequence[str]) -> set[str]:
        wanted = {diff_id[7:] for diff_id in layers}
        wanted |= {blob.digest[7:] for diff_id in layers for blob in self._store.holding(DiffId(diff_id)).blobs}
        return {name for name in self.inventory.things if name.rpartition("/")[2].removesuffix(".json") in wanted}
