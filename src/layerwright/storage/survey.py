"""Reading a whole store from the disk, without changing it: every thing with its size, every root with what it needs.

Things are listed before the roots: what is published meanwhile may have more than is listed, never less. Trees are immutable and walking them is
what takes long, so their sizes are remembered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from layerwright.host.locks import is_free
from layerwright.oci.digest import BlobDigest, ChainId, DiffId, chain_id, is_digest
from layerwright.storage.disk_use import disk_use
from layerwright.storage.inventory import Copy, Inventory, Layer, Root, Thing, ThingKind, blob_name
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import INDEX_PARTS
from layerwright.storage.roots import Made, build_dir_roots, kept_state_roots, record_names, record_root, reference_names, reference_root

_SIZES = "tree sizes"  # the memo's key
Measure = Callable[[str], int]


class _Listed(NamedTuple):
    path: str
    name: str
    found: os.stat_result


def survey(store: LocalStore, *, measure: Measure = disk_use, check: Callable[[], object] = lambda: None) -> Inventory:
    """Everything that is in the store now. `measure`: of a tree, for owners that only the worker can look at; `check` is called often, to stop by raising."""
    things: dict[str, Thing] = {}
    for thing in _things(store, measure, check):
        things[thing.name] = thing
    made: Made = {}
    roots: list[Root] = []
    for name in record_names(store):
        check()
        _add(record_root(store, name, made), name, store, roots, things)
    for name in reference_names(store):
        _add(reference_root(store, name, made), name, store, roots, things)
    roots += kept_state_roots(store)
    roots += build_dir_roots(store)
    layers = _layers(store, roots, things, made, check)
    total = sum(thing.size_bytes for thing in things.values()) + sum(root.size_bytes for root in roots) + _rest(store)
    return Inventory(home=store.paths.home, total_bytes=total, things=things, roots=tuple(roots), layers=layers)


def _add(root: Root | None, name: str, store: LocalStore, roots: list[Root], things: dict[str, Thing]) -> None:
    """A root, or what should be one and cannot be read."""
    if root is not None:
        roots.append(root)
        return
    with suppress(OSError):
        found = os.stat(os.path.join(store.paths.home, name))
        things[name] = Thing(name, "damaged", found.st_blocks * 512, found.st_ctime_ns)


# Things.


def _things(store: LocalStore, measure: Measure, check: Callable[[], object]) -> Iterator[Thing]:
    home = store.paths.home
    for one in _below(home, "blobs/sha256", depth=2):
        if len(one.path.rpartition("/")[2]) == 64:
            yield _thing(one, "blob")
    check()
    yield from _indexes(home)
    for one in _below(home, "layers"):
        yield _thing(one, "holding")
    for one in _below(home, "memo"):
        yield _thing(one, "memo")
    for one in _below(home, "locks"):
        if _is_free(one.path):
            yield _thing(one, "lock")
    yield from _trees(store, measure, check)
    for one in _below(home, "work"):
        if _is_free(one.path):
            yield Thing(one.name, "leftover", disk_use(one.path), one.found.st_ctime_ns)


def _thing(one: _Listed, kind: ThingKind) -> Thing:
    return Thing(one.name, kind, one.found.st_blocks * 512, one.found.st_ctime_ns)


def _below(home: str, folder: str, *, depth: int = 1) -> Iterator[_Listed]:
    """What lies `depth` levels below a folder of the store."""
    try:
        names = os.listdir(os.path.join(home, folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        inner = f"{folder}/{name}" if folder else name
        if depth > 1:
            yield from _below(home, inner, depth=depth - 1)
            continue
        with suppress(OSError):
            path = os.path.join(home, inner)
            yield _Listed(path, inner, os.lstat(path))


def _indexes(home: str) -> Iterator[Thing]:
    """The parts of an index as one thing."""
    sizes: dict[str, tuple[int, int]] = {}
    for one in _below(home, "indexes"):
        name, _, part = one.name.rpartition(".")
        if part in INDEX_PARTS:
            size, changed = sizes.get(name, (0, 0))
            sizes[name] = size + one.found.st_blocks * 512, max(changed, one.found.st_ctime_ns)
    yield from (Thing(name, "index", size, changed) for name, (size, changed) in sizes.items())


def _trees(store: LocalStore, measure: Measure, check: Callable[[], object]) -> Iterator[Thing]:
    known = store.memo_get(_SIZES) or {}
    measured: dict[str, list[int]] = {}
    try:
        yield from _measured_trees(store, measure, check, known, measured)
    except BaseException:
        measured = known | measured  # stopped: what was measured need not be measured again
        raise
    finally:
        if measured != known:
            store.memo_put(_SIZES, measured)


def _measured_trees(store: LocalStore, measure: Measure, check: Callable[[], object], known: dict[str, Any], measured: dict[str, list[int]]) -> Iterator[Thing]:
    for one in _below(store.paths.home, "", depth=1):
        if not one.path.rpartition("/")[2].startswith("trees."):
            continue
        for tree in _below(store.paths.home, one.name):
            if not stat.S_ISDIR(tree.found.st_mode) or len(tree.path.rpartition("/")[2]) != 64:
                continue
            check()
            mark = [tree.found.st_ino, tree.found.st_ctime_ns]
            said = known.get(tree.name)
            size = said[2] if isinstance(said, list) and said[:2] == mark else measure(tree.path)
            measured[tree.name] = [*mark, size]
            yield Thing(tree.name, "tree", size, tree.found.st_ctime_ns)


def _is_free(path: str) -> bool:
    """Whether whoever made this lock or directory has died."""
    try:
        return is_free(path)
    except OSError:
        return False


def _rest(store: LocalStore) -> int:
    """The directories of the store, and what else lies in it: others' work in progress, the key, what is not ours."""
    home = store.paths.home
    listed = {"blobs", "indexes", "layers", "memo", "locks", "records", "images", "introspect", "mounts"}
    total = _blocks(home)
    for one in _below(home, ""):
        top = one.name
        if top == "work":
            total += _blocks(one.path) + sum(disk_use(inner.path) for inner in _below(home, "work") if not _is_free(inner.path))
        elif top in listed or top.startswith("trees."):
            total += _directories(one.path, 2 if top in ("blobs", "records") else 1 if top == "mounts" else 0)
        else:
            total += disk_use(one.path)
    return total


def _directories(path: str, depth: int) -> int:
    total = _blocks(path)
    if depth:
        with suppress(OSError), os.scandir(path) as entries:
            total += sum(_directories(entry.path, depth - 1) for entry in entries if entry.is_dir(follow_symlinks=False))
    return total


def _blocks(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0


# Layers.


def _layers(store: LocalStore, roots: list[Root], things: dict[str, Thing], made: Made, check: Callable[[], object]) -> dict[str, Layer]:
    flavours = sorted({name.split("/")[0] for name, thing in things.items() if thing.kind == "tree"})
    chains = _chain_trees(roots, things)
    found: dict[str, Layer] = {}
    for root in roots:
        for diff_id in root.layers:
            if diff_id not in found and is_digest(diff_id):
                check()
                found[diff_id] = _layer(store, DiffId(diff_id), things, flavours, chains, made.get(diff_id, ""))
    return found


def _layer(store: LocalStore, diff_id: DiffId, things: dict[str, Thing], flavours: list[str], chains: dict[str, list[str]], made: str) -> Layer:
    holding = store.holding(diff_id)
    copies = [Copy(blob_name(diff_id), "tar")] + [Copy(blob_name(one.digest), "packed") for one in holding.blobs if one.digest != BlobDigest(diff_id)]
    own = f"trees.{store.flavour}"
    copies += [Copy(f"{one}/{diff_id[7:]}", "tree" if one == own else "foreign tree") for one in flavours]
    copies += [Copy(name, "chain tree" if name.startswith(f"{own}/") else "foreign tree") for name in chains.get(diff_id, ())]
    index, kept = f"indexes/{diff_id[7:]}", f"layers/{diff_id[7:]}.json"
    return Layer(
        diff_id=diff_id,
        copies=tuple(copy for copy in dict.fromkeys(copies) if copy.thing in things),
        belongings=tuple(name for name in (index, kept) if name in things),
        made="base" if made == "base" else "declared" if made == "declared" else "commands" if made == "commands" else "",
        indexed=store.has_index(diff_id),
        origin=bool(holding.origins),
    )


def _chain_trees(roots: list[Root], things: dict[str, Thing]) -> dict[str, list[str]]:
    """Trees that go by a chain id, by the layer they hold. Chains are hashed only while such trees are left."""
    trees: dict[str, list[str]] = {}
    for name, thing in things.items():
        if thing.kind == "tree":
            trees.setdefault(name.rpartition("/")[2], []).append(name)
    wanted = trees.keys() - {diff_id[7:] for root in roots for diff_id in root.layers}
    found: dict[str, list[str]] = {}
    seen: set[tuple[str, ...]] = set()
    for root in roots:
        if not wanted or root.layers in seen:
            continue
        seen.add(root.layers)
        chain: ChainId | None = None
        for diff_id in root.layers:
            chain = chain_id([DiffId(diff_id)] if chain is None else [DiffId(chain), DiffId(diff_id)])
            if chain is not None and chain[7:] in wanted:
                found.setdefault(diff_id, []).extend(trees[chain[7:]])
                wanted.discard(chain[7:])
    return found
