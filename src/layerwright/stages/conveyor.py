"""The order of stages, and which of them an image has. Source: docs/stages.md, "The conveyor"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerwright.config.model import Commands, Docker, Image, ImageSpec, Import
from layerwright.oci.platform import Platform
from layerwright.stages.commands import command_inputs
from layerwright.stages.from_image import BaseFacts, from_inputs
from layerwright.stages.git_archive import MappingFacts, archive_content
from layerwright.stages.image_spec import spec_inputs
from layerwright.stages.imports import import_content
from layerwright.stages.instructions import instructions_inputs
from layerwright.stages.key import ContentDocument, Inputs
from layerwright.storage.records import ContentDigest


@dataclass(frozen=True, slots=True)
class FromStage:
    name: str = "from"


@dataclass(frozen=True, slots=True)
class CommandStage:
    commands: Commands

    @property
    def name(self) -> str:
        return self.commands.stage


@dataclass(frozen=True, slots=True)
class ImportStage:
    name: str  # dependenciesBeforeInstall …
    imports: tuple[Import, ...]


@dataclass(frozen=True, slots=True)
class GitArchiveStage:
    name: str = "gitArchive"


@dataclass(frozen=True, slots=True)
class GitCacheStage:
    name: str = "gitCache"


@dataclass(frozen=True, slots=True)
class GitLatestPatchStage:
    name: str = "gitLatestPatch"


@dataclass(frozen=True, slots=True)
class InstructionsStage:
    docker: Docker
    name: str = "dockerInstructions"


@dataclass(frozen=True, slots=True)
class ImageSpecStage:
    spec: ImageSpec
    name: str = "imageSpec"


Stage = FromStage | CommandStage | ImportStage | GitArchiveStage | GitCacheStage | GitLatestPatchStage | InstructionsStage | ImageSpecStage

ORDER = (
    "from",
    "beforeInstall",
    "dependenciesBeforeInstall",
    "gitArchive",
    "install",
    "dependenciesAfterInstall",
    "beforeSetup",
    "dependenciesBeforeSetup",
    "setup",
    "dependenciesAfterSetup",
    "gitCache",
    "gitLatestPatch",
    "dockerInstructions",
    "imageSpec",
)


def conveyor(image: Image) -> tuple[Stage, ...]:
    """The stages `image` may have, in order; gitCache and gitLatestPatch only exist in a build that has something for them."""
    found: list[Stage] = []
    for name in ORDER:
        if (stage := _stage(image, name)) is not None:
            found.append(stage)
    return tuple(found)


def _stage(image: Image, name: str) -> Stage | None:
    match name:
        case "from":
            return FromStage()
        case "beforeInstall" | "install" | "beforeSetup" | "setup":
            return CommandStage(image.commands[name]) if name in image.commands else None
        case "gitArchive":
            return GitArchiveStage() if image.git else None
        case "gitCache":
            return GitCacheStage() if image.git and image.git_after_patch else None
        case "gitLatestPatch":
            return GitLatestPatchStage() if image.git and image.git_after_patch else None
        case "dockerInstructions":
            return InstructionsStage(image.docker) if image.docker is not None else None
        case "imageSpec":
            return ImageSpecStage(image.image_spec) if image.image_spec is not None else None
    imports = tuple(one for one in image.imports if _import_stage(one) == name)
    return ImportStage(name, imports) if imports else None


def _import_stage(one: Import) -> str:
    return f"dependencies{one.when.capitalize()}{one.at.capitalize()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """All that must be known to name a finished image. `imports`: content digest of the source of each import, by its place in `image.imports`."""

    image: Image
    project: str
    platform: Platform
    base: BaseFacts
    git: Sequence[MappingFacts] = ()
    imports: Mapping[int, ContentDigest]


def content_document(facts: ImageFacts, *, until: str = "") -> ContentDocument:
    """Every declared input of the image; with `until`, of the part of it up to that stage, where no file content of git mappings counts:
    that part is built once and follows the repository only through stageDependencies."""
    stages: list[tuple[str, Inputs]] = []
    for stage in conveyor(facts.image):
        inputs = _content_inputs(stage, facts, with_files=not until)
        if inputs is not None:
            stages.append((stage.name, inputs))
        if stage.name == until:
            break
    return ContentDocument(platform=str(facts.platform), stages=stages)


def _content_inputs(stage: Stage, facts: ImageFacts, *, with_files: bool) -> Inputs | None:
    image = facts.image
    match stage:
        case FromStage():
            return from_inputs(image, facts.base)
        case CommandStage(commands=commands):
            return command_inputs(commands, facts.git, {})
        case ImportStage(imports=imports):
            return import_content(imports, [facts.imports[image.imports.index(one)] for one in imports])
        case GitArchiveStage():
            return archive_content(image, facts.git if with_files else None)
        case InstructionsStage(docker=docker):
            return instructions_inputs(docker)
        case ImageSpecStage(spec=spec):
            return spec_inputs(spec, image=image.name, project=facts.project)
        case GitCacheStage() | GitLatestPatchStage():
            return None
