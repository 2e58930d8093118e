from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from layerwright.errors import Cancelled
from layerwright.registry.errors import RegistryError
from layerwright.registry.retry import retry_after_s, sleep, wait_for, with_retries
from tests.registry.images import quick


def test_waits_double_and_stay_bounded() -> None:
    options = quick(first_wait_s=1.0, longest_wait_s=5.0)
    for tried, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (60, 5.0)):
        assert 0 <= wait_for(tried, None, options) <= longest


def test_what_the_registry_asks_for_is_kept() -> None:
    assert 1.0 <= wait_for(1, 1.0, quick()) <= 1.01


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s("3") == 3.0
    late = retry_after_s(formatdate(time.time() + 30, usegmt=True))
    assert late is not None
    assert 28 < late <= 30
    assert retry_after_s(formatdate(time.time() - 30, usegmt=True)) == 0.0
    assert retry_after_s("soon") is None
    assert retry_after_s("") is None


def test_an_error_is_raised_after_as_many_tries_as_it_is_worth() -> None:
    tried = []

    def fail() -> None:
        tried.append(1)
        raise RegistryError("broken", tries=3)

    with pytest.raises(RegistryError, match=r"broken \(tried 3 times in \d+ s\)") as caught:
        with_retries(lambda: with_retries(fail, quick()), quick())  # the outer one does not multiply
    assert len(tried) == 3
    assert "tried 3 times" in str(caught.value)


def test_a_registry_that_asks_for_too_much_patience_is_not_waited_for() -> None:
    def fail() -> None:
        raise RegistryError("too many", tries=5, retry_after_s=3600)

    started = time.monotonic()
    with pytest.raises(RegistryError, match="too many") as caught:
        with_retries(fail, quick())
    assert time.monotonic() - started < 1
    assert "3600 seconds" in caught.value.mend


def test_a_wait_can_be_cancelled() -> None:
    until = time.monotonic() + 0.1
    started = time.monotonic()
    with pytest.raises(Cancelled):
        sleep(30, quick(cancelled=lambda: time.monotonic() > until))
    assert time.monotonic() - started < 5
