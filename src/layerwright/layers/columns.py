"""Columns of integers and byte strings as bytes: what the blobs of a file index are made of. Equal columns give equal bytes.

A column is stored whole before the next one starts, integers in the narrowest width that holds them all and one byte plane after the
other: 30,000 rows then cost a few milliseconds to read, and deflate finds what repeats.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

_HEAD = struct.Struct("<cII")  # type code, count, bytes that follow
_WIDTHS = (("B", 0, 2**8 - 1), ("b", -(2**7), 2**7 - 1), ("H", 0, 2**16 - 1), ("h", -(2**15), 2**15 - 1), ("I", 0, 2**32 - 1), ("i", -(2**31), 2**31 - 1))
_WIDE = (("Q", 0, 2**64 - 1), ("q", -(2**63), 2**63 - 1))
_CODES = {code.encode(): code for code, _, _ in _WIDTHS + _WIDE}
_CONSTANT, _DECIMAL = b"=", b"d"


class BadColumn(ValueError):
    """The bytes are no column, or not of the promised length."""


class ColumnWriter:
    """Appends columns; `content()` is all of them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def ints(self, column: Sequence[int]) -> None:
        code, body = _packed(column)
        self._parts += (_HEAD.pack(code, len(column), len(body)), body)

    def strings(self, column: Sequence[bytes]) -> None:
        self.ints([len(one) for one in column])
        self._parts += column

    def paths(self, column: Sequence[bytes]) -> None:
        """Each path without what it shares with the one before."""
        shared, previous = [], b""
        for path in column:
            shared.append(_shared(previous, path))
            previous = path
        self.ints(shared)
        self.strings([path[count:] for path, count in zip(column, shared, strict=True)])

    def content(self) -> bytes:
        return b"".join(self._parts)


class ColumnReader:
    """Reads columns in the order they were written. Every method raises BadColumn."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def ints(self) -> Sequence[int]:
        if len(self._content) - self._at < _HEAD.size:
            raise BadColumn("a column is missing")
        code, count, length = _HEAD.unpack_from(self._content, self._at)
        self._at += _HEAD.size
        return _unpacked(code, count, self._take(length))

    def strings(self) -> list[bytes]:
        lengths = self.ints()
        if lengths and min(lengths) < 0:
            raise BadColumn("a negative length")
        ends = list(accumulate(lengths, initial=0))
        body = self._take(ends[-1])
        return [body[start:end] for start, end in pairwise(ends)]

    def paths(self) -> list[bytes]:
        shared, rests = self.ints(), self.strings()
        paths: list[bytes] = []
        path = b""
        for count, rest in zip(shared, rests, strict=True):
            path = path[:count] + rest
            paths.append(path)
        return paths

    def end(self) -> None:
        if self._at != len(self._content):
            raise BadColumn("bytes after the last column")

    def _take(self, length: int) -> bytes:
        body = self._content[self._at : self._at + length]
        if len(body) != length:
            raise BadColumn("a column is cut short")
        self._at += length
        return body


def _packed(column: Sequence[int]) -> tuple[bytes, bytes]:
    low, high = (min(column), max(column)) if column else (0, 0)
    if low == high:
        return _CONSTANT, b"%d" % low
    for code, least, most in _WIDTHS + _WIDE:
        if least <= low and high <= most:
            return code.encode(), _planes(array(code, column))
    return _DECIMAL, b" ".join(b"%d" % number for number in column)


def _unpacked(code: bytes, count: int, body: bytes) -> Sequence[int]:
    if code == _CONSTANT:
        return _constant(int(body), count)
    if code == _DECIMAL:
        numbers = [int(word) for word in body.split(b" ")]
        if len(numbers) != count:
            raise BadColumn("a column of another length")
        return numbers
    if code not in _CODES:
        raise BadColumn(f"a column of the unknown type {code!r}")
    out: array[Any] = array(_CODES[code])
    width = out.itemsize
    if len(body) != count * width:
        raise BadColumn("a column of another length")
    raw = bytearray(len(body))
    for plane in range(width):
        raw[plane::width] = body[plane * count : (plane + 1) * count]
    out.frombytes(raw)
    if sys.byteorder == "big":
        out.byteswap()
    return out


def _constant(value: int, count: int) -> Sequence[int]:
    if count > 1 << 23:
        raise BadColumn(f"a column of {count:,} rows")
    return [value] * count


def _planes(column: array[Any]) -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    raw, width = column.tobytes(), column.itemsize
    return raw if width == 1 else b"".join(raw[plane::width] for plane in range(width))


def _shared(one: bytes, other: bytes) -> int:
    """How many bytes both start with, at most 255."""
    most = min(len(one), len(other), 255)
    if one[:most] == other[:most]:
        return most
    low, high = 0, most  # one[:low] is shared, one[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def distinct(column: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """The values in order of first appearance, and each row's place among them."""
    places: dict[Any, int] = {}
    rows = [places.setdefault(value, len(places)) for value in column]
    return list(places), rows
