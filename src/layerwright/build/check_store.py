"""Checks a whole store: every blob by its digest, every tree by its index and contents, every small file by its checksum; and heals what it can.

What is damaged goes, and before it the records and references that would be left without a part. An index is made again from the layer's bytes, a
tree is unpacked again, where those bytes are here. All else is what a build heals: it finds a miss, and makes or fetches what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from layerwright.build.cabinet import Cabinet
from layerwright.build.damages import Losses, losses_of
from layerwright.build.tree_calls import TreeCalls, tree_calls
from layerwright.build.trees import Trees
from layerwright.errors import LayerwrightError
from layerwright.layers.index import BadIndex, load_index
from layerwright.oci.digest import ChainId, DiffId, chain_id
from layerwright.storage.contract import MissingBlob
from layerwright.storage.inventory import Inventory
from layerwright.storage.local import LocalStore
from layerwright.storage.removal import is_unchanged, removing
from layerwright.storage.survey import survey
from layerwright.storage.verify import (
    Damage,
    wrong_blob,
    wrong_indexes,
    wrong_kept_states,
    wrong_key,
    wrong_records,
    wrong_references,
    wrong_sealed,
)

if TYPE_CHECKING:
    from layerwright.build.options import Cancel
    from layerwright.registry.client import Registry

AT_ONCE = 4  # hashing frees the interpreter
Advance = Callable[[int], object]


class Finding(NamedTuple):
    """Something damaged: `what` it is, what is `wrong`, what that `means`, and what was `done` about it ("" with a dry run)."""

    kind: str
    name: str
    wrong: str
    means: str
    done: str


class Checked(NamedTuple):
    """`findings` in the order of removal. `blobs`, `trees`, `indexes`, `records`: how many were looked at; `unchecked`: trees that nothing describes, or that
    another user's ids made."""

    findings: tuple[Finding, ...]
    blobs: int
    trees: int
    indexes: int
    records: int
    unchecked: int


def check_store(store: LocalStore, cancel: Cancel, *, dry_run: bool, advance: Callable[[int, int], object] = lambda done, total: None) -> Checked:
    """Check everything, and unless `dry_run` heal it. `advance` hears how many of how many bytes are done. Raises Cancelled, MachineLacks."""
    calls = tree_calls(store)
    try:
        return _Check(store, calls, cancel, advance).run(dry_run=dry_run)
    finally:
        calls.close()


class _Check:
    def __init__(self, store: LocalStore, calls: TreeCalls, cancel: Cancel, advance: Callable[[int, int], object]) -> None:
        self._store, self._calls, self._cancel, self._tell = store, calls, cancel, advance
        owner = calls if calls.flavour.user_namespace else None
        self._cabinet = Cabinet(store, _no_registry, owner=owner, cancelled=cancel.is_set)
        self._trees = Trees(store, self._cabinet, calls)
        self._done = self._total = 0

    def run(self, *, dry_run: bool) -> Checked:
        inventory = survey(self._store, check=self._cancel.check)
        self._total = sum(thing.size_bytes for thing in inventory.things.values() if thing.kind in ("blob", "tree"))
        described, unchecked = self._described(inventory)
        damages = [*self._small(), *self._blobs(inventory)]
        bad = {damage.name for damage in damages}
        damages += wrong_references(self._store, lambda digest: f"blobs/sha256/{digest[7:9]}/{digest[7:]}" in bad)
        unreadable = {damage.name for damage in damages if damage.kind == "index"}
        damages += self._wrong_trees([one for one in described if f"indexes/{one[1][7:]}" not in unreadable])
        losses = losses_of(inventory, damages)
        done = {} if dry_run else self._heal(inventory, damages, losses)
        return Checked(
            findings=tuple(self._findings(damages, losses, done)),
            blobs=sum(thing.kind == "blob" for thing in inventory.things.values()),
            trees=len(described),
            indexes=sum(thing.kind == "index" for thing in inventory.things.values()),
            records=sum(root.kind in ("image", "stage") for root in inventory.roots) + sum(damage.kind == "record" for damage in damages),
            unchecked=unchecked,
        )

    def _advance(self, size: int) -> None:
        self._done += size
        self._tell(self._done, self._total)
        self._cancel.check()

    # Looking.

    def _small(self) -> Iterator[Damage]:
        yield from wrong_records(self._store)
        yield from wrong_sealed(self._store)
        yield from wrong_kept_states(self._store)
        yield from wrong_key(self._store)
        yield from wrong_indexes(self._store, self._wrong_index)

    def _wrong_index(self, diff_id: DiffId) -> str:
        self._cancel.check()
        try:
            index = load_index(diff_id, lambda part: self._store.index_part(diff_id, part))
            if index is not None:
                index.entries  # noqa: B018  (reads every part)
        except BadIndex as error:
            return str(error)
        return ""

    def _blobs(self, inventory: Inventory) -> list[Damage]:
        names = [thing.name for thing in inventory.things.values() if thing.kind == "blob"]

        def look(name: str) -> Damage | None:
            wrong = wrong_blob(os.path.join(inventory.home, name), f"sha256:{name[-64:]}", self._advance)
            return Damage("blob", name, wrong) if wrong else None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [found for found in pool.map(look, names) if found is not None]

    def _described(self, inventory: Inventory) -> tuple[list[tuple[str, DiffId, tuple[DiffId, ...]]], int]:
        """The trees of this flavour whose layer has an index: identity, layer, and the layers below where it stands on them. And how many are not."""
        folder = f"trees.{self._store.flavour}"
        chains = _chains(inventory)
        found = []
        trees = [thing.name for thing in inventory.things.values() if thing.kind == "tree"]
        for name in trees:
            place, _, digits = name.rpartition("/")
            identity = f"sha256:{digits}"
            layer, below = chains.get(identity, (DiffId(identity), ()))
            if place == folder and self._store.has_index(layer):
                found.append((identity, layer, below))
        return found, len(trees) - len(found)

    def _wrong_trees(self, described: Sequence[tuple[str, DiffId, tuple[DiffId, ...]]]) -> list[Damage]:
        def look(one: tuple[str, DiffId, tuple[DiffId, ...]]) -> list[Damage]:
            identity, layer, below = one
            answer: list[tuple[str, str]] = self._calls.call("wrong_trees", {"trees": [(identity, layer, list(below))]}, cancel=self._cancel)
            path = self._store.tree_path(self._store.flavour, ChainId(identity))
            self._advance(0)
            return [Damage("tree", os.path.relpath(path, self._store.paths.home), wrong) for _, wrong in answer]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [damage for found in pool.map(look, described) for damage in found]

    # Healing.

    def _heal(self, inventory: Inventory, damages: Sequence[Damage], losses: Losses) -> dict[str, str]:
        """What was done about each damage, by name."""
        done: dict[str, str] = {}
        doomed = [*losses.roots, *(damage.name for damage in damages)]
        with removing(self._store, self._calls.remove) as removal, self._store.uses.alone():
            for name in doomed:
                thing = inventory.things.get(name)
                if thing is not None and not is_unchanged(inventory.home, thing):
                    done[name] = "made anew meanwhile"
                elif removal.take(name):
                    done[name] = "removed"
        for damage in damages:
            if damage.kind == "index" and self._is_made_again(damage.name):
                done[damage.name] = "made again from the layer"
        for damage in damages:
            if damage.kind == "tree" and self._is_unpacked_again(inventory, f"sha256:{damage.name[-64:]}"):
                done[damage.name] = "unpacked again"
        return done

    def _is_made_again(self, name: str) -> bool:
        diff_id = DiffId(f"sha256:{name.rpartition('/')[2]}")
        try:
            if self._cabinet.stored(diff_id) is None:
                return False
            self._cabinet.index(diff_id)
            return self._store.has_index(diff_id)
        except (MissingBlob, BadIndex, LayerwrightError):
            return False

    def _is_unpacked_again(self, inventory: Inventory, identity: str) -> bool:
        """Where the bytes of the layer and of those below are here."""
        for root in inventory.roots:
            layers = tuple(DiffId(one) for one in root.layers)
            for number, layer in enumerate(layers, 1):
                if identity in (layer, chain_id(layers[:number])) and all(self._cabinet.stored(one) is not None for one in layers[:number]):
                    try:
                        self._trees.make(layers[:number], self._cancel)
                    except (MissingBlob, BadIndex):
                        return False
                    return self._store.has_tree(self._store.flavour, identity)
        return False

    def _findings(self, damages: Sequence[Damage], losses: Losses, done: Mapping[str, str]) -> Iterator[Finding]:
        for name in losses.roots:
            yield Finding(losses.kinds[name], name, losses.roots[name], "it is built again when it is asked for", done.get(name, ""))
        for damage in damages:
            yield Finding(damage.kind, damage.name, damage.wrong, losses.means(damage), done.get(damage.name, ""))


def _chains(inventory: Inventory) -> dict[str, tuple[DiffId, tuple[DiffId, ...]]]:
    """Chain ids of all chains: the layer on top, and the layers below it."""
    found: dict[str, tuple[DiffId, tuple[DiffId, ...]]] = {}
    if not any(copy.kind == "chain tree" for layer in inventory.layers.values() for copy in layer.copies):
        return found
    for layers in {root.layers for root in inventory.roots}:
        known = tuple(DiffId(one) for one in layers)
        for number in range(1, len(known)):
            chain = chain_id(known[: number + 1])
            assert chain is not None
            found[chain] = known[number], known[:number]
    return found


def _no_registry() -> Registry:
    raise MissingBlob("a layer is not in the store, and a check fetches nothing", mend="build the image")
