"""What a YAML text is made of, with positions. A scalar keeps its source text: the schema decides what it means.

Tuples, because a file may have many thousands of them and frozen dataclasses take longer to make.
Source: werf.yaml reference, "YAML dialect and type coercion" (YAML 1.1 as Go's yaml.v2 reads it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from layerwright.config.model import Position

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset("y Y yes Yes YES true True TRUE on On ON".split())
_FALSE = frozenset("n N no No NO false False FALSE off Off OFF".split())
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_NO_NUMBER = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


class Scalar(NamedTuple):
    """A text. `quoted`: a string for certain, whatever it looks like. `block`: it begins on the line below its position."""

    text: str
    quoted: bool
    size: int
    position: Position
    block: bool = False

    @property
    def is_null(self) -> bool:
        return not self.quoted and self.text in _NULLS

    @property
    def boolean(self) -> bool | None:
        if self.quoted:
            return None
        return True if self.text in _TRUE else False if self.text in _FALSE else None

    @property
    def integer(self) -> int | None:
        """The whole number it is; a fraction loses what follows its point."""
        text = self.text.replace("_", "")
        if self.quoted or not text or len(text) > 40:
            return None
        if _INTEGER.match(text):
            return _parse_integer(text)
        return int(float(text)) if _FLOAT.match(text) and abs(float(text)) < 2**63 else None

    @property
    def is_number(self) -> bool:
        text = self.text.replace("_", "")
        return not self.quoted and bool(_INTEGER.match(text) or _FLOAT.match(text) or _NO_NUMBER.match(text))

    @property
    def is_string(self) -> bool:
        """Whether it is a text where any type may stand: `80`, `yes` and nothing are not."""
        return self.quoted or not (self.is_null or self.boolean is not None or self.is_number)

    @property
    def shown(self) -> str:
        if self.is_null:
            return "empty"
        if self.is_string:
            return "a text"
        return f"the {'boolean' if self.boolean is not None else 'number'} {self.text}"


class Items(NamedTuple):
    """A list."""

    items: tuple[Node, ...]
    size: int
    position: Position

    @property
    def shown(self) -> str:
        return "a list"


class Entry(NamedTuple):
    """A key, where it stands, and its value."""

    key: str
    position: Position
    value: Node


class Fields(NamedTuple):
    """Keys with values, in order, each key once."""

    entries: Mapping[str, Entry]
    size: int  # how many nodes it is, aliases expanded
    position: Position

    @property
    def shown(self) -> str:
        return "a map of keys"


Node = Scalar | Items | Fields


def is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_null


def _parse_integer(text: str) -> int:
    sign, digits = (-1 if text[0] == "-" else 1), text.lstrip("+-").lower()
    if digits.startswith(("0x", "0b", "0o")):
        return sign * int(digits, 0)
    return sign * int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)
