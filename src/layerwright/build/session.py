"""What one run has open, and what it may be told: values and long-held things that every part of a build shares. No global state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from layerwright.build.bases import Bases
from layerwright.build.cabinet import Cabinet
from layerwright.build.events import Listener
from layerwright.build.ledger import Ledger
from layerwright.build.options import BuildOptions, Cancel, Traffic
from layerwright.build.sources import MappingSource, sources_of
from layerwright.build.tiers import Tiers
from layerwright.build.trees import Trees
from layerwright.config.model import Config, Image
from layerwright.git.repo import Repo
from layerwright.git.values import Commit, TreeEntry
from layerwright.oci.platform import Platform, parse_platform
from layerwright.stages.git_archive import path_filter
from layerwright.storage.local import LocalStore
from layerwright.storage.records import LayerRef

_LOOK_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Session:
    """One run over one commit."""

    repo: Repo
    commit: Commit
    config: Config
    platform: Platform  # asked for, or the host's
    platform_forced: bool  # asked for on the command line: an image's own does not count
    platforms: tuple[Platform, ...] = ()  # asked for, if several
    store: LocalStore
    cabinet: Cabinet
    trees: Trees
    bases: Bases
    options: BuildOptions
    cancel: Cancel
    tell: Listener
    clock_ms: Callable[[], int]
    traffic: Callable[[], Traffic]
    tiers: Tiers
    ledger: Ledger = field(default_factory=Ledger)
    label: str = ""  # of the platform, where one run builds for several
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listed: list[tuple[TreeEntry, ...]] = field(default_factory=list)
    _made: dict[str, Future[LayerRef]] = field(default_factory=dict)

    def platform_of(self, image: Image) -> Platform:
        return self.platforms_of(image)[0]

    def platforms_of(self, image: Image) -> tuple[Platform, ...]:
        """Those it is built for, one at least."""
        if self.platform_forced or not image.platforms:
            return self.platforms or (self.platform,)
        return tuple(parse_platform(one) if one else self.platform for one in image.platforms)

    def shown(self, image: str) -> str:
        """What an image is called to those who listen."""
        return f"{image or '~'} ({self.label})" if self.label else image

    def made_once(self, key: str, make: Callable[[], LayerRef]) -> tuple[LayerRef, bool]:
        """The layer of this key, made by whoever asks for it first in this run; and whether another did. What failed for one is tried by the next."""
        with self._lock:
            begun = self._made.get(key)
            if begun is None:
                mine = self._made[key] = Future()
        if begun is not None:
            layer = self._awaited(begun)
            return (layer, True) if layer is not None else (make(), False)
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._made[key]
            mine.set_exception(error)
            raise
        mine.set_result(made)
        return made, False

    def _awaited(self, begun: Future[LayerRef]) -> LayerRef | None:
        """None where it failed, or is not in the store any more."""
        while not begun.done():
            self.cancel.check()
            wait([begun], _LOOK_S)
        return begun.result() if begun.exception() is None and self.cabinet.holds(begun.result().diff_id) else None

    def tree(self) -> tuple[TreeEntry, ...]:
        """Every file of the commit; listed once."""
        with self._lock:
            if not self._listed:
                self._listed.append(self.repo.list_tree(self.commit.id, skip=self._wants_nothing_of))
            return self._listed[0]

    def _wants_nothing_of(self, submodule: bytes) -> bool:
        """Whether no mapping takes anything of the submodule: then it need not be on this machine."""
        return not any(path_filter(mapping).may_take_below(submodule) for image in self.config.images for mapping in image.git)

    def sources(self, image: Image) -> tuple[MappingSource, ...]:
        return sources_of(image, self.tree(), self.commit) if image.git else ()


def commit_environment(commit: Commit) -> Mapping[str, str]:
    """WERF_COMMIT_HASH, _TIME_HUMAN (as Go prints a time) and _TIME_UNIX, for commands only: no image keeps them."""
    import time

    sign, minutes = ("-", -commit.zone_minutes) if commit.zone_minutes < 0 else ("+", commit.zone_minutes)
    zone = f"{sign}{minutes // 60:02d}{minutes % 60:02d}"
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(commit.time_s + commit.zone_minutes * 60))
    return {"WERF_COMMIT_HASH": commit.id, "WERF_COMMIT_TIME_HUMAN": f"{local} {zone} {zone}", "WERF_COMMIT_TIME_UNIX": str(commit.time_s)}
