"""`git` and `import`: which files enter an image. Source: werf.yaml reference, "git" and "import"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from layerwright.config.faults import Faults, quoted, suggestion
from layerwright.config.known import KnownNames
from layerwright.config.model import USER_STAGES, GitMapping, Import
from layerwright.config.nodes import Fields, Node
from layerwright.config.readers import absolute_path, choice, one_or_many, relative_glob, text
from layerwright.config.schema import Key, Table, Unsupported, section
from layerwright.errors import UsageError
from layerwright.oci.reference import has_version, parse_reference

_REMOTE = "remote git repositories are"
_SUBMODULE = "add that repository as a git submodule of this one, and give its path in git.add"
_globs = one_or_many(relative_glob)
_moment = choice("install", "setup")


class StageDependencyKeys(Table):
    title = "git.stageDependencies"
    install = Key[tuple[str, ...]](_globs, ())
    beforeSetup = Key[tuple[str, ...]](_globs, ())
    setup = Key[tuple[str, ...]](_globs, ())


class GitKeys(Table):
    title = "git"
    add = Key(absolute_path, "/")
    to = Key(absolute_path, "/", required='write where the files go in the image, for example "to: /app"')
    owner = Key(text, "")
    group = Key(text, "")
    includePaths = Key[tuple[str, ...]](_globs, ())
    excludePaths = Key[tuple[str, ...]](_globs, ())
    stageDependencies = Key[StageDependencyKeys | None](section(StageDependencyKeys), None)
    url = Unsupported(_REMOTE, _SUBMODULE)
    branch = Unsupported(_REMOTE, "take it away: this repository's files are always those of the commit that is built")
    tag = Unsupported(_REMOTE, "take it away: this repository's files are always those of the commit that is built")
    commit = Unsupported(_REMOTE, "take it away: this repository's files are always those of the commit that is built")
    basicAuth = Unsupported(_REMOTE, "take it away: this repository needs no password")
    herebyIAdmitThatBranchMightBreakReproducibility = Unsupported(
        _REMOTE, "take it away: werf 1.2 replaced it by config.stapel.git.allowBranch of werf-giterminism.yaml"
    )


class ImportKeys(Table):
    title = "import"
    from_ = Key(text, "", name="from")
    image = Key(text, "")
    artifact = Key(text, "")
    stage = Key(choice(*USER_STAGES), "")
    before = Key(_moment, "")
    after = Key(_moment, "")
    add = Key(absolute_path, "/", required='write which files to take, for example "add: /app/dist"')
    to = Key(absolute_path, "")
    owner = Key(text, "")
    group = Key(text, "")
    includePaths = Key[tuple[str, ...]](_globs, ())
    excludePaths = Key[tuple[str, ...]](_globs, ())


def git_mapping(keys: GitKeys, faults: Faults) -> GitMapping | None:
    """One mapping of this repository, or None if its target could not be read."""
    if _ends_in_slash(keys.fields, "to"):
        faults.warn(
            keys.at("to"), f'the slash at the end of git.to has no effect: files go to "{keys.to}" itself, not into a directory of the same name as git.add'
        )
    if "to" not in keys.values:
        return None
    return GitMapping(
        add=keys.add,
        to=keys.to,
        owner=keys.owner,
        group=keys.group,
        include_paths=keys.includePaths,
        exclude_paths=keys.excludePaths,
        stage_dependencies=_stage_dependencies(keys.stageDependencies),
        position=keys.position,
    )


def _stage_dependencies(keys: StageDependencyKeys | None) -> Mapping[str, tuple[str, ...]]:
    if keys is None:
        return {}
    written: dict[str, tuple[str, ...]] = {"install": keys.install, "beforeSetup": keys.beforeSetup, "setup": keys.setup}
    return {stage: globs for stage, globs in written.items() if globs}


def _ends_in_slash(fields: Fields, name: str) -> bool:
    node: Node | None = fields.entries[name].value if name in fields.entries else None
    written = getattr(node, "text", "")
    return written.endswith("/") and written.strip("/") != ""


def image_import(keys: ImportKeys, known: KnownNames, faults: Faults) -> Import | None:
    """One import, or None if its source or moment cannot be told; the faults are told."""
    source = _source(keys, known, faults)
    when = _when(keys, faults)
    if keys.values.get("add") == "/" and not keys.has("includePaths"):
        faults.add(keys.at("add"), 'import.add "/" would take the whole image', 'name a directory or file, or say what of "/" in includePaths')
    if source is None or when is None or "add" not in keys.values:
        return None
    return Import(
        image=source,
        stage=keys.stage,
        when=when,
        at=cast(Literal["install", "setup"], keys.before or keys.after),
        add=keys.add,
        to=keys.to or keys.add,
        owner=keys.owner,
        group=keys.group,
        include_paths=keys.includePaths,
        exclude_paths=keys.excludePaths,
        position=keys.position,
    )


def _source(keys: ImportKeys, known: KnownNames, faults: Faults) -> str | None:
    written = [name for name in ("from", "image", "artifact") if keys.values.get(name)]
    if len(written) != 1:
        if written:
            faults.add(
                keys.at(written[1]),
                f"import has both {quoted(written[0])} and {quoted(written[1])}",
                f'keep one of them, best as "from: {keys.values[written[0]]}"',
            )
        elif not any(keys.has(name) for name in ("from", "image", "artifact")):
            faults.add(keys.position, "import.from is missing", 'name the image of this file to take the files from, for example "from: builder"')
        return None
    name = str(keys.values[written[0]])
    if written[0] == "artifact":
        faults.warn_once("artifact", keys.at("artifact"), 'import.artifact is deprecated: write "from" instead')
    elif _is_external(name):
        instead = 'write an image section with "from: ' + name + '" and "final: false", and import from that'
        faults.unsupported(keys.at(written[0]), f"imports from an image of a registry ({name}) are", instead)
        return None
    if known.whole and name not in known.names:
        meant = suggestion(name, known.names)
        mend = f"did you mean {quoted(meant)}?" if meant else f'add a section with "image: {name}", or name one of this file\'s images'
        faults.add(keys.value_at(written[0]), f"no image of this file is named {quoted(name)}", mend)
        return None
    return name


def _is_external(name: str) -> bool:
    """Whether `name` is a good image reference that names a tag or digest itself; it is then external even if an image of the file has this name."""
    if not has_version(name):
        return False
    try:
        parse_reference(name)
    except UsageError:
        return False
    return True


def _when(keys: ImportKeys, faults: Faults) -> Literal["before", "after"] | None:
    if keys.has("before") == keys.has("after"):
        what = 'import has both "before" and "after"' if keys.has("before") else 'import has neither "before" nor "after"'
        faults.add(keys.at("after"), what, "say once when the files come: one of before: install, before: setup, after: install and after: setup")
        return None
    if not (keys.before or keys.after):
        return None
    return "before" if keys.before else "after"
