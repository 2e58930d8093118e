"""Unpacked layers, as overlay lower directories. One flavour for each way of mapping owners: a tree of one is wrong in another."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from layerwright.host.files import make_private, remove_tree, telling_full, with_parent
from layerwright.storage.paths import StorePaths
from layerwright.storage.work import WorkArea


class Trees:
    """The folders `trees.<flavour>/` of a store.

    What moves or removes a tree has to run where the owners in it are mapped: as root, or in the worker.
    """

    def __init__(self, paths: StorePaths, area: WorkArea) -> None:
        self._paths = paths
        self._area = area

    def has(self, flavour: str, identity: str) -> bool:
        """Whether the tree is here; before its first use in a run its user checks it against the layer's index."""
        return os.access(f"{self._paths.tree(flavour, identity)}/", os.F_OK)  # the slash: a directory

    def adopt(self, made: str, flavour: str, identity: str, *, remove: Callable[[str], object] = remove_tree) -> str:
        """Move the finished tree `made`, which the caller has synced, into place and return its path there.

        If another process was first, its tree is the one, and `made` is removed.
        """
        path = self._paths.tree(flavour, identity)
        try:
            with telling_full(path):
                make_private(os.path.dirname(path))
                with_parent(path, lambda: os.rename(made, path))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove(made)
        return path

    def discard(self, flavour: str, identity: str, *, remove: Callable[[str], object] = remove_tree) -> None:
        """Make the tree a miss at once, then remove its files. What uses it as a lower directory now keeps its open files only."""
        doomed = os.path.join(self._area.scratch(), f"tree-{os.urandom(8).hex()}")
        with suppress(FileNotFoundError):
            os.rename(self._paths.tree(flavour, identity), doomed)
            remove(doomed)

    def of_flavour(self, flavour: str) -> tuple[str, ...]:
        """The ids of all trees of a flavour, as "sha256:<64>"."""
        try:
            return tuple(sorted(f"sha256:{name}" for name in os.listdir(os.path.dirname(self._paths.tree(flavour, f"sha256:{'0' * 64}"))) if len(name) == 64))
        except FileNotFoundError:
            return ()
