"""For every kind of input: changing it changes the digest, and what is no input changes none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from layerwright.config.model import (
    Commands,
    Docker,
    ExternalBase,
    GitMapping,
    Healthcheck,
    Image,
    ImageSpec,
    Import,
    InternalBase,
    Mount,
    Position,
    ScratchBase,
)
from layerwright.oci.digest import BlobDigest
from layerwright.oci.platform import Platform
from layerwright.stages.commands import command_inputs
from layerwright.stages.conveyor import ImageFacts, content_document, conveyor
from layerwright.stages.from_image import BaseFacts, from_inputs
from layerwright.stages.git_archive import MappingFacts, archive_inputs, mapping_id, path_filter
from layerwright.stages.git_patch import cache_inputs, patch_inputs
from layerwright.stages.imports import import_inputs
from layerwright.stages.key import content_digest, encode_content
from layerwright.storage.records import ContentDigest

AT = Position("werf.yaml", 1, 1)
ELSEWHERE = Position("werf.yaml", 9, 9)
DIGEST = BlobDigest("sha256:" + "a" * 64)

GIT = GitMapping(add="/src", to="/app", stage_dependencies={"install": ("go.mod",), "setup": ("*.go",)}, position=AT)
INSTALL = Commands(stage="install", commands=("make",), lines=(12,), position=AT)
SETUP = Commands(stage="setup", commands=("make install",), cache_version="1", common_cache_version="c", position=AT)
IMPORT = Import(image="assets", when="before", at="install", add="/out", to="/static", position=AT)
DOCKER = Docker(cmd=("run",), env={"A": "1"}, position=AT)
SPEC = ImageSpec(author="me", labels={"name": "%image%-%project%"}, position=AT)
IMAGE = Image(
    name="app",
    base=ExternalBase(text="alpine:3", position=AT),
    from_cache_version="f",
    cache_version="v",
    git=(GIT,),
    commands={"install": INSTALL, "setup": SETUP},
    imports=(IMPORT,),
    mounts=(Mount(kind="tmp_dir", to="/tmp/cache", position=AT),),
    docker=DOCKER,
    image_spec=SPEC,
    position=AT,
)
FACTS = ImageFacts(
    image=IMAGE,
    project="demo",
    platform=Platform("linux", "amd64"),
    base=BaseFacts(),
    git=(MappingFacts(digest="files-1", dependencies={"install": {"go.mod": "100644 aa"}, "setup": {"a.go": "100644 bb"}}),),
    imports={0: ContentDigest("source-1")},
)


def of(facts: ImageFacts) -> str:
    return content_digest(content_document(facts))


def image(**changes: object) -> ImageFacts:
    return replace(FACTS, image=replace(IMAGE, **changes))  # type: ignore[arg-type]


def git(**changes: object) -> ImageFacts:
    return image(git=(replace(GIT, **changes),))  # type: ignore[arg-type]


def install(**changes: object) -> ImageFacts:
    return image(commands={"install": replace(INSTALL, **changes), "setup": SETUP})  # type: ignore[arg-type]


def imported(**changes: object) -> ImageFacts:
    return image(imports=(replace(IMPORT, **changes),))  # type: ignore[arg-type]


def docker(**changes: object) -> ImageFacts:
    return image(docker=replace(DOCKER, **changes))  # type: ignore[arg-type]


def spec(**changes: object) -> ImageFacts:
    return image(image_spec=replace(SPEC, **changes))  # type: ignore[arg-type]


def mapping(**changes: object) -> ImageFacts:
    return replace(FACTS, git=(replace(FACTS.git[0], **changes),))  # type: ignore[arg-type]


CHANGES: dict[str, ImageFacts] = {
    "platform": replace(FACTS, platform=Platform("linux", "arm64")),
    "from": image(base=ExternalBase(text="alpine:4", position=AT)),
    "from scratch": image(base=ScratchBase(position=AT)),
    "from digest": image(base=ExternalBase(text=f"alpine@{DIGEST}", position=AT)),
    "from another image": replace(image(base=InternalBase(image="base", position=AT)), base=BaseFacts(content=ContentDigest("b1"))),
    "from another image, changed": replace(image(base=InternalBase(image="base", position=AT)), base=BaseFacts(content=ContentDigest("b2"))),
    "fromLatest": replace(image(base=ExternalBase(text="alpine:3", latest=True, position=AT)), base=BaseFacts(latest=BlobDigest("sha256:" + "b" * 64))),
    "fromLatest, moved": replace(image(base=ExternalBase(text="alpine:3", latest=True, position=AT)), base=BaseFacts(latest=BlobDigest("sha256:" + "c" * 64))),
    "fromCacheVersion": image(from_cache_version="g"),
    "no fromCacheVersion": image(from_cache_version=""),
    "cacheVersion": image(cache_version="w"),
    "versions swapped": image(cache_version="f", from_cache_version="v"),
    "mount to": image(mounts=(Mount(kind="tmp_dir", to="/tmp/other", position=AT),)),
    "mount kind": image(mounts=(Mount(kind="build_dir", to="/tmp/cache", position=AT),)),
    "no mount": image(mounts=()),
    "git.add": git(add="/lib"),
    "git.to": git(to="/srv"),
    "git.owner": git(owner="1000"),
    "git.group": git(group="1000"),
    "git.includePaths": git(include_paths=("*.go",)),
    "git.excludePaths": git(exclude_paths=("*.go",)),
    "excludes that overlapping targets imply": git(implied_excludes=("static",)),
    "git files": mapping(digest="files-2"),
    "stageDependencies": mapping(dependencies={"install": {"go.mod": "100644 cc"}, "setup": {"a.go": "100644 bb"}}),
    "stageDependencies mode": mapping(dependencies={"install": {"go.mod": "100755 aa"}, "setup": {"a.go": "100644 bb"}}),
    "stageDependencies path": mapping(dependencies={"install": {"go.sum": "100644 aa"}, "setup": {"a.go": "100644 bb"}}),
    "command": install(commands=("make all",)),
    "two commands": install(commands=("make", "make")),
    "stage cache version": install(cache_version="1"),
    "common cache version": install(common_cache_version="1"),
    "no install": image(commands={"setup": SETUP}),
    "import source": replace(FACTS, imports={0: ContentDigest("source-2")}),
    "import.add": imported(add="/other"),
    "import.to": imported(to="/other"),
    "import.owner": imported(owner="1"),
    "import.group": imported(group="1"),
    "import.includePaths": imported(include_paths=("a",)),
    "import.excludePaths": imported(exclude_paths=("a",)),
    "excludes that overlapping imports imply": imported(implied_excludes=("a",)),
    "import.stage": imported(stage="install"),
    "import after": imported(when="after"),
    "import at setup": imported(at="setup"),
    "docker.CMD": docker(cmd=("walk",)),
    "docker.CMD, shell form": docker(cmd="run"),
    "docker.CMD empty": docker(cmd=()),
    "docker.ENTRYPOINT": docker(entrypoint=("run",), cmd=None),
    "docker.ENV": docker(env={"A": "2"}),
    "docker.exactValues": docker(exact_values=True),
    "docker.LABEL": docker(label={"A": "2"}),
    "docker.VOLUME": docker(volume=("/data",)),
    "docker.EXPOSE": docker(expose=("80",)),
    "docker.WORKDIR": docker(workdir="/data"),
    "docker.USER": docker(user="nobody"),
    "docker.HEALTHCHECK": docker(healthcheck="CMD true"),
    "imageSpec.author": spec(author="you"),
    "imageSpec.labels": spec(labels={"name": "x"}),
    "imageSpec.removeLabels": spec(remove_labels=("x",)),
    "imageSpec.env": spec(env={"A": "1"}),
    "imageSpec.removeEnv": spec(remove_env=("A",)),
    "imageSpec.volumes": spec(volumes=("/x",)),
    "imageSpec.removeVolumes": spec(remove_volumes=("/x",)),
    "imageSpec.expose": spec(expose=("80",)),
    "imageSpec.expose empty": spec(expose=()),
    "imageSpec.user": spec(user="x"),
    "imageSpec.workingDir": spec(working_dir="/x"),
    "imageSpec.stopSignal": spec(stop_signal="SIGINT"),
    "imageSpec.cmd": spec(cmd=("x",)),
    "imageSpec.entrypoint": spec(entrypoint=("x",)),
    "imageSpec.clearHistory": spec(clear_history=True),
    "imageSpec.clearCmd": spec(clear_cmd=True),
    "imageSpec.clearEntrypoint": spec(clear_entrypoint=True),
    "imageSpec.clearUser": spec(clear_user=True),
    "imageSpec.clearWorkingDir": spec(clear_working_dir=True),
    "imageSpec.healthcheck": spec(healthcheck=Healthcheck(test=("CMD", "x"))),
    "imageSpec.healthcheck interval": spec(healthcheck=Healthcheck(test=("CMD", "x"), interval_s=1)),
    "imageSpec.healthcheck timeout": spec(healthcheck=Healthcheck(test=("CMD", "x"), timeout_s=1)),
    "imageSpec.healthcheck startperiod": spec(healthcheck=Healthcheck(test=("CMD", "x"), start_period_s=1)),
    "imageSpec.healthcheck retries": spec(healthcheck=Healthcheck(test=("CMD", "x"), retries=1)),
    "a label with the image's name": image(name="web"),
    "a label with the project's name": replace(FACTS, project="shop"),
}
NO_INPUTS: dict[str, ImageFacts] = {
    "position of the image": image(position=ELSEWHERE),
    "position of a command": install(lines=(99,), position=ELSEWHERE),
    "final": image(final=False),
    "network": image(network="none"),
    "stageDependencies patterns that match the same": git(stage_dependencies={"install": ("go.*",), "setup": ("*.go",)}),
    "keepEssentialWerfLabels": spec(keep_essential_werf_labels=True),
}
PLAIN = replace(FACTS, image=replace(IMAGE, image_spec=None))


@pytest.mark.parametrize("name", CHANGES)
def test_each_input_changes_the_content_digest(name: str) -> None:
    assert of(CHANGES[name]) != of(FACTS)


def test_no_two_changes_give_the_same_digest() -> None:
    digests = [of(facts) for facts in CHANGES.values()]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", NO_INPUTS)
def test_what_is_no_input_changes_nothing(name: str) -> None:
    assert of(NO_INPUTS[name]) == of(FACTS)


def test_names_of_image_and_project_are_no_inputs_unless_a_label_holds_them() -> None:
    renamed = replace(PLAIN, project="shop", image=replace(PLAIN.image, name="web"))
    assert of(renamed) == of(PLAIN)


def test_an_image_that_does_not_follow_git_has_no_file_content_in_its_digest() -> None:
    fixed = replace(FACTS, image=replace(IMAGE, git_after_patch=False))
    changed = replace(fixed, git=(replace(FACTS.git[0], digest="files-2"),))
    assert of(fixed) == of(changed)
    assert of(fixed) != of(replace(fixed, git=(replace(FACTS.git[0], dependencies={"install": {}, "setup": {}}),)))


def test_the_content_document_names_every_stage() -> None:
    names = [stage for stage, _ in content_document(FACTS).stages]
    assert names == ["from", "dependenciesBeforeInstall", "gitArchive", "install", "setup", "dockerInstructions", "imageSpec"]
    assert encode_content(content_document(FACTS)).startswith(b'{"image":true')


def test_a_content_digest_until_a_stage_leaves_out_what_follows_and_file_content() -> None:
    until = content_digest(content_document(FACTS, until="install"))
    assert until == content_digest(content_document(CHANGES["git files"], until="install"))
    assert until == content_digest(content_document(CHANGES["docker.CMD"], until="install"))
    assert until != content_digest(content_document(CHANGES["command"], until="install"))


# Stage documents: what finds a stage.

STAGE_INPUTS: dict[str, Callable[[ImageFacts], object]] = {
    "from": lambda facts: from_inputs(facts.image, facts.base),
    "gitArchive": lambda facts: archive_inputs(facts.image, {}),
    "install": lambda facts: command_inputs(facts.image.commands["install"], facts.git, {}) if "install" in facts.image.commands else None,
    "setup": lambda facts: command_inputs(facts.image.commands["setup"], facts.git, {}),
    "import": lambda facts: import_inputs(facts.image.imports, ["sum"]),
}
OF_STAGE = {
    "from": {
        "from",
        "from scratch",
        "from digest",
        "from another image",
        "from another image, changed",
        "fromLatest",
        "fromLatest, moved",
        "fromCacheVersion",
        "no fromCacheVersion",
        "cacheVersion",
        "versions swapped",
        "mount to",
        "mount kind",
        "no mount",
    },
    "gitArchive": {"git.add", "git.to", "git.owner", "git.group", "git.includePaths", "git.excludePaths", "excludes that overlapping targets imply"},
    "install": {
        "stageDependencies",
        "stageDependencies mode",
        "stageDependencies path",
        "command",
        "two commands",
        "stage cache version",
        "common cache version",
        "no install",
    },
    "setup": set(),
    "import": {"import.to", "import.owner", "import.group"},
}


@pytest.mark.parametrize("stage", STAGE_INPUTS)
def test_a_stage_document_changes_with_its_own_inputs_and_with_no_other(stage: str) -> None:
    inputs = STAGE_INPUTS[stage]
    changed = {name for name, facts in CHANGES.items() if inputs(facts) != inputs(FACTS)}
    assert changed == OF_STAGE[stage]


def test_a_source_layer_serves_every_commit() -> None:
    assert archive_inputs(IMAGE, {}) == archive_inputs(CHANGES["git files"].image, {})


def test_paths_that_a_stage_had_written_are_its_inputs() -> None:
    plain = command_inputs(INSTALL, FACTS.git, {})
    blamed = command_inputs(INSTALL, FACTS.git, {b"app/version": "100644 aa"})
    assert blamed == {**plain, "changedPaths": {"app/version": "100644 aa"}}
    assert archive_inputs(IMAGE, {b"app/x": None}) == {**archive_inputs(IMAGE, {}), "changedPaths": {"app/x": None}}


def test_import_checksums_are_inputs() -> None:
    assert import_inputs([IMPORT], ["1"]) != import_inputs([IMPORT], ["2"])


@pytest.mark.parametrize(("size", "expected"), [(0, None), ((1 << 20) - 1, None), (1 << 20, {"changedMiB": 1}), (5 << 20, {"changedMiB": 5})])
def test_a_git_cache_exists_from_one_mebibyte_on(size: int, expected: object) -> None:
    assert cache_inputs(size) == expected


def test_a_patch_is_named_by_its_changes() -> None:
    one = patch_inputs([(b"a", "100644 aa"), (b"b", None)])
    assert one == patch_inputs([(b"b", None), (b"a", "100644 aa")])
    others = [[(b"a", "100755 aa"), (b"b", None)], [(b"a", "100644 aa")], [(b"a", "100644 aa"), (b"c", None)]]
    assert len({str(one), *(str(patch_inputs(other)) for other in others)}) == 4


def test_a_mapping_is_named_by_its_parameters_and_filters_as_written() -> None:
    assert mapping_id(GIT) != mapping_id(replace(GIT, owner="1"))
    assert mapping_id(GIT) == mapping_id(replace(GIT, position=ELSEWHERE, stage_dependencies={}))
    filtered = path_filter(replace(GIT, include_paths=("a",), implied_excludes=("a/b",)))
    assert (filtered.takes(b"src/a/c"), filtered.takes(b"src/a/b"), filtered.takes(b"src/x"), filtered.takes(b"a/c")) == (True, False, False, False)


def test_the_order_of_stages() -> None:
    assert [stage.name for stage in conveyor(IMAGE)] == [
        "from",
        "dependenciesBeforeInstall",
        "gitArchive",
        "install",
        "setup",
        "gitCache",
        "gitLatestPatch",
        "dockerInstructions",
        "imageSpec",
    ]
    fixed = replace(IMAGE, git_after_patch=False, imports=())
    assert [stage.name for stage in conveyor(fixed)] == ["from", "gitArchive", "install", "setup", "dockerInstructions", "imageSpec"]
