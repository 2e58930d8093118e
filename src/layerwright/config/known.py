"""The names of the images of a file, known before any of them is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from layerwright.config.nodes import Fields, Items, Scalar

_NAME_LINE = re.compile(r"""^(?:image|artifact):[ \t]*["']?([A-Za-z0-9][A-Za-z0-9_./-]*)["']?[ \t\r]*(?:#.*)?$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KnownNames:
    """`whole`: no section of the file is missing, so that a name which is not here is wrong."""

    names: frozenset[str]
    whole: bool


def known_names(sections: Iterable[Fields], unread: Iterable[str]) -> KnownNames:
    """`unread`: the texts of sections that are not YAML; a plain name in one of them is known as well."""
    names = {name for fields in sections for name in _written_names(fields)}
    guessed = [_NAME_LINE.search(text) for text in unread]
    names.update(found[1] for found in guessed if found)
    return KnownNames(frozenset(names), whole=None not in guessed)


def _written_names(fields: Fields) -> Iterator[str]:
    for key in ("image", "artifact"):
        entry = fields.entries.get(key)
        if entry is None:
            continue
        for node in entry.value.items if isinstance(entry.value, Items) else (entry.value,):
            if isinstance(node, Scalar) and not node.is_null and node.text:
                yield node.text
