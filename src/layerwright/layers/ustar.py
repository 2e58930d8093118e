"""The 512-byte blocks of a tar and the records of pax headers: values to bytes and back, no I/O.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format"; star(5).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import adler32

BLOCK = 512
ZEROS = bytes(BLOCK)
NAME_MAX, PREFIX_MAX = 100, 155
OCTAL_7, OCTAL_11 = 8**7, 8**11  # the first numbers that an 8- and a 12-byte field cannot hold

_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_TIME = re.compile(rb"(-?)(\d{1,18})(?:\.(\d*))?\Z")


class BadField(ValueError):
    """A field or record that is not what the format says; the text says which."""


class Header(NamedTuple):
    """One header block as it stands, before extended headers are applied."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    typeflag: bytes
    link: bytes
    device: tuple[int, int]


def padding(size: int) -> int:
    """How many bytes fill `size` up to whole blocks."""
    return -size % BLOCK


def byte_sum(block: bytes) -> int:
    # The low half of adler32 is 1 + the sum modulo 65521, which 256 bytes cannot reach: ten times faster than sum().
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:BLOCK]) & 0xFFFF) - 2


def encode_header(
    *,
    name: bytes,
    typeflag: bytes,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """A ustar header block. What its fields cannot hold (see `fits`) is cut or 0 there, and must precede it in an extended header."""
    prefix, name = split_name(name) or (b"", name[:NAME_MAX])
    fields = (
        name,
        b"%07o\0" % mode,
        b"%07o\0" % (uid if 0 <= uid < OCTAL_7 else 0),
        b"%07o\0" % (gid if 0 <= gid < OCTAL_7 else 0),
        b"%011o\0" % (size if 0 <= size < OCTAL_11 else 0),
        b"%011o\0" % (mtime if 0 <= mtime < OCTAL_11 else 0),
        b"        ",
        typeflag,
        link[:NAME_MAX],
        b"ustar\x0000",
        b"",
        b"",
        b"%07o\0" % device[0],
        b"%07o\0" % device[1],
        prefix,
    )
    block = _HEADER.pack(*fields)
    return b"%b%06o\0 %b" % (block[:148], byte_sum(block), block[156:])


def split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """The prefix and name fields that hold `name`, or None where none can."""
    if len(name) <= NAME_MAX:
        return b"", name
    at = name.rfind(b"/", 1, min(PREFIX_MAX + 1, len(name) - 1))
    if at < 0 or len(name) - at - 1 > NAME_MAX:
        return None
    return name[:at], name[at + 1 :]


def encode_record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`, the length counting its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def decode_records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of an extended header in order. Raises BadField."""
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 12)
        digits = body[at:space]
        end = at + int(digits) if space > at and digits.isdigit() else 0
        equals = body.find(b"=", space + 1, end)
        if end > len(body) or equals <= space + 1 or body[end - 1] != 0x0A:
            raise BadField(f"a pax record that is not `length key=value`: {body[at : at + 40]!r}")
        yield body[space + 1 : equals], body[equals + 1 : end - 1]
        at = end


def decode_size(block: bytes) -> int:
    """The length of an extended header, of which nothing else counts. Raises BadField."""
    _verify(block)
    return decode_number(block[124:136], "size")


def decode_header(block: bytes) -> Header:
    """What a header block says: ustar, GNU, star or V7. Raises BadField, for a wrong checksum too."""
    _verify(block)
    magic = block[257:265]
    name = _text(block[:100])
    device = (0, 0)
    if magic[:5] == b"ustar":
        if block[156] in b"34":
            device = (decode_number(block[329:337], "device"), decode_number(block[337:345], "device"))
        if magic[5:6] == b"\0" and block[345]:
            prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
            name = prefix + b"/" + name
    return Header(
        name,
        decode_number(block[100:108], "mode"),
        decode_number(block[108:116], "uid"),
        decode_number(block[116:124], "gid"),
        decode_number(block[124:136], "size"),
        decode_number(block[136:148], "mtime"),
        block[156:157],
        _text(block[157:257]),
        device,
    )


def _verify(block: bytes) -> None:
    field = block[148:156]
    stated = decode_number(field, "checksum")
    if byte_sum(block) - sum(field) + 256 == stated:
        return
    # Some old tars summed signed bytes.
    if sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 256 != stated:
        raise BadField("a header whose checksum is wrong")


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def decode_number(field: bytes, what: str) -> int:
    """An octal field, or GNU's base-256. Empty is 0. Raises BadField."""
    text = field.rstrip(b"\0 ")
    if text.isdigit() or not text:
        try:
            return int(text or b"0", 8)
        except ValueError:
            raise BadField(f"a {what} that is not octal: {field!r}") from None
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    text = _text(field).strip(b" ")
    if text and (not text.isdigit() or b"8" in text or b"9" in text):
        raise BadField(f"a {what} that is not a number: {field!r}")
    return int(text or b"0", 8)


def decode_decimal(text: bytes, what: str) -> int:
    """A size or an id of an extended header. Raises BadField."""
    if not text.isdigit() or len(text) > 19:
        raise BadField(f"a {what} that is not a number: {text[:40]!r}")
    return int(text)


def decode_time(text: bytes) -> int:
    """The nanoseconds of a time such as `-1.5`; what is below a nanosecond is cut. Raises BadField."""
    found = _TIME.match(text)
    if found is None:
        raise BadField(f"an mtime that is not a number: {text[:40]!r}")
    sign, seconds, fraction = found.groups()
    ns = int(seconds) * 10**9 + int(((fraction or b"") + b"0" * 9)[:9])
    return -ns if sign else ns
