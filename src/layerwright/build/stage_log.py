"""What the commands of a stage print, kept for the case that they fail: of very much only the end, so that no command fills the memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

KEPT_CHARACTERS = 1 << 20


class StageLog:
    """Takes lines; `text()` is the last KEPT_CHARACTERS of them or so, in whole lines."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._size = self._dropped = 0

    def extend(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._lines.append(line)
            self._size += len(line) + 1
        while self._size > KEPT_CHARACTERS and len(self._lines) > 1:
            self._size -= len(self._lines.popleft()) + 1
            self._dropped += 1

    def text(self) -> str:
        before = [f"({self._dropped} lines before these are left out)"] if self._dropped else []
        return "\n".join((*before, *self._lines))
