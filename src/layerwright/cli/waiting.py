"""Standard output and error that are not to block, by the will of somebody who shares them: we wait all the same. Loaded only then."""

from __future__ import annotations

import io
import select
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Waiting(io.FileIO):
    def write(self, content: ReadableBuffer, /) -> int:
        while True:
            written: int | None = super().write(content)
            if written is not None:
                return written
            select.select([], [self], [])


def patient(stream: TextIO) -> TextIO:
    """Another stream for the same file, which waits until its reader takes what is written. Nothing has been written to `stream` so far."""
    raw = _Waiting(stream.fileno(), "w", closefd=False)
    line_buffering = getattr(stream, "line_buffering", False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=line_buffering)
