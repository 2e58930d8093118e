from __future__ import annotations

import pytest

from layerwright.cleanup.due import Looked, decode_looked, is_due
from layerwright.cleanup.limit import Limit, Need, need, parse_amount, parse_limit
from layerwright.errors import UsageError

FLAG = "--limit"


@pytest.mark.parametrize(
    ("text", "value", "is_percent"),
    [("70", 70, True), ("70.5%", 70.5, True), ("10GB", 10**10, False), ("1.5 KiB", 1536, False), ("7b", 7, False), ("2g", 2 * 10**9, False), ("0", 0, True)],
)
def test_amounts(text: str, value: float, is_percent: bool) -> None:
    assert parse_amount(text, flag=FLAG) == (value, is_percent)


@pytest.mark.parametrize("text", ["", "GB", "-1", "101", "10 apples", "1e9", "10GB 5", "٣"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_amount(text, flag=FLAG)
    assert FLAG in caught.value.what
    assert "10GB" in caught.value.mend


def test_limits_and_their_margins() -> None:
    assert parse_limit("", None, flag=FLAG) == Limit(70, 5, True)
    assert parse_limit("10GB", None, flag=FLAG) == Limit(10**10, 5 * 10**8, False)
    assert parse_limit("10GB", "1GB", flag=FLAG).target == 9 * 10**9
    assert parse_limit("3", "5", flag=FLAG).target == 0
    for allowed, margin in (("10GB", "5"), ("70", "1GB")):
        with pytest.raises(UsageError):
            parse_limit(allowed, margin, flag=FLAG)


@pytest.mark.parametrize(
    ("limit", "used", "store", "asked"),
    [
        (Limit(70, 5, True), 700, 50, Need(False, 0)),
        (Limit(70, 5, True), 701, 50, Need(True, 51)),
        (Limit(100, 20, False), 999, 100, Need(False, 0)),
        (Limit(100, 20, False), 999, 150, Need(True, 70)),
        (Limit(0, 5, True), 300, 50, Need(True, 300)),
    ],
)
def test_how_much_has_to_go(limit: Limit, used: int, store: int, asked: Need) -> None:
    assert need(limit, volume_bytes=1000, used_bytes=used, store_bytes=store) == asked


HOUR_MS, DAY_MS = 3_600_000, 86_400_000
PERCENT, SIZE = Limit(70, 5, True), Limit(100, 5, False)


@pytest.mark.parametrize(
    ("limit", "looked", "used", "due"),
    [
        (PERCENT, None, 700, False),
        (PERCENT, None, 701, True),
        (PERCENT, Looked(-HOUR_MS + 1, (70, 5, True), 0, 900, True), 900, False),
        (PERCENT, Looked(-HOUR_MS, (70, 5, True), 0, 900, True), 900, True),
        (PERCENT, Looked(-1, (60, 5, True), 0, 900, True), 900, True),
        (PERCENT, Looked(1, (70, 5, True), 0, 900, True), 900, True),
        (SIZE, None, 1, True),
        (SIZE, Looked(-1, (100, 5, False), 90, 500, False), 510, False),
        (SIZE, Looked(-1, (100, 5, False), 90, 500, False), 511, True),
        (SIZE, Looked(-1, (100, 5, False), 90, 500, False), 100, False),
        (SIZE, Looked(-DAY_MS, (100, 5, False), 90, 500, False), 500, True),
    ],
)
def test_when_a_clean_up_by_itself_is_due(limit: Limit, looked: Looked | None, used: int, due: bool) -> None:
    now = 10**12
    moved = looked._replace(at_ms=now + looked.at_ms) if looked else None
    assert is_due(limit, moved, volume_bytes=1000, used_bytes=used, now_ms=now) is due


def test_what_was_remembered_is_read_back_or_not_there() -> None:
    looked = Looked(5, (70.0, 5.0, True), 1, 2, False)
    assert decode_looked(looked._asdict()) == looked
    for raw in (None, {}, {"limit": 3}, {"limit": [1, 2]}):
        assert decode_looked(raw) is None
