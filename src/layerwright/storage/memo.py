"""Hints under a key: what a run may use to skip work, and check. Losing them all loses time only.

Files, not a database: a build with nothing to do reads one, and importing sqlite3 alone takes 5 to 14 ms.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from layerwright.errors import MachineLacks
from layerwright.host.files import replacing
from layerwright.storage.paths import StorePaths
from layerwright.storage.seals import read_sealed, sealed
from layerwright.storage.work import WorkArea

_MOST = 4096  # kept; one is about 1 KB
_LOOK_EVERY = 64  # writes, on average, between two looks at how many there are


class Memo:
    """The folder `memo/` of a store."""

    def __init__(self, paths: StorePaths, area: WorkArea) -> None:
        self._paths = paths
        self._area = area

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put under `key`; None if nothing was, or it is damaged."""
        content = read_sealed(self._paths.memo(key))
        if content is None:
            return None
        try:
            raw = json.loads(content)
        except ValueError:
            return None
        return raw if isinstance(raw, dict) else None

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Remember `value` (JSON) under `key`, in place of what was there. A hint that cannot be written, on a full disk say, is dropped."""
        path = self._paths.memo(key)
        with suppress(MachineLacks, OSError):
            with replacing(path, scratch=self._area.scratch(), durable=False) as out:
                out.write(sealed(path, json.dumps(dict(value), sort_keys=True, separators=(",", ":")).encode()))
            if os.urandom(1)[0] % _LOOK_EVERY == 0:
                self.prune()

    def forget(self, key: str) -> None:
        with suppress(OSError):
            os.unlink(self._paths.memo(key))

    def prune(self, most: int = _MOST) -> None:
        """Keep the newest half of `most` if there are more than `most`."""
        with os.scandir(self._paths.memos) as found:
            names = [entry.path for entry in found]
        if len(names) <= most:
            return
        aged = []
        for path in names:
            with suppress(OSError):
                aged.append((os.stat(path).st_mtime_ns, path))
        for _, path in sorted(aged)[: -(most // 2)]:
            with suppress(OSError):
                os.unlink(path)
