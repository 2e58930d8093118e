"""Removing a whole store, or all that one project has in it. No limit and no protection but that of running builds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from layerwright.cleanup.clean_up import CannotCleanUp
from layerwright.cleanup.policy import Drop
from layerwright.cleanup.sweep import StoreIsBusy, sweep
from layerwright.errors import LayerwrightError
from layerwright.storage.disk_use import disk_use
from layerwright.storage.inventory import Inventory, Root
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import INDEX_PARTS, project_folder
from layerwright.storage.removal import Hands, removing
from layerwright.storage.survey import survey
from layerwright.storage.uses import User

# What makes things exist goes first: at no moment does a record name layers that are gone by our doing.
_ORDER = ("memo", "records", "images", "introspect", "layers", "indexes", "trees.", "blobs", "mounts", "locks", "key")
# What our folders hold. A home that was given by mistake may have folders of these names, with somebody's pictures in them.
_OURS = {
    "memo": r"[0-9a-f]{64}\.json",
    "records": r"image|stage",
    "images": r"[0-9a-f]{32}-[A-Za-z0-9._-]+\.json",
    "introspect": r"[a-z0-9._-]+-[0-9a-f]{4}",
    "layers": r"[0-9a-f]{64}\.json",
    "indexes": rf"[0-9a-f]{{64}}\.({'|'.join(INDEX_PARTS)})",
    "trees.": r"[0-9a-f]{64}",
    "blobs": r"sha256",
    "mounts": r"[A-Za-z0-9._-]+",
    "locks": r".+\.lock",
}


class BuildsRun(LayerwrightError):
    """Processes work in the store."""


class Purged(NamedTuple):
    """`drops`: what went, or with a dry run would go; `stayed`: paths that could not be removed."""

    drops: tuple[Drop, ...]
    stayed: tuple[str, ...]

    @property
    def freed_bytes(self) -> int:
        return sum(drop.size_bytes for drop in self.drops)


def refuse_running(users: Sequence[User], home: str) -> None:
    """Raises BuildsRun, which names the processes, if there are any."""
    if users:
        pids = sorted({user.pid for user in users} - {0})  # of a process's further directories only the first says whose they are
        shown = ", ".join(map(str, pids)) or f"unknown ({users[0].path})"
        plural = "es" if len(pids) > 1 else ""
        raise BuildsRun(f"in use by process{plural} {shown}", where=home, mend="wait until they have ended, or use --force: then they may fail")


def purge(store: LocalStore, hands: Hands, *, dry_run: bool = False, force: bool = False) -> Purged:
    """Remove everything that is in the store. Raises BuildsRun unless `force`, CannotCleanUp."""
    if not force:
        refuse_running(store.uses.others(), store.paths.home)
    found = list(_tops(store, hands.measure))
    if dry_run:
        return Purged(tuple(found), ())
    with removing(store, hands.remove) as removal:
        with store.uses.alone() as is_alone:
            if not force:
                refuse_running(store.uses.others(), store.paths.home)
                if not is_alone:
                    raise CannotCleanUp("the file system of the store has no locks, so nothing tells what builds use", mend="use --force if none runs")
            gone = [drop for drop in found if removal.take(drop.name)]
            _unlink(store.paths.gate)
        removal.empty()
    stayed = tuple(removal.stayed)
    store.close()
    for folder in (store.paths.work, store.paths.home):
        with suppress(OSError):
            os.rmdir(folder)  # unless somebody is in it, or it holds what is not ours
    return Purged(tuple(gone), stayed)


def _tops(store: LocalStore, measure: Callable[[str], int]) -> Iterator[Drop]:
    home = store.paths.home
    try:
        names = sorted(os.listdir(home))
    except FileNotFoundError:
        return
    for wanted in _ORDER:
        for name in names:
            if name == wanted or (wanted.endswith(".") and name.startswith(wanted)):
                path = os.path.join(home, name)
                inner = os.listdir(path) if os.path.isdir(path) else []
                ours = [one for one in inner if re.fullmatch(_OURS.get(wanted, ".*"), one)]
                sizes = {one: (measure if wanted == "trees." else disk_use)(os.path.join(path, one)) for one in ours}
                if ours == inner:
                    size = sum(sizes.values()) if wanted == "trees." else disk_use(path)
                    yield Drop(name, "folder" if os.path.isdir(path) else "file", size, None, "", "all of the store goes")
                else:
                    yield from (Drop(f"{name}/{_taken(one, wanted)}", "entry", size, None, "", "all of the store goes") for one, size in sizes.items())


def _taken(name: str, folder: str) -> str:
    """As a Removal has it: the parts of an index go together."""
    return name.partition(".")[0] if folder == "indexes" else name


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


# One project.


def purge_project(store: LocalStore, project: str, hands: Hands, *, dry_run: bool = False, force: bool = False) -> Purged:
    """Remove the stages, images, kept states and build_dir mounts of a project, and what only they need. Raises BuildsRun unless `force`, CannotCleanUp."""
    if not force:
        refuse_running(store.uses.others(), store.paths.home)
    inventory = survey(store, measure=hands.measure)
    drops = tuple(drops_of(inventory, project))
    if dry_run:
        return Purged(drops, ())
    try:
        swept = sweep(store, inventory, drops, remove=hands.remove, force=force)
    except StoreIsBusy as error:
        raise CannotCleanUp("the store is locked: a process holds it, or its file system has no locks", mend="use --force if no build runs") from error
    return Purged(tuple(swept.dropped), swept.stayed)


def drops_of(inventory: Inventory, project: str) -> Iterator[Drop]:
    """What goes with a project: images before stages, and each thing with the last of those that need it."""
    others = [root for root in inventory.roots if not _belongs(root, project)]
    shared = {digest for root in others for digest in (*root.stages, root.base)}
    mine = [root for root in inventory.roots if _belongs(root, project) and root.digest not in shared - {""}]
    needs: dict[str, int] = {}
    for root in inventory.roots:
        for name in inventory.things_of(root):
            needs[name] = needs.get(name, 0) + 1
    for root in sorted(mine, key=lambda one: (one.kind != "image", -len(one.stages))):
        things = []
        for name in inventory.things_of(root):
            needs[name] -= 1
            if not needs[name]:
                things.append(name)
        size = root.size_bytes + sum(inventory.things[name].size_bytes for name in things)
        yield Drop(root.name, root.kind, size, root.last_use_ns, root.label, f"of project {project}", tuple(things))


def _belongs(root: Root, project: str) -> bool:
    if root.kind == "build_dir":
        return root.project == project_folder(project)
    return root.kind != "reference" and root.project == project
