"""What a build with nothing to do reads instead of planning: for one commit, tool and choice of options, the finished images. A hint: records decide.

Light on purpose: this is the path of most builds in CI, so no YAML, no HTTP, no planning is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from layerwright.storage.local import LocalStore
from layerwright.storage.records import ContentDigest, Record

SCHEMA = 1


def memo_key(**asked: object) -> str:
    """Of everything the answer depends on: commit, version, platform, options."""
    return json.dumps({"schema": SCHEMA, "build": asked}, sort_keys=True)


def recall(store: LocalStore, key: str) -> tuple[tuple[tuple[str, bool, Record], ...], tuple[dict[str, Any], ...]] | None:
    """The images (name, final, record) of a build remembered under `key`, and the filters of their git mappings; None unless every record is whole."""
    kept = store.memo_get(key)
    if kept is None:
        return None
    found = []
    try:
        for one in kept["images"]:
            record = store.find_image(ContentDigest(one["content"]))
            if record is None:
                return None
            found.append((str(one["name"]), bool(one["final"]), record))
        return tuple(found), tuple(kept["filters"])
    except (KeyError, TypeError):
        return None


def remember(store: LocalStore, key: str, images: Sequence[tuple[str, bool, str]], filters: Sequence[Mapping[str, Any]]) -> None:
    """`images`: name, final, content digest. `filters`: base, includes, excludes of each git mapping, for the warning about uncommitted files."""
    store.memo_put(key, {"images": [{"name": name, "final": final, "content": content} for name, final, content in images], "filters": list(filters)})
