"""The build report: typed values, as JSON, and as shell variables for a file ending in .env. Source: docs/cli.md, "Build report"."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from layerwright.build.result import WITHIN_AN_IMAGE, BuildResult, BuiltImage
from layerwright.errors import UsageError
from layerwright.host.files import replacing
from layerwright.storage.records import Record, StageStep

DEFAULT_PATH = ".werf-build-report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """One stage of a finished image. `digest` is "" for a stage that has none of its own; `seconds` 0.0 unless it was built in this run."""

    name: str
    digest: str
    commit: str  # it was built at
    created_ms: int  # Unix time, milliseconds, UTC
    size_bytes: int  # of its own layers, uncompressed
    rebuilt: bool
    seconds: float
    source: str = "local"  # "built" in this run, or where it was found: "local", "repo", "secondary", "cache-repo"
    down_bytes: int = 0  # from registries, for it
    up_bytes: int = 0
    name_in_repo: str = ""  # REPOSITORY:stage-DIGEST; "" without a repository, and for a stage that exists within a finished image only


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """One image. `commit` is the one it was built at; `seconds` what its stages took in this run."""

    name: str
    project: str
    platform: str
    final: bool
    rebuilt: bool
    content_digest: str
    image_id: str
    commit: str
    size_bytes: int  # of all layers, uncompressed, as far as they are known
    seconds: float
    stages: tuple[StageReport, ...]
    repository: str = ""  # REGISTRY/PATH, or the project without one
    manifest_digest: str = ""  # in the repository
    down_bytes: int = 0  # from registries, for the image itself: its manifest and record, and layers that no stage of its own brought
    up_bytes: int = 0
    custom_tags: tuple[str, ...] = ()
    platforms: tuple[ImageReport, ...] = ()

    @property
    def full_name(self) -> str:
        """REPOSITORY:CONTENT-DIGEST; without a repository PROJECT:CONTENT-DIGEST."""
        return f"{self.repository}:{self.content_digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build gave. `images` in the order of the result."""

    commit: str
    images: tuple[ImageReport, ...]

    def image(self, name: str) -> ImageReport:
        """Raises KeyError."""
        for one in self.images:
            if one.name == name:
                return one
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`: the shape of werf's report, with `ContentDigest` and `Commit` besides."""
        return {
            "Runtime": {"Backend": "layerwright", "InContainer": False},
            "Commit": self.commit,
            "Images": {image.name: _image_json(image) for image in self.images},
        }

    def as_env(self) -> str:
        """One KEY=VALUE line for each fact of each image."""
        return "".join(f"{_prefix(image)}{key}={value}\n" for image in self.images for key, value in _env_facts(image))

    def write(self, path: str) -> str:
        """Write it as JSON, or as variables if `path` ends in .env, and return the path; the file is there whole, or not at all.

        `.json` is added to a path without an ending. Raises UsageError for another ending, MachineLacks where it cannot be written.
        """
        path = report_path(path)
        text = self.as_env() if path.endswith(".env") else json.dumps(self.as_json(), indent="\t") + "\n"
        with replacing(path) as out:
            out.write(text.encode("utf-8", "surrogateescape"))
        return path


def report_path(path: str) -> str:
    """`path` with .json added if it has no extension. Raises UsageError for another than .json and .env."""
    name = path.rpartition("/")[2]
    _, dot, extension = name.lstrip(".").rpartition(".")
    if not dot and not (name.startswith(".") and name in (".json", ".env")):
        return f"{path}.json"
    if extension not in ("json", "env"):
        raise UsageError(f"a build report cannot be written as .{extension}", where="--build-report-path", mend="use a path that ends in .json or .env")
    return path


def report_of(result: BuildResult) -> BuildReport:
    return BuildReport(commit=result.commit, images=tuple(_image(image) for image in result.images))


def write_report(result: BuildResult, path: str) -> str:
    """Write the report and return its path; it is there whole, or not at all."""
    return report_of(result).write(path)


def _image(image: BuiltImage) -> ImageReport:
    if image.platforms:
        return _for_several(image)
    record = image.record
    down, up = image.moved_by_stage.get("", (0, 0))
    return ImageReport(
        name=image.name,
        project=record.project,
        platform=record.platform,
        final=image.final,
        rebuilt=image.rebuilt,
        content_digest=image.content_digest,
        image_id=image.image_id,
        commit=record.commit,
        size_bytes=sum(max(layer.size, 0) for layer in record.chain),
        seconds=sum(image.seconds_by_stage.values()),
        stages=tuple(_stage(image, record, step) for step in record.steps),
        repository=image.placed.repository if image.placed is not None else record.project,
        manifest_digest=image.placed.manifest if image.placed is not None else "",
        down_bytes=down,
        up_bytes=up,
        custom_tags=image.custom_tags,
    )


def _for_several(image: BuiltImage) -> ImageReport:
    platforms = tuple(_image(one) for one in image.platforms)
    return ImageReport(
        name=image.name,
        project=image.project,
        platform="",
        final=image.final,
        rebuilt=image.rebuilt,
        content_digest=image.content_digest,
        image_id=image.placed.manifest if image.placed is not None else "",
        commit=platforms[0].commit,
        size_bytes=sum(one.size_bytes for one in platforms),
        seconds=sum(one.seconds for one in platforms),
        stages=(),
        repository=image.placed.repository if image.placed is not None else image.project,
        manifest_digest=image.placed.manifest if image.placed is not None else "",
        custom_tags=image.custom_tags,
        platforms=platforms,
    )


def _stage(image: BuiltImage, record: Record, step: StageStep) -> StageReport:
    own = [layer.size for layer in record.chain if layer.digest == step.digest and not layer.image_level]
    seconds = image.seconds_by_stage.get(step.stage)
    down, up = image.moved_by_stage.get(step.stage, (0, 0))
    return StageReport(
        name=step.stage,
        digest=step.digest,
        commit=step.commit,
        created_ms=step.built_ms,
        size_bytes=sum(max(size, 0) for size in own),
        rebuilt=seconds is not None,
        seconds=seconds or 0.0,
        source="built" if seconds is not None else image.sources.get(step.stage, "repo" if image.placed is not None else "local"),
        down_bytes=down,
        up_bytes=up,
        name_in_repo=f"{image.stage_repository}:stage-{step.digest}" if image.stage_repository and step.stage not in WITHIN_AN_IMAGE else "",
    )


def _image_json(image: ImageReport) -> dict[str, Any]:
    stages = [_stage_json(image, stage) for stage in image.stages]
    for one in image.platforms:
        stages += [_stage_json(one, stage) | {"Name": f"{stage.name} ({one.platform})"} for stage in one.stages]
    return {
        "WerfImageName": image.name,
        "ConfigType": "" if image.platforms else "stapel",
        "DockerRepo": image.repository,
        "DockerTag": image.content_digest,
        "DockerImageID": image.image_id,
        "DockerImageDigest": image.manifest_digest,
        "DockerImageName": image.full_name,
        "TargetPlatform": image.platform,
        "Rebuilt": image.rebuilt,
        "Final": image.final,
        "Size": image.size_bytes,
        "BuildTime": f"{image.seconds:.2f}",
        "Commit": image.commit,
        "ContentDigest": image.content_digest,
        "CustomTags": list(image.custom_tags),
        "BytesDown": image.down_bytes,
        "BytesUp": image.up_bytes,
        "Stages": stages,
    }


def _stage_json(image: ImageReport, stage: StageReport) -> dict[str, Any]:
    return {
        "Name": stage.name,
        "DockerImageName": stage.name_in_repo or f"{image.project}:{stage.digest}",
        "DockerTag": stage.name_in_repo.rpartition(":")[2] or stage.digest,
        "DockerImageID": "",
        "DockerImageDigest": "",
        "CreatedAt": stage.created_ms * 1_000_000,
        "Size": stage.size_bytes,
        "SourceType": stage.source if stage.source in ("repo", "secondary", "cache-repo") else "",
        "Source": stage.source,
        "BaseImagePulled": stage.name == "from" and stage.down_bytes > 0,
        "Rebuilt": stage.rebuilt,
        "BuildTime": f"{stage.seconds:.2f}",
        "Commit": stage.commit,
        "BytesDown": stage.down_bytes,
        "BytesUp": stage.up_bytes,
    }


def _prefix(image: ImageReport) -> str:
    slug = "".join("_" if one in "/-." else one for one in image.name.upper())
    return f"WERF_{slug}_" if slug else "WERF_"


def _env_facts(image: ImageReport) -> tuple[tuple[str, str], ...]:
    return (
        ("DOCKER_IMAGE_NAME", image.full_name),
        ("DOCKER_IMAGE_ID", image.image_id),
        ("DOCKER_IMAGE_DIGEST", image.manifest_digest),
        ("DOCKER_REPO", image.repository),
        ("DOCKER_TAG", image.content_digest),
        ("WERF_IMAGE_NAME", image.name),
        ("FINAL", "true" if image.final else "false"),
    )
