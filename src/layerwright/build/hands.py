"""Looking at and removing trees for a clean-up: as this user, or by the worker where files belong to mapped owners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from layerwright.build.tree_calls import TreeCalls, tree_calls
from layerwright.storage.disk_use import disk_use
from layerwright.storage.local import LocalStore
from layerwright.storage.removal import Hands


@contextmanager
def hands_of(store: LocalStore) -> Iterator[Hands]:
    """Until the block ends; a worker is started only if there is something for it."""
    calls = tree_calls(store)
    try:
        yield Hands(measure=lambda path: _measured(calls, path), remove=calls.remove)
    finally:
        calls.close()


def _measured(calls: TreeCalls, path: str) -> int:
    if not calls.flavour.user_namespace:
        return disk_use(path)
    size: int = calls.call("measure", {"path": path})
    return size
