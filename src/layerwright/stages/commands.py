"""The user stages beforeInstall, install, beforeSetup and setup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerwright.config.model import Commands
from layerwright.stages.git_archive import MappingFacts, changed_paths
from layerwright.stages.key import Inputs, Json


def command_inputs(commands: Commands, facts: Sequence[MappingFacts], changed: Mapping[bytes, str | None]) -> Inputs:
    """Commands, cache versions, and the files that stageDependencies name, each by path, mode and content. The network is no input (docs/stages.md)."""
    inputs: dict[str, Json] = {"commands": list(commands.commands)}
    if commands.cache_version:
        inputs["cacheVersion"] = commands.cache_version
    if commands.common_cache_version:
        inputs["commonCacheVersion"] = commands.common_cache_version
    dependencies: list[Json] = [dict(fact.dependencies[commands.stage]) for fact in facts if commands.stage in fact.dependencies]
    if dependencies:
        inputs["stageDependencies"] = dependencies
    return inputs | changed_paths(changed)
