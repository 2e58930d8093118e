"""How much room the store may take: one limit, as a share of the volume or as a size of the store. Source: werf, host cleanup; docs/host-cleanup.md.

Light: a build with nothing to do asks it too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from layerwright.errors import UsageError

DEFAULT_ALLOWED, DEFAULT_MARGIN = "70", 5.0  # percent
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power for power, letter in enumerate("kmgtp", 1) for ending, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}
_AMOUNT = r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*|%)\s*\Z"


class Amount(NamedTuple):
    """A percentage of the volume, or bytes of the store."""

    value: float
    is_percent: bool


class Limit(NamedTuple):
    """Clean up when more than `allowed` is used, down to `allowed` less `margin`. Both are of one unit."""

    allowed: float
    margin: float
    is_percent: bool

    @property
    def target(self) -> float:
        return max(self.allowed - self.margin, 0)

    @property
    def shown(self) -> str:
        return f"{self.allowed:g}%" if self.is_percent else f"{self.allowed:.0f} bytes"


DEFAULT = Limit(float(DEFAULT_ALLOWED), DEFAULT_MARGIN, True)


class Need(NamedTuple):
    """What a limit says of the present use, in bytes: `to_free` is 0 unless `over`."""

    over: bool
    to_free: int


def parse_amount(text: str, *, flag: str) -> Amount:
    """`70` or `70%` are percent; `10GB`, `500 MiB`, `1000000B` are sizes. Raises UsageError."""
    found = re.match(_AMOUNT, text)
    mend = "write a percentage of the volume, as 70, or a size of the store with a unit, as 10GB or 500MiB"
    if found is None:
        raise UsageError(f"{flag}: {text!r} is neither a percentage nor a size", mend=mend)
    number, unit = float(found[1]), found[2].lower()
    if unit in ("", "%"):
        if number > 100:
            raise UsageError(f"{flag}: {text.strip()} is more than 100 percent", mend=mend)
        return Amount(number, is_percent=True)
    if unit not in _UNITS:
        raise UsageError(f"{flag}: {found[2]!r} is no unit", mend=mend)
    return Amount(number * _UNITS[unit], is_percent=False)


def parse_limit(allowed: str, margin: str | None, *, flag: str) -> Limit:
    """A limit as its two flags say it; without a margin it is 5 percent, of the volume or of the size. Raises UsageError."""
    if not allowed and not margin:
        return DEFAULT
    amount = parse_amount(allowed or DEFAULT_ALLOWED, flag=flag)
    if not margin:
        less = DEFAULT_MARGIN if amount.is_percent else amount.value * DEFAULT_MARGIN / 100
        return Limit(amount.value, less, amount.is_percent)
    given = parse_amount(margin, flag=f"{flag}-margin")
    if given.is_percent != amount.is_percent:
        kinds = ("a percentage", "a size")
        what = f"{flag} is {kinds[not amount.is_percent]}, and its margin {kinds[not given.is_percent]}"
        raise UsageError(what, mend="write both as percentages or both as sizes")
    return Limit(amount.value, given.value, amount.is_percent)


def need(limit: Limit, *, volume_bytes: int, used_bytes: int, store_bytes: int) -> Need:
    """How much has to go: of the volume's use for a percentage, of the store itself for a size."""
    used = used_bytes if limit.is_percent else store_bytes
    scale = volume_bytes / 100 if limit.is_percent else 1
    if used <= limit.allowed * scale:
        return Need(over=False, to_free=0)
    return Need(over=True, to_free=max(int(used - limit.target * scale), 0))
