"""/etc/passwd and /etc/group as texts: names to numbers. Source: passwd(5), group(5); the first line of a name counts, as in libc's `files`."""

from __future__ import annotations

from collections.abc import Iterator

_ID_MAX = 2**32 - 2


def number_of(text: bytes, name: str) -> int | None:
    """The uid of a user in passwd, or the gid of a group in group."""
    wanted = name.encode("utf-8", "surrogateescape")
    return next((number for fields in _lines(text) if fields[0] == wanted and (number := _number(fields[2])) is not None), None)


def group_of_uid(text: bytes, uid: int) -> int | None:
    """The primary group of a uid in passwd."""
    return next((_number(fields[3]) for fields in _lines(text) if len(fields) > 3 and _number(fields[2]) == uid), None)


def _lines(text: bytes) -> Iterator[list[bytes]]:
    for line in text.split(b"\n"):
        fields = line.strip().split(b":")
        if len(fields) >= 3 and not line.startswith((b"#", b"+", b"-")):
            yield fields


def _number(field: bytes) -> int | None:
    number = int(field) if field.isdigit() and len(field) <= 10 else -1
    return number if 0 <= number <= _ID_MAX else None
