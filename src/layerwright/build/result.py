"""What a build gives: for each image its record, and what was done for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from layerwright.oci.digest import BlobDigest, digest_of
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
    """`images`: those asked for and those they need, each behind what it needs. `pulled_bytes` and `requests`: of all registries."""

    commit: str
    images: tuple[BuiltImage, ...]
    built: int  # stages
    reused: int  # stages
    pulled_bytes: int
    requests: int
    seconds: float

    def image(self, name: str) -> BuiltImage:
        """The image of this name; "" is the nameless one. Raises KeyError."""
        for one in self.images:
            if one.name == name:
                return one
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An image that was written elsewhere. `to` as it was asked for; `name` what it is called there, "" for nothing.

    `digest` is of the manifest that was written; "" for a docker archive and Docker's store, which have none. `image_id` is the digest of
    the configuration, which those name images by; the labels of the build are not in it, so it is not `BuiltImage.image_id`.
    """

    image: str
    to: str
    name: str
    image_id: BlobDigest
    digest: BlobDigest | Literal[""]
