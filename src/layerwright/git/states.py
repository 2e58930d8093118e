"""The recorded state of a mapping: its list of (path, mode, blob id), kept as a blob of its own for clones that no longer have the git objects.

The bytes are: b"layerwright-state 1\\n", then `<count> <bytes of an id>\\n`, then the ids one after another, then one zlib stream of the modes (octal,
each with a NUL) and the paths (each with a NUL). Ids are random bytes, so only the rest is worth compressing; 50,000 files are about 1.2 MB. Which
state it is, is said by git.values.state_digest, not by these bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

_MAGIC = b"layerwright-state 1\n"
_LEVEL = 6
_MOST_BYTES = 1 << 30  # of modes and paths: a damaged or hostile blob must not fill the memory


class BadState(ValueError):
    """The bytes are not a state; to a build this is a missing state."""


def encode_state(entries: Iterable[tuple[bytes, int, str]]) -> bytes:
    """The same bytes whatever the order of `entries`. Ids are hexadecimal, all of one length; paths hold no NUL."""
    ordered = sorted(entries)
    width = len(ordered[0][2]) // 2 if ordered else 0
    assert all(len(oid) == 2 * width and b"\0" not in path and mode >= 0 for path, mode, oid in ordered), "not the entries of one repository"
    ids = bytes.fromhex("".join([oid for _, _, oid in ordered]))
    texts = b"".join([b"%o\0" % mode for _, mode, _ in ordered]) + b"".join([path + b"\0" for path, _, _ in ordered])
    return _MAGIC + b"%d %d\n" % (len(ordered), width) + ids + zlib.compress(texts, _LEVEL)


def decode_state(content: bytes) -> tuple[tuple[bytes, int, str], ...]:
    """The entries sorted by path. Raises BadState."""
    if not content.startswith(_MAGIC):
        raise BadState("not a recorded state")
    head, found, rest = content[len(_MAGIC) :].partition(b"\n")
    try:
        count, width = (int(word) for word in head.split(b" "))
    except ValueError as error:
        raise BadState("its first lines are damaged") from error
    if not found or count < 0 or not 0 <= width <= 64 or len(rest) < count * width:
        raise BadState("it is cut off")
    texts = _inflated(rest[count * width :]).split(b"\0")
    if len(texts) != 2 * count + 1 or texts[-1]:
        raise BadState("it holds another number of entries than it says")
    ids = rest[: count * width].hex()
    try:
        modes = [int(mode, 8) for mode in texts[:count]]
    except ValueError as error:
        raise BadState("a mode is not a number") from error
    return tuple(
        (path, mode, ids[2 * width * number : 2 * width * (number + 1)]) for number, (path, mode) in enumerate(zip(texts[count:-1], modes, strict=True))
    )


def _inflated(content: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        texts = inflate.decompress(content, _MOST_BYTES)
    except zlib.error as error:
        raise BadState(f"it does not decompress: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise BadState("it is cut off, or goes on after its end")
    return texts
