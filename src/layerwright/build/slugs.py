"""Free text as a part of names that allow little. Pure. Source: werf's slugs: letters and digits, what was left out told apart by a hash.

slug("Backend/API")      -> "backend-api-<hash>"
tag_slug("Backend.API")  -> unchanged, since it is a tag as it is
"""

from __future__ import annotations

import re
import unicodedata

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_MOST_CHARACTERS = 128
_SEPARATORS = "&({})-_[],.;:=+<>~/ "
_MASK = 0xFFFFFFFF
_CYRILLIC = dict(
    zip(
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
        "a b v g d e e zh z i j k l m n o p r s t u f h c ch sh sh  y  e yu ya".replace("  ", " _ ").split(" "),
        strict=True,
    )
)


def slug(text: str, most: int = _MOST_CHARACTERS) -> str:
    """`text` if it is lower-case letters, digits and single dashes already; else what is left of it, and a hash of the whole."""
    plain = _plain(text)
    if text and text == plain and len(text) <= most:
        return text
    mark = murmur3(text.encode("utf-8", "surrogateescape"))
    return f"{plain[: most - len(mark) - 1]}-{mark}" if plain else mark


def tag_slug(text: str) -> str:
    """`text` if it may be a tag; else its slug."""
    return text if TAG.match(text) else slug(text)


def _plain(text: str) -> str:
    spelled = "".join(_CYRILLIC.get(one, one).replace("_", "") if one in _CYRILLIC else one for one in text.lower())
    letters = unicodedata.normalize("NFKD", spelled)
    kept = "".join(one if one.isascii() and one.isalnum() else "-" if one in _SEPARATORS else "" for one in letters)
    return re.sub("-+", "-", kept).strip("-")


def murmur3(content: bytes) -> str:
    """MurmurHash3, 32 bits, seed 0, as hex digits without leading zeros. Source: Austin Appleby, MurmurHash3_x86_32."""
    total = 0
    for at in range(0, len(content) - 3, 4):
        total ^= _mixed(int.from_bytes(content[at : at + 4], "little"))
        total = (_rotated(total, 13) * 5 + 0xE6546B64) & _MASK
    if tail := content[len(content) & ~3 :]:
        total ^= _mixed(int.from_bytes(tail, "little"))
    total ^= len(content)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        total = ((total ^ (total >> shift)) * factor) & _MASK
    return f"{total ^ (total >> 16):x}"


def _mixed(word: int) -> int:
    return (_rotated(word * 0xCC9E2D51 & _MASK, 15) * 0x1B873593) & _MASK


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _MASK
