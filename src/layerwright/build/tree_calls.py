"""The one worker of a run, started with its first call; and what has to be done there because it is not this process that owns the files.

In a user namespace the files of trees belong to ids that only the worker may act for: it removes them, and reads what others may not read.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerwright.errors import Cancelled, LayerwrightError
from layerwright.host.files import remove_tree
from layerwright.oci.digest import ChainId, DiffId
from layerwright.runtime.flavours import Flavour, own_flavour
from layerwright.storage.local import LocalStore

if TYPE_CHECKING:
    from layerwright.build.options import Cancel
    from layerwright.runtime.worker import Worker

PROGRAM = (sys.executable, "-m", "layerwright.build.tree_worker")

StartWorker = Callable[[Sequence[str]], "Worker"]


class TreeCalls:
    """Thread-safe. `flavour` says who the worker is."""

    def __init__(self, home: str, flavour: Flavour, start: StartWorker) -> None:
        self.home = home
        self.flavour = flavour
        self._start = start
        self._guard = threading.Lock()
        self._worker: Worker | None = None

    def close(self) -> None:
        with self._guard:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def call(
        self,
        task: str,
        arguments: Mapping[str, Any],
        *,
        on_event: Callable[[Any], None] = lambda event: None,
        cancel: Cancel | None = None,
        files: tuple[int, ...] = (),
    ) -> Any:
        with self._guard:
            if self._worker is None:
                self._worker = self._start((*PROGRAM, self.flavour.encoded()))
            worker = self._worker
        return worker.call(task, {"home": self.home, "flavour": self.flavour.name, **arguments}, on_event=on_event, cancel=cancel, fds=files)

    def remove(self, path: str) -> tuple[str, ...]:
        """`host.files.remove_tree`, by the worker where the files are not this user's own."""
        try:
            return remove_tree(path)
        except PermissionError:
            if not self.flavour.user_namespace:
                raise
        left: tuple[str, ...] = self.call("remove", {"path": path})
        return left

    def discard(self, identity: DiffId | ChainId) -> None:
        """Make a tree of the store a miss, and remove it."""
        self.call("discard", {"identity": identity})

    def write_tar(self, diff_id: DiffId, out: Callable[[bytes], object]) -> str:
        """As `build.retar.write_again`, of an unpacked layer of the store."""

        def take(piece: bytes) -> None:
            out(piece)

        wrong: str = self.call("write_tar", {"layer": diff_id}, on_event=take)
        return wrong


def tree_calls(store: LocalStore) -> TreeCalls:
    """For trees of the flavour of this process."""
    return TreeCalls(store.paths.home, own_flavour(os.environ.get("PATH", "")), start_worker)


def remove_owned(store: LocalStore, paths: Sequence[str]) -> tuple[str, ...]:
    """Remove trees and whatever else of a store, files of mapped owners too; what had to stay: behind a mount point, or owned by ids not mapped here.

    A worker is started only if something is found that this process may not remove.
    """
    calls = tree_calls(store)
    left: list[str] = []
    try:
        for path in paths:
            try:
                left += calls.remove(path)
            except Cancelled:
                raise
            except (OSError, LayerwrightError):
                left.append(path)
    finally:
        calls.close()
    return tuple(left)


def start_worker(argv: Sequence[str]) -> Worker:
    """The worker, which really starts with its first call. Of the environment it gets only what finds programs and this package."""
    from layerwright.runtime.worker import Worker as Started

    env = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV", "XDG_RUNTIME_DIR") if name in os.environ
    }
    return Started(argv, env | {"PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", "")})
