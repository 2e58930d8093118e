"""The repositories of one project's runs: what is known of them, and of what they have lost, outlives a single run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from layerwright.build.options import Cancel
from layerwright.build.side_by_side import side_by_side
from layerwright.build.tiers import RepoTiers
from layerwright.errors import UsageError
from layerwright.oci.digest import BlobDigest, DiffId
from layerwright.oci.manifest import Descriptor
from layerwright.oci.reference import Reference
from layerwright.registry.client import Registry
from layerwright.storage.contract import MissingBlob
from layerwright.storage.local import LocalStore
from layerwright.storage.records import LayerRef
from layerwright.storage.remote import RemoteStore, Supply
from layerwright.storage.remote_names import parse_repository

A = TypeVar("A")
R = TypeVar("R")
AT_ONCE = 8  # requests for one publication; each large upload is a thread and three chunks of memory
ASKED_AT_ONCE = 16  # finished images: as many connections as are kept alive
_LOOK_S = 0.05


class Repositories:
    """`repo` REGISTRY/PATH and the others of the command line. Used by one run at a time.

    What is named again as secondary, cache or final repository is `repo`, and nothing besides. Raises UsageError for what is no repository, and where
    one that nothing is written to would be written to.
    """

    def __init__(self, registry: Callable[[], Registry], *, repo: str, secondary: Sequence[str] = (), cache: Sequence[str] = (), final: str = "") -> None:
        nothing = _Nothing()
        place = parse_repository(repo, where="--repo")
        read_only = _others(place, secondary, where="--secondary-repo")
        cached = _others(place, cache, where="--cache-repo", but=read_only)
        finals = _others(place, [final] if final else [], where="--final-repo", but=read_only)
        self.primary = RemoteStore(registry, place, nothing)
        self.secondaries = [RemoteStore(registry, one, nothing, is_read_only=True) for one in read_only]
        self.caches = [RemoteStore(registry, one, nothing) for one in cached]
        self.final = RemoteStore(registry, finals[0], nothing) if finals else None
        self._cancel = Cancel()
        self._warn: Callable[[str], None] = lambda text: None

    def tiers(self, store: LocalStore, registry: Callable[[], Registry], cancel: Cancel, warn: Callable[[str], None]) -> RepoTiers:
        self._cancel, self._warn = cancel, warn
        return RepoTiers(
            store,
            self.primary,
            secondaries=self.secondaries,
            caches=self.caches,
            at_once=partial(side_by_side, at_once=ASKED_AT_ONCE, cancel=cancel),
            check_push=lambda: registry().check_push(self.primary.place),
            warn=warn,
        )

    def supply(self, supply: Supply) -> None:
        """Let one run's layers be what is published."""
        for one in (self.primary, *self.secondaries, *([self.final] if self.final else [])):
            one.serve(supply, together=self._together, pause=self._pause, on_miss=self._warn)
        for cache in self.caches:
            cache.serve(supply, together=self._together_or_not, pause=self._pause)

    def _together(self, act: Callable[[A], R], arguments: Iterable[A], /) -> list[R]:
        wanted = list(arguments)
        return side_by_side(act, wanted, at_once=AT_ONCE, cancel=self._cancel) if len(wanted) > 1 else [act(one) for one in wanted]

    def _together_or_not(self, act: Callable[[A], R], arguments: Iterable[A], /) -> list[R]:
        """What fails stops nothing but itself."""
        return side_by_side(act, list(arguments), at_once=AT_ONCE, cancel=self._cancel.below())

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._cancel.check()
            time.sleep(min(left, _LOOK_S))


def _others(repo: Reference, given: Sequence[str], *, where: str, but: Sequence[Reference] = ()) -> list[Reference]:
    """Each of them once, without `repo`. Raises UsageError for one of `but`, which nothing is written to."""
    parsed = dict.fromkeys(parse_repository(one, where=where) for one in given)
    if clash := [one for one in parsed if one in but]:
        what = f"{clash[0].name} is named with --secondary-repo too, and nothing is written to such a repository"
        raise UsageError(what, where=where, mend="name it with one of the two")
    return [one for one in parsed if one != repo]


class _Nothing:
    """Supplies nothing: a repository before its first run."""

    def layer(self, to: RemoteStore, layer: LayerRef) -> Descriptor:
        raise MissingBlob(f"nothing is published to {to.name} outside of a build")

    def index(self, diff_id: DiffId) -> Mapping[str, bytes] | None:
        return None

    def made_index(self, diff_id: DiffId) -> bool:
        return False

    def state(self, files: BlobDigest) -> bytes | None:
        return None

    def cached(self, digest: BlobDigest) -> bytes | None:
        return None

    def cache(self, blob: bytes) -> None:
        pass
