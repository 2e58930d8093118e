"""Git mappings as inputs: which parameters name a mapping, and what of its files enters which document."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerwright.config.model import GitMapping, Image
from layerwright.git.values import PathFilter
from layerwright.stages.key import Inputs, Json, canonical, text_of

GIT_CACHE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFacts:
    """A mapping's state at the commit. `digest` names the whole list; `dependencies` holds, for each stage with patterns, "<mode> <oid>" by path."""

    digest: str
    dependencies: Mapping[str, Mapping[str, str]]


def parameters(mapping: GitMapping) -> Inputs:
    """All that the configuration says of a mapping but stageDependencies, which enter the stages they belong to."""
    out: dict[str, Json] = {"add": mapping.add, "to": mapping.to}
    for name, value in (
        ("owner", mapping.owner),
        ("group", mapping.group),
        ("includePaths", list(mapping.include_paths)),
        ("excludePaths", list(mapping.exclude_paths)),
        ("impliedExcludes", list(mapping.implied_excludes)),
    ):
        if value:
            out[name] = value
    return out


def mapping_id(mapping: GitMapping) -> str:
    """64 hex digits that name a mapping by its parameters, in records."""
    return hashlib.sha256(canonical(parameters(mapping))).hexdigest()


def path_filter(mapping: GitMapping) -> PathFilter:
    """What the mapping takes of the repository."""
    return PathFilter(
        base=mapping.add.strip("/").encode("utf-8", "surrogateescape"),
        includes=mapping.include_paths,
        excludes=mapping.exclude_paths + mapping.implied_excludes,
    )


def archive_inputs(image: Image, changed: Mapping[bytes, str | None]) -> Inputs:
    """The stage document leaves file content out: one source layer serves many commits. `changed` are paths whose removal the layer cannot be patched for."""
    inputs: dict[str, Json] = {"git": [parameters(mapping) for mapping in image.git]}
    return inputs | changed_paths(changed)


def archive_content(image: Image, facts: Sequence[MappingFacts] | None) -> Inputs:
    """For the content digest. An image that does not follow the repository after its archive has no file content among its inputs."""
    inputs: dict[str, Json] = {"git": [parameters(mapping) for mapping in image.git]}
    if image.git_after_patch and facts is not None:
        inputs["files"] = [fact.digest for fact in facts]
    return inputs


def changed_paths(changed: Mapping[bytes, str | None]) -> dict[str, Json]:
    """Paths taken as inputs of a stage because it had written them (docs/git.md, "When a command wrote a tracked file")."""
    return {"changedPaths": {text_of(path): state for path, state in changed.items()}} if changed else {}
