"""One stapel section: as many images as it has names. Source: werf.yaml reference, "Image sections" and "Stapel sections"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from layerwright.config.faults import Faults, quoted
from layerwright.config.giterminism import Permissions
from layerwright.config.known import KnownNames
from layerwright.config.model import Commands, GitMapping, Image, ImageSpec, Import
from layerwright.config.nodes import Fields, Items, Node, Scalar, is_null
from layerwright.config.overlaps import with_implied_excludes
from layerwright.config.parse_base import base_of, check_bases
from layerwright.config.parse_commands import MountKeys, ShellKeys, mounts, shell_commands
from layerwright.config.parse_files import GitKeys, ImportKeys, git_mapping, image_import
from layerwright.config.parse_meta import Meta
from layerwright.config.parse_spec import DockerKeys, SpecKeys, docker, image_spec, merged_spec
from layerwright.config.platforms import effective_platforms, platform_name
from layerwright.config.readers import flag, many, string, text
from layerwright.config.schema import Key, Table, Unsupported, Wrong, section, sections


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the rest of the project says about every image of the file."""

    meta: Meta | None
    known: KnownNames
    permissions: Permissions


def _names(node: Node, name: str, faults: Faults) -> tuple[str, ...]:
    """One name, or a list of them. A null never comes here: it is the nameless image's."""
    if isinstance(node, Items):
        found = []
        for item in node.items:
            found += [string(item, name, faults)]
        if not found:
            faults.add(node.position, "this section has no image name", "write the name into the list, or image: NAME")
            raise Wrong
        return tuple(found)
    return (string(node, name, faults),)


def _network(node: Node, name: str, faults: Faults) -> str:
    value = text(node, name, faults)
    if value not in ("", "host", "none"):
        faults.unsupported(node.position, f"the network {quoted(value)} is", "write host or none")
        raise Wrong
    return value


class ImageKeys(Table):
    image = Key[tuple[str, ...]](_names, ("",))
    artifact = Key(text, "")
    from_ = Key(text, "", name="from")
    fromImage = Key(text, "")
    fromArtifact = Key(text, "")
    fromImageArtifact = Key(text, "")  # werf 1.1's name of fromArtifact
    fromLatest = Key(flag, False)
    fromCacheVersion = Key(text, "")
    final = Key(flag, True)
    cacheVersion = Key(text, "")
    platform = Key[tuple[str, ...]](many(platform_name), ())
    network = Key(_network, "")
    git = Key[tuple[GitKeys, ...]](sections(GitKeys), ())
    disableGitAfterPatch = Key(flag, False)
    shell = Key[ShellKeys | None](section(ShellKeys), None)
    import_ = Key[tuple[ImportKeys, ...]](sections(ImportKeys), (), name="import")
    mount = Key[tuple[MountKeys, ...]](sections(MountKeys), ())
    docker = Key[DockerKeys | None](section(DockerKeys), None)
    imageSpec = Key[SpecKeys | None](section(SpecKeys), None)
    asLayers = Key(flag, False)  # werf 1.1 only; changes caching, not content
    herebyIAdmitThatFromLatestMightBreakReproducibility = Key(flag, False)  # werf 1.1 only
    ansible = Unsupported("Ansible tasks are", 'write the commands under "shell"')
    dependencies = Unsupported("dependencies are", 'take files of the other image with "import", or build on it with "from"')
    secrets = Unsupported("build secrets are", "make what needs the secret in an image that is built elsewhere, and name that in from")
    ssh = Unsupported("SSH agents in builds are", "use a git submodule for sources that need a key")


def parse_image(fields: Fields, around: Surroundings, faults: Faults) -> tuple[Image, ...]:
    """The images of one section; where something is wrong the fault is told and a default taken, so that later faults are found as well."""
    keys = ImageKeys(fields, faults)
    _check_kind(keys, faults)
    _check_from_latest(keys, around.permissions, faults)
    _warn(keys, faults)
    git, imports = with_implied_excludes(
        [mapping for written in keys.git if (mapping := git_mapping(written, faults)) is not None],
        [taken for written in keys.import_ if (taken := image_import(written, around.known, faults)) is not None],
        faults,
    )
    check_bases(keys, faults)
    names = (keys.artifact,) if keys.artifact else keys.image
    first = _image(names[0], keys, git, imports, around, faults)
    if "artifact" not in keys.fields.entries and _is_unread(keys, "image"):
        return ()
    return (first, *(replace(first, name=name, base=base_of(name, keys, around.known, faults)) for name in names[1:]))


def _image(name: str, keys: ImageKeys, git: tuple[GitMapping, ...], imports: tuple[Import, ...], around: Surroundings, faults: Faults) -> Image:
    final = keys.final and not keys.artifact
    own_spec = image_spec(keys.imageSpec) if keys.imageSpec else None
    commands = shell_commands(keys.shell)
    _warn_of_idle_dependencies(git, commands, faults)
    meta = around.meta
    return Image(
        name=name,
        base=base_of(name, keys, around.known, faults),
        artifact=bool(keys.artifact),
        final=final,
        from_cache_version=keys.fromCacheVersion,
        cache_version=keys.cacheVersion or (meta.cache_version if meta else ""),
        git=git,
        git_after_patch=not (keys.disableGitAfterPatch or keys.artifact),
        commands=commands,
        imports=imports,
        mounts=mounts(keys.mount, around.permissions, faults),
        docker=docker(keys.docker) if keys.docker else None,
        image_spec=_spec(own_spec, meta, final=final),
        network=keys.network,
        platforms=effective_platforms(keys.platform, meta.platforms if meta else ()),
        position=keys.at("artifact" if keys.artifact else "image"),
    )


def _spec(own: ImageSpec | None, meta: Meta | None, *, final: bool) -> ImageSpec | None:
    return merged_spec(meta.image_spec if meta else None, own) if final else own


def _check_kind(keys: ImageKeys, faults: Faults) -> None:
    """What an artifact and what a named image may not have."""
    entries = keys.fields.entries
    if "artifact" in entries and "image" in entries:
        faults.add(
            keys.at("artifact"),
            'this section has both "image" and "artifact"',
            'keep "image"; with "final: false" and "disableGitAfterPatch: true" it is what an artifact is',
        )
    elif "artifact" in entries and not keys.artifact and _is_empty_text(entries["artifact"].value):
        faults.add(keys.at("artifact"), "the artifact has no name", "write artifact: NAME")
    if keys.artifact and keys.has("docker"):
        instead = 'write "image" instead of "artifact", with "final: false" and "disableGitAfterPatch: true", or take it away'
        faults.add(keys.at("docker"), 'an artifact cannot have "docker"', instead)
    if keys.artifact and keys.has("final"):
        faults.add(keys.at("final"), 'an artifact cannot have "final"', "take it away: an artifact is never final")
    if keys.artifact and keys.disableGitAfterPatch:
        faults.add(
            keys.at("disableGitAfterPatch"), 'an artifact cannot have "disableGitAfterPatch"', "take it away: artifacts do not follow the repository anyway"
        )
    if keys.docker and keys.imageSpec:
        faults.add(keys.at("docker"), 'this section has both "docker" and "imageSpec"', 'move what "docker" says into imageSpec.config')


def _is_empty_text(node: Node) -> bool:
    return isinstance(node, Scalar) and (node.is_null or not node.text)


def _check_from_latest(keys: ImageKeys, permissions: Permissions, faults: Faults) -> None:
    admitted = "herebyIAdmitThatFromLatestMightBreakReproducibility"
    allow = permissions.lines_for("config", "stapel", "allowFromLatest")
    if admitted in keys.fields.entries:
        mend = "take it away" if permissions.from_latest or not keys.fromLatest else f"take it away, and {allow}"
        faults.add(keys.at(admitted), f"{admitted} is of werf 1.1, and is now a permission of the project", mend)
    elif keys.fromLatest and not permissions.from_latest:
        what = "fromLatest is not permitted by werf-giterminism.yaml: a new base under the same tag makes built images unusable"
        faults.add(keys.at("fromLatest"), what, f"write a fixed tag and count up fromCacheVersion to take a new base, or {allow}")


def _warn(keys: ImageKeys, faults: Faults) -> None:
    if "image" in keys.fields.entries and not keys.artifact and "" in keys.image and not _is_unread(keys, "image"):
        faults.warn(keys.at("image"), "an image without a name is deprecated: name it")
    for name in ("artifact", "fromArtifact", "fromImageArtifact"):
        if keys.values.get(name):
            instead = '"image", "final: false" and "disableGitAfterPatch: true"' if name == "artifact" else '"from"'
            faults.warn_once("artifact", keys.at(name), f"{name} is deprecated: write {instead} instead")
    if keys.docker:
        faults.warn_once("docker", keys.at("docker"), '"docker" is deprecated: write imageSpec.config instead')
    if keys.docker and keys.disableGitAfterPatch:
        faults.warn(keys.at("docker"), 'werf ignores "docker" in an image with disableGitAfterPatch; it is applied here')
    if keys.asLayers:
        faults.warn(keys.at("asLayers"), "asLayers is of werf 1.1 and has no effect: the image has the same files, cached by stages; take it away")


def _is_unread(keys: ImageKeys, name: str) -> bool:
    """Whether the key's value is there but could not be read, so that its default says nothing."""
    return name not in keys.values and not is_null(keys.fields.entries[name].value)


def _warn_of_idle_dependencies(git: tuple[GitMapping, ...], commands: Mapping[str, Commands], faults: Faults) -> None:
    for mapping in git:
        for stage in mapping.stage_dependencies:
            if stage not in commands:
                faults.warn(mapping.position, f"git.stageDependencies.{stage} has no effect: there are no commands in shell.{stage}")
