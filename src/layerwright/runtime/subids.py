"""The ranges of ids that /etc/subuid and /etc/subgid give a user, and the line that would give more. Source: subuid(5), newuidmap(1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
MOST_IDS = 2**32 - 1  # the highest is "no id"
_FIRST_START, _USUAL_COUNT = 100_000, 65_536  # as useradd gives them

Range = tuple[int, int]  # first id, how many


def ranges_of(text: str, *, name: str, uid: int) -> tuple[Range, ...]:
    """The ranges that lines of such a file give the user, by name or number, in the file's order; lines that make no sense give none."""
    return tuple(found for owner, found in _lines(text) if owner in (name, str(uid)))


def _lines(text: str) -> Iterable[tuple[str, Range]]:
    for line in text.splitlines():
        owner, *numbers = line.strip().split(":")
        if owner and len(numbers) == 2 and all(one.isascii() and one.isdigit() for one in numbers):
            start, count = int(numbers[0]), int(numbers[1])
            if count and start + count <= MOST_IDS:
                yield owner, (start, count)


def line_for(user: str, *, more_ids: int, files: Sequence[str]) -> str | None:
    """A line for both files, whose texts are `files`, that gives `user` at least `more_ids` ids nobody else has; None if so many are not left."""
    taken = [start + count for text in files for _, (start, count) in _lines(text)]
    start = max([_FIRST_START, *taken])
    count = max(_USUAL_COUNT, more_ids)
    return f"{user}:{start}:{count}" if start + count <= MOST_IDS else None
