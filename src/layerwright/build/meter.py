"""How far an export has come, told as it goes; and where it stops when nobody wants it any more."""

from __future__ import annotations

from typing import Protocol

from layerwright.build.events import Progress
from layerwright.build.places import Place
from layerwright.build.session import Session
from layerwright.storage.archive_output import Out
from layerwright.storage.records import Record

_TELL_EVERY_BYTES = 4 << 20


class SupportsWrite(Protocol):
    def write(self, piece: bytes, /) -> object: ...


class Meter:
    """Counts the bytes of one export. A context manager: the last event is told when the block ends well."""

    def __init__(self, session: Session, record: Record, place: Place, total_bytes: int) -> None:
        self._session = session
        self._image = record.image
        self._subject = place.text
        self._total_bytes = total_bytes
        self._told_bytes = 0
        self.done_bytes = 0

    def __enter__(self) -> Meter:
        self._tell(finished=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._tell(finished=True)

    def over(self, out: SupportsWrite) -> _Counting:
        """Something that hands on to `out` what is written to it."""
        return _Counting(self, out.write)

    def counted(self, out: Out) -> Out:
        return _Counting(self, out).write

    def all_done(self) -> None:
        """For what is moved by another program, which does not say how far it is."""
        self.done_bytes = self._total_bytes

    def took(self, size: int) -> None:
        self._session.cancel.check()
        self.done_bytes += size
        if self.done_bytes - self._told_bytes >= _TELL_EVERY_BYTES:
            self._tell(finished=False)

    def _tell(self, *, finished: bool) -> None:
        self._told_bytes = self.done_bytes
        self._session.tell(
            Progress(image=self._image, action="export", subject=self._subject, part="", done=self.done_bytes, total=self._total_bytes, finished=finished)
        )


class _Counting:
    def __init__(self, meter: Meter, out: Out) -> None:
        self._meter = meter
        self._out = out

    def write(self, piece: bytes, /) -> int:
        self._out(piece)
        self._meter.took(len(piece))
        return len(piece)
