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

SCHEMA = 4
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
    """The build remembered under `key`; None unless every record of it is whole, and none is of several platforms."""
    kept = store.memo_get(key)
    if kept is None:
        return None
    found = []
    try:
        if any(one["platforms"] for one in kept["images"]):
            return None
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


class NamedImage(NamedTuple):
    """`platforms`: of an image for several, each with the content digest of its own."""

    name: str
    final: bool
    content: ContentDigest
    platforms: tuple[tuple[str, ContentDigest], ...] = ()


class Names(NamedTuple):
    """As Remembered, with content digests in place of records: whether those are there, a repository is asked."""

    project: str
    images: tuple[NamedImage, ...]
    filters: tuple[dict[str, Any], ...]
    warnings: tuple[tuple[str, Place | None], ...]


def recall_names(store: LocalStore, key: str) -> Names | None:
    kept = store.memo_get(key)
    if kept is None:
        return None
    try:
        images = tuple(
            NamedImage(
                str(one["name"]),
                bool(one["final"]),
                ContentDigest(one["content"]),
                tuple((str(platform), ContentDigest(content)) for platform, content in one["platforms"]),
            )
            for one in kept["images"]
        )
        warnings = tuple((str(text), tuple(place) if place else None) for text, place in kept["warnings"])
        return Names(str(kept["project"]), images, tuple(kept["filters"]), warnings)
    except (KeyError, TypeError, ValueError):
        return None


def remember(
    store: LocalStore,
    key: str,
    images: Sequence[NamedImage],
    filters: Sequence[Mapping[str, Any]],
    warnings: Sequence[tuple[str, Place | None]],
    *,
    project: str,
) -> None:
    """`filters` and `warnings` as in Remembered."""
    store.memo_put(
        key, {"project": project, "images": [one._asdict() for one in images], "filters": list(filters), "warnings": [list(one) for one in warnings]}
    )
