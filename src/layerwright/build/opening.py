"""Opens what one run works in, and closes it, the worker first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from layerwright.build.bases import Bases
from layerwright.build.cabinet import Cabinet
from layerwright.build.delivery import Delivery
from layerwright.build.events import Listener, Warned
from layerwright.build.ledger import Ledger
from layerwright.build.options import BuildOptions, Cancel, Traffic
from layerwright.build.repositories import Repositories
from layerwright.build.session import Session
from layerwright.build.tiers import LocalTier, Tiers
from layerwright.build.tree_calls import tree_calls
from layerwright.build.trees import Trees
from layerwright.config.model import Config
from layerwright.git.repo import Repo
from layerwright.git.values import Commit
from layerwright.oci.platform import Platform
from layerwright.registry.client import Registry
from layerwright.storage.local import LocalStore


@contextmanager
def opened_session(
    *,
    repo: Repo,
    commit: Commit,
    config: Config,
    platform: Platform,
    platform_forced: bool,
    store: LocalStore,
    registry: Callable[[], Registry],
    traffic: Callable[[], Traffic],
    options: BuildOptions,
    cancel: Cancel,
    tell: Listener,
    platforms: tuple[Platform, ...] = (),
    repositories: Repositories | None = None,
    ledger: Ledger | None = None,
) -> Iterator[Session]:
    """A session until the block ends; nothing is started for it before it is needed."""
    with ExitStack() as closing:
        calls = tree_calls(store)
        closing.callback(calls.close)
        owner = calls if calls.flavour.user_namespace else None

        def warn(text: str) -> None:
            tell(Warned(text=text))

        tiers: Tiers = LocalTier(store)
        if repositories is not None:
            tiers = repositories.tiers(store, registry, cancel, warn)
        cabinet = Cabinet(store, registry, owner=owner, cancelled=cancel.is_set, elsewhere=tiers if repositories is not None else None)
        if repositories is not None:
            repositories.supply(Delivery(store, cabinet, registry, cancel))
        trees = Trees(store, cabinet, calls, runtime=options.runtime, tell=tell)
        yield Session(
            repo=repo,
            commit=commit,
            config=config,
            platform=platform,
            platform_forced=platform_forced,
            store=store,
            cabinet=cabinet,
            trees=trees,
            bases=Bases(store, registry, warn),
            options=options,
            cancel=cancel,
            tell=tell,
            clock_ms=lambda: time.time_ns() // 1_000_000,
            traffic=traffic,
            platforms=platforms,
            tiers=tiers,
            ledger=ledger or Ledger(),
        )
