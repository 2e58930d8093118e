"""Imports from other images: in a stage document by the checksum of the files taken, in the content digest by the source image's own."""

from __future__ import annotations

from collections.abc import Sequence

from layerwright.config.model import Import
from layerwright.stages.key import Inputs, Json


def _placement(one: Import) -> dict[str, Json]:
    out: dict[str, Json] = {"to": one.to}
    for name, value in (("owner", one.owner), ("group", one.group)):
        if value:
            out[name] = value
    return out


def import_inputs(imports: Sequence[Import], checksums: Sequence[str]) -> Inputs:
    return {"imports": [_placement(one) | {"checksum": checksum} for one, checksum in zip(imports, checksums, strict=True)]}


def import_content(imports: Sequence[Import], sources: Sequence[str]) -> Inputs:
    """`sources`: content digests of the source images (of the named stage's part of them, where one is named)."""
    listed: list[Json] = []
    for one, source in zip(imports, sources, strict=True):
        taken: dict[str, Json] = _placement(one) | {"image": source, "add": one.add}
        for name, value in (
            ("stage", one.stage),
            ("includePaths", list(one.include_paths)),
            ("excludePaths", list(one.exclude_paths)),
            ("impliedExcludes", list(one.implied_excludes)),
        ):
            if value:
                taken[name] = value
        listed.append(taken)
    return {"imports": listed}
