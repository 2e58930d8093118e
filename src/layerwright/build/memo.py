"""What a build with nothing to do reads instead of planning: for one commit, tool and choice of options, the finished images. A hint: records decide.

Light on purpose: this is the path of most builds in CI, so no YAML, no HTTP, no planning is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from layerwright.storage.local import LocalStore
from layerwright.storage.records import ContentDigest, Record
from layerwright.storage.uses import record_use

SCHEMA = 3
Place = tuple[str, int, int]  # file, line, column


def memo_key(**asked: object) -> str:
    """Of everything the answer depends on: commit, version, platform, options."""
    return json.dumps({"schema": SCHEMA, "build": asked}, sort_keys=True)


class Remembered(NamedTuple):
    """`images`: name, final, record. `filters`: base, includes, excludes of each git mapping, for the warning about uncommitted files.
    `warnings`: of the configuration, each with its text and position (file, line, column) or None."""

    images: tuple[tuple[str, bool, Record], ...]
    filters: tuple[dict[str, Any], ...]
    warnings: tuple[tuple[str, Place | None], ...]


def recall(store: LocalStore, key: str) -> Remembered | None:
    """The build remembered under `key`; None unless every record of it is whole."""
    kept = store.memo_get(key)
    if kept is None:
        return None
    found = []
    try:
        store.uses.add(*(record_use("image", str(one["content"])) for one in kept["images"]))  # all in one note
        for one in kept["images"]:
            record = store.find_image(ContentDigest(one["content"]))
            if record is None:
                return None
            found.append((str(one["name"]), bool(one["final"]), record))
        editions = {(), *(record.diff_ids for _, _, record in found)}
        if any(record.base_diff_ids not in editions for _, _, record in found):
            return None  # a base was built again
        warnings = tuple((str(text), tuple(place) if place else None) for text, place in kept["warnings"])
        return Remembered(tuple(found), tuple(kept["filters"]), warnings)
    except (KeyError, TypeError, ValueError):
        return None


class Names(NamedTuple):
    """As Remembered, with content digests in place of records: whether those are there, a repository is asked. `images`: name, final, content digest."""

    project: str
    images: tuple[tuple[str, bool, ContentDigest], ...]
    filters: tuple[dict[str, Any], ...]
    warnings: tuple[tuple[str, Place | None], ...]


def recall_names(store: LocalStore, key: str) -> Names | None:
    kept = store.memo_get(key)
    if kept is None:
        return None
    try:
        images = tuple((str(one["name"]), bool(one["final"]), ContentDigest(one["content"])) for one in kept["images"])
        warnings = tuple((str(text), tuple(place) if place else None) for text, place in kept["warnings"])
        return Names(str(kept["project"]), images, tuple(kept["filters"]), warnings)
    except (KeyError, TypeError, ValueError):
        return None


def remember(
    store: LocalStore,
    key: str,
    images: Sequence[tuple[str, bool, str]],
    filters: Sequence[Mapping[str, Any]],
    warnings: Sequence[tuple[str, Place | None]],
    *,
    project: str,
) -> None:
    """`images`: name, final, content digest; the rest as in Remembered."""
    named = [{"name": name, "final": final, "content": content} for name, final, content in images]
    store.memo_put(key, {"project": project, "images": named, "filters": list(filters), "warnings": [list(one) for one in warnings]})
