"""Cuts what a command prints into lines, in bounded memory."""

from __future__ import annotations

LONGEST_BYTES = 64 * 1024


class Lines:
    """Takes output as it comes and gives whole lines, without their ends.

    Where carriage returns lead back to a line's start (progress bars), only what stands after the last of them is kept, as on a terminal.
    A line longer than `LONGEST_BYTES` comes in pieces of that length.
    """

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, output: bytes) -> list[bytes]:
        *whole, begun = (self._begun + output).split(b"\n")
        lines = [piece for line in whole for piece in _pieces(_overwritten(line))]
        *cut, self._begun = _pieces(_overwritten(begun, open_ended=True)) or [b""]
        return lines + cut

    def finish(self) -> list[bytes]:
        """The last line, if it has no end."""
        line, self._begun = self._begun, b""
        return _pieces(_overwritten(line)) if line else []


def _overwritten(line: bytes, *, open_ended: bool = False) -> bytes:
    """What is left of a line with carriage returns; one at the end of an unfinished line may yet become a line's end, so what stands before it is kept."""
    if b"\r" not in line:
        return line
    stripped = line.rstrip(b"\r")
    left = stripped[stripped.rfind(b"\r") + 1 :]
    return left + b"\r" if open_ended and len(stripped) < len(line) else left


def _pieces(line: bytes) -> list[bytes]:
    return [line[start : start + LONGEST_BYTES] for start in range(0, len(line), LONGEST_BYTES)] or [b""]
