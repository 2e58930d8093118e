"""werf-giterminism.yaml: what the project permits itself to read from outside its commit. Source: giterminism reference, "Gates" and "werf-giterminism.yaml"."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.config.document import read_single
from layerwright.config.faults import Faults, quoted
from layerwright.config.nodes import Node
from layerwright.config.readers import any_glob, flag, many, name_or_regexp, text
from layerwright.config.schema import Key, Table, Wrong, section

FILE = "werf-giterminism.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """`present`: the file exists, so that lines to add need no version line."""

    present: bool = False
    from_latest: bool = False
    build_dir: bool = False

    def lines_for(self, *path: str) -> str:
        """How to permit the key at `path`, in the lines to add."""
        version = "" if self.present else "\n    giterminismConfigVersion: 1"
        lines = "".join(f"\n    {'  ' * depth}{key}:" for depth, key in enumerate(path))
        return f"add to {FILE} and commit it (or give --loose-giterminism):{version}{lines} true"


ALL_PERMITTED = Permissions(present=True, from_latest=True, build_dir=True)


def _version(node: Node, name: str, faults: Faults) -> str:
    value = text(node, name, faults)
    if value != "1":
        faults.add(node.position, f"{name} {quoted(value)} is unknown", "write giterminismConfigVersion: 1")
        raise Wrong
    return value


class _Keys(Table):
    lenient = True  # werf 2 ignores unknown keys here without a word


class _CliKeys(_Keys):
    title = "cli"
    allowCustomTags = Key(flag, False)


class _TemplateKeys(_Keys):
    title = "config.goTemplateRendering"
    allowEnvVariables = Key(many(name_or_regexp), ())
    allowUncommittedFiles = Key(many(any_glob), ())


class _SecretKeys(_Keys):
    title = "config.secrets"
    allowEnvVariables = Key(many(text), ())
    allowFiles = Key(many(any_glob), ())
    allowValueIds = Key(many(text), ())


class _StapelGitKeys(_Keys):
    title = "config.stapel.git"
    allowBranch = Key(flag, False)


class _StapelMountKeys(_Keys):
    title = "config.stapel.mount"
    allowBuildDir = Key(flag, False)
    allowFromPaths = Key(many(any_glob), ())


class _StapelKeys(_Keys):
    title = "config.stapel"
    allowFromLatest = Key(flag, False)
    git = Key[_StapelGitKeys | None](section(_StapelGitKeys), None)
    mount = Key[_StapelMountKeys | None](section(_StapelMountKeys), None)


class _DockerfileKeys(_Keys):
    title = "config.dockerfile"
    allowUncommitted = Key(many(any_glob), ())
    allowUncommittedDockerignoreFiles = Key(many(any_glob), ())
    allowContextAddFiles = Key(many(any_glob), ())


class _ConfigKeys(_Keys):
    title = "config"
    allowUncommitted = Key(flag, False)
    allowUncommittedTemplates = Key(many(any_glob), ())
    goTemplateRendering = Key[_TemplateKeys | None](section(_TemplateKeys), None)
    secrets = Key[_SecretKeys | None](section(_SecretKeys), None)
    stapel = Key[_StapelKeys | None](section(_StapelKeys), None)
    dockerfile = Key[_DockerfileKeys | None](section(_DockerfileKeys), None)


class _HelmKeys(_Keys):
    title = "helm"
    allowUncommittedFiles = Key(many(any_glob), ())


class _IncludesKeys(_Keys):
    title = "includes"
    allowIncludesUpdate = Key(flag, False)


class _RootKeys(_Keys):
    giterminismConfigVersion = Key(_version, "", required="begin the file with giterminismConfigVersion: 1")
    cli = Key[_CliKeys | None](section(_CliKeys), None)
    config = Key[_ConfigKeys | None](section(_ConfigKeys), None)
    helm = Key[_HelmKeys | None](section(_HelmKeys), None)
    includes = Key[_IncludesKeys | None](section(_IncludesKeys), None)


def read_permissions(content: str | None, faults: Faults, *, loose: bool) -> Permissions:
    """What `content`, the file's text or None if there is none, permits; everything if `loose`."""
    fields = None if content is None else read_single(content, FILE, faults)
    keys = _RootKeys(fields, faults) if fields else None
    for table in (keys, keys.config, keys.config and keys.config.goTemplateRendering, keys.config and keys.config.dockerfile, keys.helm) if keys else ():
        _warn_of_disk(table, faults)
    if loose:
        return ALL_PERMITTED
    stapel = keys.config.stapel if keys and keys.config else None
    return Permissions(
        present=content is not None,
        from_latest=bool(stapel and stapel.allowFromLatest),
        build_dir=bool(stapel and stapel.mount and stapel.mount.allowBuildDir),
    )


def _warn_of_disk(table: Table | None, faults: Faults) -> None:
    """Every file is read from the commit, whatever is permitted; who counts on the disk should know."""
    for name in table.keys if table else ():
        if table and name.startswith("allowUncommitted") and table.values.get(name):
            faults.warn(table.at(name), f"{table.shown(name)} has no effect yet: every file is read from the commit, so commit what shall count")
