"""Whether a clean-up by itself is worth starting. Pure and light: asked after every build, from one statvfs(2) and one remembered fact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from layerwright.cleanup.limit import Limit

MEMO = "host clean-up"  # the memo's key
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class Looked(NamedTuple):
    """What the last clean-up left: `store_bytes` and the use of the volume then. `vain`: the limit was still passed, and nothing more could go."""

    at_ms: int
    limit: tuple[float, float, bool]
    store_bytes: int
    volume_used_bytes: int
    vain: bool


def decode_looked(raw: Mapping[str, Any] | None) -> Looked | None:
    if raw is None:
        return None
    try:
        allowed, margin, is_percent = raw["limit"]
        return Looked(int(raw["at_ms"]), (allowed, margin, is_percent), int(raw["store_bytes"]), int(raw["volume_used_bytes"]), bool(raw["vain"]))
    except (KeyError, TypeError, ValueError):
        return None


def is_due(limit: Limit, looked: Looked | None, *, volume_bytes: int, used_bytes: int, now_ms: int) -> bool:
    """Whether the limit is passed, as far as that can be told at no cost, and a clean-up could help.

    A volume that others filled is tried again after an hour only. How large the store is nobody counts after each build: it can have passed a size
    only if the volume has taken in as much since it was last counted; to be sure it is counted once a day.
    """
    if looked is not None and looked.limit != tuple(limit):
        looked = None
    if looked is not None and looked.vain and 0 <= now_ms - looked.at_ms < _HOUR_MS:
        return False
    if limit.is_percent:
        return used_bytes * 100 > limit.allowed * volume_bytes
    if looked is None or not 0 <= now_ms - looked.at_ms < _DAY_MS:
        return True
    return looked.store_bytes + max(used_bytes - looked.volume_used_bytes, 0) > limit.allowed
