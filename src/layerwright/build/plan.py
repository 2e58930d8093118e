"""Reuse or build: the decision for one stage, with its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layerwright.storage.records import ContentDigest, Record, StageDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    stage: str
    record: Record
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """`digest` is None where the stage is only named when it is built."""

    stage: str
    digest: StageDigest | None
    reason: str


Decision = Reuse | Build


def decide(stage: str, digest: StageDigest, record: Record | None, blamed: Mapping[bytes, str | None]) -> Decision:
    """Say whether a stage is reused or built, and why. `blamed`: paths the stage had written and git has changed since."""
    if record is not None:
        return Reuse(stage=stage, record=record, reason=f"found, built at {record.commit}")
    if blamed:
        paths = ", ".join(sorted(path.decode("utf-8", "backslashreplace") for path in blamed)[:3])
        return Build(stage=stage, digest=digest, reason=f"{paths} changed in git, and {stage} had written over it")
    return Build(stage=stage, digest=digest, reason=f"no stage {digest[:12]} in storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A stage that cannot be named yet: what it stands on, or what it takes files from, is not built."""

    stage: str
    reason: str


Planned = Reuse | Build | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedImage:
    """What a build would do for one image. `is_built`: the finished image is there, and nothing would be done.

    `stages` in order: those found, the first that must be built, and from there on what can be told without building it. gitCache and
    gitLatestPatch are there only where sources changed since the stages below were built.
    """

    name: str
    final: bool
    content_digest: ContentDigest
    is_built: bool
    stages: tuple[Planned, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """`images`: those asked for and those they need, each behind what it needs; as in the result of a build."""

    commit: str
    images: tuple[PlannedImage, ...]

    @property
    def is_built(self) -> bool:
        """Whether a build would do nothing."""
        return all(image.is_built for image in self.images)

    def image(self, name: str) -> PlannedImage:
        """The image of this name; "" is the nameless one. Raises KeyError."""
        for one in self.images:
            if one.name == name:
                return one
        raise KeyError(name)
