from __future__ import annotations

import pytest

from layerwright.errors import Cancelled
from layerwright.registry.errors import Unreachable
from layerwright.registry.patience import Patience, Waits
from tests.registry.images import quick


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def patience(clock: Clock, **changes: object) -> Patience:
    options = quick(connect_timeout_s=10.0, read_timeout_s=60.0, lowest_speed=1024, **changes)
    return Patience("https://ann:secret@r.example:5000/x?y=secret", "r.example:5000/a:1", options, answer_timeout_s=600.0, clock=clock)


def test_a_phase_with_an_end_has_a_deadline_whatever_moves(clock: Clock) -> None:
    for phase, limit_s, said in (("connect", 10.0, "no connection within 10 s"), ("answer", 600.0, "it said nothing for 600 s")):
        waiting = patience(clock)
        waiting.begin(phase)  # type: ignore[arg-type]
        clock.now_s += limit_s - 1
        waiting.moved(1, 1.0)
        waiting.begin(phase)  # type: ignore[arg-type]  # no second start
        clock.now_s += 1
        with pytest.raises(Unreachable, match=f"r.example:5000: {said}") as caught:
            waiting.moved(1, 1.0)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("phase", "said"), [("send", "it took nothing for 60 s while we sent"), ("body", "in the middle of its answer")])
def test_silence_ends_a_phase_that_moves_bytes(clock: Clock, phase: str, said: str) -> None:
    waiting = patience(clock)
    waiting.begin(phase)  # type: ignore[arg-type]
    clock.now_s += 10_000
    waiting.check(59.0)
    with pytest.raises(Unreachable, match=said):
        waiting.check(60.0)


def test_what_is_slower_than_the_lowest_speed_stands_still(clock: Clock) -> None:
    waiting = patience(clock)
    waiting.begin("body")
    for _ in range(3):
        for _ in range(60):
            waiting.moved(1024, 1.0)
    for _ in range(59):
        waiting.moved(1023, 1.0)
    with pytest.raises(Unreachable, match="61380 bytes in 60 s are too slow"):
        waiting.moved(1023, 1.0)


def test_only_waiting_for_the_network_counts(clock: Clock) -> None:
    waiting = patience(clock)
    waiting.begin("body")
    for _ in range(1000):
        clock.now_s += 60  # spent by whoever takes the bytes
        waiting.moved(1, 0.001)


def test_no_speed_is_too_low_if_so_wanted(clock: Clock) -> None:
    waiting = Patience("http://r.example/", "", quick(read_timeout_s=60.0, lowest_speed=0), answer_timeout_s=1.0, clock=clock)
    waiting.begin("body")
    waiting.moved(1, 10_000.0)


def test_headers_are_waited_for_once(clock: Clock) -> None:
    waiting = patience(clock)
    waiting.begin("send")
    waiting.begin_answer()
    clock.now_s += 599
    waiting.begin_answer()
    clock.now_s += 1
    with pytest.raises(Unreachable):
        waiting.check(0.0)
    waiting.begin("body")
    waiting.begin_answer()  # the body is read: no deadline
    waiting.check(0.0)


def test_a_cancelled_transfer_ends_even_while_bytes_move(clock: Clock) -> None:
    waiting = patience(clock, cancelled=lambda: True)
    waiting.begin("body")
    with pytest.raises(Cancelled):
        waiting.moved(1 << 20, 0.0)


def test_each_thread_has_its_own_and_gets_the_former_one_back(clock: Clock) -> None:
    waits, first, second = Waits(), patience(clock), patience(clock)
    with waits.going_by(first):
        with waits.going_by(second):
            assert waits.current is second
        assert waits.current is first
    assert waits.current is None
