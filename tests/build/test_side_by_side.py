from __future__ import annotations

import threading
import time

import pytest

from layerwright.build.options import Cancel
from layerwright.build.side_by_side import side_by_side
from layerwright.errors import Cancelled
from layerwright.storage.contract import MissingBlob


def until_cancelled(cancel: Cancel) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        cancel.check()
        time.sleep(0.01)


def test_what_comes_out_keeps_its_order() -> None:
    cancel = Cancel()

    def act(number: int) -> int:
        time.sleep(0.02 / number)
        return number

    assert side_by_side(act, [1, 2, 3, 4, 5], at_once=3, cancel=cancel) == [1, 2, 3, 4, 5]
    assert not cancel.is_set()


def test_the_first_failure_ends_the_others_and_is_the_one_that_is_told() -> None:
    cancel, begun = Cancel(), []

    def act(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise ValueError("refused")
        until_cancelled(cancel)

    started = time.monotonic()
    with pytest.raises(ValueError, match="refused"):
        side_by_side(act, range(20), at_once=2, cancel=cancel)
    assert time.monotonic() - started < 10
    assert len(begun) <= 4, "what had not begun does not begin"


def test_what_can_be_made_again_ends_nothing() -> None:
    cancel, done, both = Cancel(), threading.Event(), threading.Barrier(2)

    def act(number: int) -> None:
        both.wait(20)
        if number == 0:
            raise MissingBlob("gone")
        time.sleep(0.1)
        done.set()

    with pytest.raises(MissingBlob):
        side_by_side(act, range(2), at_once=2, cancel=cancel)
    assert done.is_set()
    assert not cancel.is_set()


def test_stopped_from_above_it_is_cancelled() -> None:
    above = Cancel()
    below = above.below()
    threading.Timer(0.1, above.set).start()
    with pytest.raises(Cancelled):
        side_by_side(lambda number: until_cancelled(below), range(3), at_once=3, cancel=below)
