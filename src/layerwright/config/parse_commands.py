"""`shell` and `mount`: what runs while an image is built, and what it sees of the host. Source: werf.yaml reference, "shell" and "mount"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from layerwright.config.faults import Faults, quoted
from layerwright.config.giterminism import Permissions
from layerwright.config.model import USER_STAGES, Commands, Mount
from layerwright.config.nodes import Node, Scalar
from layerwright.config.readers import absolute_path, choice, one_or_many, string, text
from layerwright.config.schema import Key, Table, Unsupported


class Command(NamedTuple):
    text: str
    line: int  # on which its text begins


def _command(node: Node, name: str, faults: Faults) -> Command:
    value = string(node, name, faults)
    below = isinstance(node, Scalar) and node.block
    return Command(value, node.position.line + below)


_commands = one_or_many(_command)


class ShellKeys(Table):
    title = "shell"
    beforeInstall = Key[tuple[Command, ...]](_commands, ())
    install = Key[tuple[Command, ...]](_commands, ())
    beforeSetup = Key[tuple[Command, ...]](_commands, ())
    setup = Key[tuple[Command, ...]](_commands, ())
    cacheVersion = Key(text, "")
    beforeInstallCacheVersion = Key(text, "")
    installCacheVersion = Key(text, "")
    beforeSetupCacheVersion = Key(text, "")
    setupCacheVersion = Key(text, "")


class MountKeys(Table):
    title = "mount"
    from_ = Key(choice("tmp_dir", "build_dir"), "", name="from")
    to = Key(absolute_path, "", required='write where build containers see the directory, for example "to: /root/.cache"')
    fromPath = Unsupported("mounts of a path of the host are", 'use "from: build_dir", which keeps a directory of its own between builds')


def shell_commands(keys: ShellKeys | None) -> Mapping[str, Commands]:
    """The user stages that exist: those with commands, with a cache version, and all of them if the common cache version is set."""
    if keys is None:
        return {}
    stages: dict[str, Commands] = {}
    for stage in USER_STAGES:
        written: Sequence[Command] = keys.values.get(stage, ())
        own_version = str(keys.values.get(f"{stage}CacheVersion", ""))
        if not (written or own_version or keys.cacheVersion):
            continue
        place = next((name for name in (stage, f"{stage}CacheVersion", "cacheVersion") if keys.has(name)), "")
        stages[stage] = Commands(
            stage=stage,
            commands=tuple(one.text for one in written),
            lines=tuple(one.line for one in written),
            cache_version=own_version,
            common_cache_version=keys.cacheVersion,
            position=keys.at(place),
        )
    return stages


def mounts(written: Sequence[MountKeys], permissions: Permissions, faults: Faults) -> tuple[Mount, ...]:
    found: list[Mount] = []
    for keys in written:
        _check_source(keys, permissions, faults)
        if not keys.to:
            continue
        if keys.to == "/":
            faults.add(keys.at("to"), 'mount.to "/" would hide the whole image', "name the directory that build containers shall see, for example /root/.cache")
        first = next((one for one in found if one.to == keys.to), None)
        if first is not None:
            faults.add(
                keys.at("to"),
                f"{quoted(keys.to)} is mounted twice, first on line {first.position.line}",
                "keep one of the two mounts, or give this one another place",
            )
        if keys.from_:
            found.append(Mount(kind=cast(Literal["tmp_dir", "build_dir"], keys.from_), to=keys.to, position=keys.position))
    return tuple(found)


def _check_source(keys: MountKeys, permissions: Permissions, faults: Faults) -> None:
    if keys.from_ == "build_dir" and not permissions.build_dir:
        what = "mount.from build_dir is not permitted by werf-giterminism.yaml: what the directory holds differs from machine to machine"
        faults.add(keys.at("from"), what, f'use "from: tmp_dir", or {permissions.lines_for("config", "stapel", "mount", "allowBuildDir")}')
    if not (keys.has("from") or keys.has("fromPath")):
        faults.add(keys.position, "mount.from is missing", 'write "from: tmp_dir" for a fresh directory each build, or "from: build_dir" for one that is kept')
