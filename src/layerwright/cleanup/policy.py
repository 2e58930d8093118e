"""What goes, in which order, and why. Pure: an inventory, what is in use and how much to free come in; drops in order of removal come out.

The order, from the smallest loss for the room it gives (docs/decisions/0009):
1. what nothing leads to: leftovers of dead processes, things no root needs, records that cannot be read. Always.
2. only while more has to be freed, by age: spare copies (what can be made again from another copy that stays) count as four times as old as they are;
   roots go as old as they are, each followed by what only it needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from layerwright.cleanup.ages import DAY_NS, last_uses, stands_below
from layerwright.cleanup.spares import spare_copies
from layerwright.storage.inventory import Inventory, Root, Thing
from layerwright.storage.uses import CLOCK_SLACK_NS, User, layer_use, path_use, record_use

BUILD_DIR_DAYS = 30
SPARE_AGES = 4

_GARBAGE = {
    "leftover": "left behind by a process that died",
    "lock": "left behind by a process that died",
    "damaged": "cannot be read",
}


class Drop(NamedTuple):
    """Something to remove, and after it the `things` that nothing else needs then. `size_bytes`: all together. `age`: what it was sorted by."""

    name: str
    kind: str
    size_bytes: int
    last_use_ns: int | None
    label: str
    reason: str
    things: tuple[str, ...] = ()


class Kept(NamedTuple):
    """A root that stays, and why."""

    name: str
    kind: str
    last_use_ns: int
    label: str
    reason: str


class Plan(NamedTuple):
    """`drops` in the order of removal; `freed_bytes` if all of it works out; `short_bytes`: what is lacking to the aim even then."""

    drops: tuple[Drop, ...]
    kept: tuple[Kept, ...]
    freed_bytes: int
    short_bytes: int


class InUse(NamedTuple):
    """What running processes use, out of their notes. `since_ns`: what is younger may be in the making; None if no process runs."""

    roots: Mapping[str, str]  # name of the root -> the reason to keep it
    layers: frozenset[str]
    since_ns: int | None


def in_use(users: Sequence[User], roots: Iterable[Root]) -> InUse:
    """Roots that processes noted, with the images those stand on; and the layers they need or noted."""
    since_ns = min((user.began_ns for user in users if user.pid), default=None)
    owners: dict[str, User] = {name: user for user in users for name in user.names}
    if not owners:
        return InUse({}, frozenset(), since_ns)
    found: dict[str, str] = {}
    layers = {name[len(layer_use("")) :] for name in owners if name.startswith(layer_use(""))}
    known = tuple(roots)
    below = stands_below(known)
    for root in known:
        note = record_use(root.kind, root.digest) if root.kind in ("image", "stage") else path_use(root.name)
        if note in owners:
            pid = owners[note].pid
            reason = f"in use by process {pid}" if pid else "in use"
            for one in (root, *below(root)):
                found.setdefault(one.name, reason)
                layers.update(one.layers)
    return InUse(found, frozenset(layers), since_ns)


def plan(inventory: Inventory, *, to_free: int, now_ns: int, users: Sequence[User] = (), keep_since_ns: int | None = None) -> Plan:
    """What to remove so that at least `to_free` bytes are freed, if that much may go. What was used since `keep_since_ns` stays."""
    return _Planning(inventory, to_free, now_ns, in_use(users, inventory.roots), keep_since_ns).run()


@dataclass
class _Planning:
    inventory: Inventory
    to_free: int
    now_ns: int
    used: InUse
    keep_since_ns: int | None = None
    _needs: dict[str, int] = field(default_factory=dict)  # thing -> how many roots that are left need it
    _gone: set[str] = field(default_factory=set)
    _drops: list[Drop] = field(default_factory=list)
    _freed: int = 0

    def run(self) -> Plan:
        roots = self.inventory.roots
        uses = last_uses(roots)
        for root in roots:
            for name in self.inventory.things_of(root):
                self._needs[name] = self._needs.get(name, 0) + 1
        for name in self.inventory.needed(tuple(self.used.layers), ()):
            self._needs[name] = self._needs.get(name, 0) + 1
        pinned = {root.name: reason for root in roots if (reason := self._pinned(root, uses))}
        self._drop_garbage()
        candidates = [*self._spares(uses), *self._roots(uses, pinned)]
        for _, act in sorted(candidates, key=lambda one: one[0]):
            if self._freed >= self.to_free:
                break
            act()
        kept = tuple(self._kept(root, uses[root.name], pinned) for root in roots if root.name not in self._gone)
        return Plan(tuple(self._drops), kept, self._freed, max(self.to_free - self._freed, 0))

    # What stays whatever the limit says.

    def _pinned(self, root: Root, uses: Mapping[str, int]) -> str:
        if root.name in self.used.roots:
            return self.used.roots[root.name]
        if self._is_fresh(uses[root.name]):
            return "used by what has just run"
        if root.held:
            return "somebody is in it"
        if root.loaded:
            return "loaded from a file, so nothing could bring it back; `layerwright image rm` removes it"
        if root.kind == "build_dir" and self.now_ns - uses[root.name] < BUILD_DIR_DAYS * DAY_NS:
            return f"a build_dir of a project that was used within {BUILD_DIR_DAYS} days"
        return ""

    def _is_fresh(self, last_use_ns: int) -> bool:
        return self.keep_since_ns is not None and last_use_ns >= self.keep_since_ns

    def _is_safe(self, thing: Thing) -> bool:
        """Whether no running process can be about to use it without having said so."""
        return self.used.since_ns is None or thing.changed_ns < self.used.since_ns - CLOCK_SLACK_NS

    # 1. What nothing leads to.

    def _drop_garbage(self) -> None:
        noted = {one[7:] for one in self.used.layers}  # a layer that no root needs yet
        for thing in self.inventory.things.values():
            if thing.kind == "memo" or self._needs.get(thing.name) or thing.name.rpartition("/")[2].removesuffix(".json") in noted:
                continue
            if thing.kind in ("leftover", "lock") or self._is_safe(thing):
                reason = _GARBAGE.get(thing.kind, "nothing needs it")
                self._drop(Drop(thing.name, thing.kind, thing.size_bytes, None, "", reason))

    # 2. What is least worth its room.

    def _spares(self, uses: Mapping[str, int]) -> Iterator[tuple[tuple[int, int], _Act]]:
        for spare in spare_copies(self.inventory, uses):
            thing = self.inventory.things[spare.thing]
            if spare.layer not in self.used.layers and self._is_safe(thing) and not self._is_fresh(spare.last_use_ns):
                age = self.now_ns - spare.last_use_ns
                drop = Drop(thing.name, thing.kind, thing.size_bytes, spare.last_use_ns, spare.label, spare.reason)
                yield (-age * SPARE_AGES if age > 0 else -age, 0), _Act(self, drop)

    def _roots(self, uses: Mapping[str, int], pinned: Mapping[str, str]) -> Iterator[tuple[tuple[int, int], _Act]]:
        """Oldest first; of equal age what stands on others before what it stands on."""
        below = stands_below(self.inventory.roots)
        for root in self.inventory.roots:
            if root.name not in pinned:
                height = len(below(root)) if root.kind == "image" else 0
                rank = -height if root.kind == "image" else 1 + 1000 - len(root.stages) if root.kind == "stage" else 2000
                reason = "least recently used"
                yield (uses[root.name] - self.now_ns, rank), _Act(self, Drop(root.name, root.kind, root.size_bytes, uses[root.name], root.label, reason), root)

    def drop(self, drop: Drop, root: Root | None) -> None:
        if drop.name in self._gone:
            return
        if root is None:
            self._drop(drop)
            return
        things = []
        for name in self.inventory.things_of(root):
            self._needs[name] -= 1
            if not self._needs[name] and name not in self._gone:
                things.append(name)
        self._gone.update(things)
        size = drop.size_bytes + sum(self.inventory.things[name].size_bytes for name in things)
        self._drop(drop._replace(things=tuple(things), size_bytes=size))

    def _drop(self, drop: Drop) -> None:
        self._gone.add(drop.name)
        self._freed += drop.size_bytes
        self._drops.append(drop)

    def _kept(self, root: Root, last_use_ns: int, pinned: Mapping[str, str]) -> Kept:
        reason = pinned.get(root.name) or ("used more recently than what goes" if self.to_free > 0 else "there is room for it")
        return Kept(root.name, root.kind, last_use_ns, root.label, reason)


class _Act(NamedTuple):
    planning: _Planning
    drop: Drop
    root: Root | None = None

    def __call__(self) -> None:
        self.planning.drop(self.drop, self.root)
