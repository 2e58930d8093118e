"""The build report: JSON, or shell variables for a file ending in .env. Source: docs/cli.md, "Build report"."""

from __future__ import annotations

import json
from typing import Any

from layerwright.build.result import BuildResult, BuiltImage
from layerwright.errors import UsageError
from layerwright.host.files import replacing
from layerwright.storage.records import Record, StageStep

DEFAULT_PATH = ".werf-build-report.json"


def report_path(path: str) -> str:
    """`path` with .json added if it has no extension. Raises UsageError for another than .json and .env."""
    name = path.rpartition("/")[2]
    _, dot, extension = name.lstrip(".").rpartition(".")
    if not dot and not (name.startswith(".") and name in (".json", ".env")):
        return f"{path}.json"
    if extension not in ("json", "env"):
        raise UsageError(f"a build report cannot be written as .{extension}", where="--build-report-path", mend="use a path that ends in .json or .env")
    return path


def write_report(result: BuildResult, path: str) -> str:
    """Write the report and return its path; it is there whole, or not at all."""
    path = report_path(path)
    text = env_text(result) if path.endswith(".env") else json.dumps(as_json(result), indent="\t") + "\n"
    with replacing(path) as out:
        out.write(text.encode("utf-8", "surrogateescape"))
    return path


def as_json(result: BuildResult) -> dict[str, Any]:
    return {
        "Runtime": {"Backend": "layerwright", "InContainer": False},
        "Commit": result.commit,
        "Images": {image.name: _image(image) for image in result.images},
    }


def _image(image: BuiltImage) -> dict[str, Any]:
    record = image.record
    return {
        "WerfImageName": image.name,
        "ConfigType": "stapel",
        "DockerRepo": record.project,
        "DockerTag": image.content_digest,
        "DockerImageID": image.image_id,
        "DockerImageDigest": "",
        "DockerImageName": image.local_name,
        "TargetPlatform": record.platform,
        "Rebuilt": image.rebuilt,
        "Final": image.final,
        "Size": _size(record),
        "BuildTime": f"{sum(image.seconds_by_stage.values()):.2f}",
        "Commit": record.commit,
        "ContentDigest": image.content_digest,
        "Stages": [_stage(image, step) for step in record.steps],
    }


def _stage(image: BuiltImage, step: StageStep) -> dict[str, Any]:
    record = image.record
    rebuilt = step.stage in image.seconds_by_stage
    own = [layer.size for layer in record.chain if layer.digest == step.digest and not layer.image_level]
    return {
        "Name": step.stage,
        "DockerImageName": f"{record.project}:{step.digest}",
        "DockerTag": step.digest,
        "DockerImageID": "",
        "DockerImageDigest": "",
        "CreatedAt": step.built_ms * 1_000_000,
        "Size": sum(max(size, 0) for size in own),
        "SourceType": "",
        "BaseImagePulled": False,
        "Rebuilt": rebuilt,
        "BuildTime": f"{image.seconds_by_stage.get(step.stage, 0.0):.2f}",
        "Commit": step.commit,
    }


def _size(record: Record) -> int:
    return sum(max(layer.size, 0) for layer in record.chain)


def env_text(result: BuildResult) -> str:
    """One KEY=VALUE line for each fact of each image."""
    lines = []
    for image in result.images:
        slug = "".join("_" if one in "/-." else one for one in image.name.upper())
        prefix = f"WERF_{slug}_" if slug else "WERF_"
        for key, value in (
            ("DOCKER_IMAGE_NAME", image.local_name),
            ("DOCKER_IMAGE_ID", image.image_id),
            ("DOCKER_IMAGE_DIGEST", ""),
            ("DOCKER_REPO", image.record.project),
            ("DOCKER_TAG", image.content_digest),
            ("WERF_IMAGE_NAME", image.name),
            ("FINAL", "true" if image.final else "false"),
        ):
            lines.append(f"{prefix}{key}={value}")
    return "\n".join(lines) + "\n"
