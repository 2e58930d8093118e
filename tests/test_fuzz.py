"""A short fuzz of every target, the same inputs each time; `make fuzz` goes on from there."""

from __future__ import annotations

import os

import pytest

from fuzz.run import cases, opened
from fuzz.seeds import seeds

COUNTS = {"tar": 1500, "unpack": 250, "manifest": 4000, "index": 150, "compressed": 3000}


@pytest.mark.parametrize("name", COUNTS)
def test_nothing_breaks_what_the_readers_promise(name: str) -> None:
    if name == "unpack" and os.geteuid() != 0:
        pytest.skip("unpacking gives files to their owners: root")
    with opened(name) as target:
        for data in cases(name, COUNTS[name]):
            try:
                target(data)  # type: ignore[operator]
            except Exception as error:
                raise AssertionError(f"{name} breaks its promise with {data[:2000]!r}") from error


def test_every_target_has_seeds() -> None:
    assert {target for target, _, _ in seeds()} == set(COUNTS)
