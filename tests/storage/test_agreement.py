"""Builders that publish one name at once, over two registers that hold what was written last. Time is simulated: every request takes as long as the case says."""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from layerwright.oci.digest import BlobDigest, digest_of
from layerwright.storage.agreement import PATIENCE_S, Seen, agree

T = TypeVar("T")
OTHER = digest_of(b"other")


class Clock:
    """Virtual time for threads that all wait for it: the earliest goes on, one at a time."""

    def __init__(self, threads: int) -> None:
        self.now = 0.0
        self._running = threads
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._count = 0

    def sleep(self, seconds: float) -> None:
        turn = threading.Event()
        with self._changed:
            self._count += 1
            heapq.heappush(self._waiting, (self.now + seconds, self._count, turn))
            self._running -= 1
            self._changed.notify()
        turn.wait()

    def ended(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running == 0)
                if not self._waiting:
                    return
                self.now, _, turn = heapq.heappop(self._waiting)
                self._running = 1
                turn.set()


@dataclass
class Registry:
    """The two tags. `dies_after`: of a builder, the number of its requests."""

    clock: Clock
    name: BlobDigest | None = None
    claim: BlobDigest | None = None
    requests: int = 0
    names: list[BlobDigest] = field(default_factory=list)


class Died(Exception):
    pass


class Builder:
    def __init__(self, registry: Registry, delays: Callable[[], float], dies_after: int = 1 << 30) -> None:
        self._registry, self._delays, self._left = registry, delays, dies_after

    def _request(self, act: Callable[[], T]) -> T:
        if self._left == 0:
            raise Died
        self._left -= 1
        self._registry.clock.sleep(self._delays())
        self._registry.requests += 1
        done = act()
        self._registry.clock.sleep(self._delays())
        return done

    def look(self) -> Seen:
        """As a registry answers: two requests, each at its own moment."""
        name = self._request(lambda: self._registry.name)
        return Seen(name, self._request(lambda: self._registry.claim))

    def claim(self, manifest: BlobDigest) -> None:
        def act() -> None:
            self._registry.claim = manifest

        self._request(act)

    def name(self, manifest: BlobDigest) -> None:
        def act() -> None:
            self._registry.name = manifest
            self._registry.names.append(manifest)

        self._request(act)

    def pause(self, seconds: float) -> None:
        self._registry.clock.sleep(seconds)


def race(
    count: int, delays: Callable[[int], Callable[[], float]], *, starts: Callable[[int], float], dies: dict[int, int] | None = None
) -> tuple[Registry, dict[int, BlobDigest]]:
    """What each builder that lives was told."""
    clock = Clock(count)
    registry = Registry(clock)
    told: dict[int, BlobDigest] = {}

    def build(number: int) -> None:
        builder = Builder(registry, delays(number), (dies or {}).get(number, 1 << 30))
        try:
            clock.sleep(starts(number))
            told[number] = agree(builder, digest_of(b"%d" % number), builder.pause, lambda: clock.now)
        except Died:
            pass
        finally:
            clock.ended()

    threads = [threading.Thread(target=build, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    clock.run()
    for thread in threads:
        thread.join()
    return registry, told


def test_one_builder_alone_waits_for_a_moment_only() -> None:
    registry, told = race(1, lambda number: lambda: 0.0, starts=lambda number: 0.0)
    assert registry.clock.now < 0.02
    assert told[0] == registry.name == registry.claim == digest_of(b"0")
    assert registry.requests == 6, "two looks, a claim and a name"


def test_what_is_named_is_taken_and_nothing_is_written() -> None:
    clock = Clock(1)
    registry = Registry(clock, name=OTHER, claim=OTHER)
    told: list[BlobDigest] = []

    def build() -> None:
        builder = Builder(registry, lambda: 0.0)
        told.append(agree(builder, digest_of(b"mine"), builder.pause, lambda: clock.now))
        clock.ended()

    thread = threading.Thread(target=build)
    thread.start()
    clock.run()
    thread.join()
    assert told == [OTHER]
    assert (registry.names, registry.claim) == ([], OTHER)


def test_a_claim_whose_builder_died_holds_the_next_one_up_for_a_moment_only() -> None:
    registry, told = race(2, lambda number: lambda: 0.001, starts=lambda number: float(number), dies={0: 3})
    assert told == {1: digest_of(b"1")}
    assert (registry.name, registry.claim) == (digest_of(b"1"), digest_of(b"1"))
    assert registry.clock.now < 1 + PATIENCE_S + 1


@settings(max_examples=300, deadline=None)
@given(count=st.integers(2, 20), seed=st.integers(0, 1 << 32), spread=st.sampled_from([0.0, 0.01, 0.1, 1.0]), longest=st.sampled_from([0.001, 0.02, 0.1]))
def test_all_are_told_one_manifest_and_the_name_holds_it(count: int, seed: int, spread: float, longest: float) -> None:
    chance = random.Random(seed)
    registry, told = race(count, lambda number: lambda: chance.uniform(0, longest), starts=lambda number: chance.uniform(0, spread))
    assert len(told) == count
    assert set(told.values()) == {registry.name}
    assert set(registry.names) == {registry.name}, "nobody who looked once saw another"
    assert registry.claim == registry.name


@settings(max_examples=300, deadline=None)
@given(count=st.integers(2, 12), seed=st.integers(0, 1 << 32))
def test_one_that_is_held_up_between_two_requests_changes_nothing(count: int, seed: int) -> None:
    """Each request of one builder may take half a second: longer than all requests of another, and the whole shorter than the patience."""
    chance = random.Random(seed)

    def delays(number: int) -> Callable[[], float]:
        return lambda: chance.choice((0.0, 0.001, 0.01, PATIENCE_S / 20)) if number == 0 else chance.uniform(0, 0.005)

    registry, told = race(count, delays, starts=lambda number: chance.uniform(0, 0.05))
    assert len(told) == count
    assert set(told.values()) == {registry.name}
    assert set(registry.names) == {registry.name}


@settings(max_examples=200, deadline=None)
@given(count=st.integers(2, 8), seed=st.integers(0, 1 << 32), requests=st.integers(0, 8))
def test_when_one_dies_anywhere_the_others_end_with_what_the_name_holds(count: int, seed: int, requests: int) -> None:
    chance = random.Random(seed)
    registry, told = race(count, lambda number: lambda: chance.uniform(0, 0.005), starts=lambda number: chance.uniform(0, 0.5), dies={0: requests})
    assert len(told) >= count - 1
    assert set(told.values()) <= {registry.name}
