"""What a build gives: for each image its record, and what was done for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layerwright.oci.digest import digest_of
from layerwright.storage.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One image of a finished build. `seconds_by_stage` holds the stages built in this run, and only those."""

    name: str
    final: bool
    record: Record
    seconds_by_stage: Mapping[str, float]

    @property
    def content_digest(self) -> str:
        """Names the image by all its inputs: 56 hex digits."""
        return self.record.digest

    @property
    def image_id(self) -> str:
        """The digest of the image's config, as `podman images` shows it."""
        return digest_of(self.record.config.encode())

    @property
    def local_name(self) -> str:
        """PROJECT:CONTENT-DIGEST."""
        return f"{self.record.project}:{self.record.digest}"

    @property
    def rebuilt(self) -> bool:
        return bool(self.seconds_by_stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """`images` in the order of werf.yaml, those asked for and those they need."""

    commit: str
    images: tuple[BuiltImage, ...]
    built: int
    reused: int
    pulled_bytes: int
    requests: int
    seconds: float

    def image(self, name: str) -> BuiltImage:
        return next(one for one in self.images if one.name == name)
