"""What a build gives: for each image its record, and what was done for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from layerwright.errors import UsageError
from layerwright.oci.digest import BlobDigest, digest_of
from layerwright.oci.platform import Platform
from layerwright.storage.records import Record

WITHIN_AN_IMAGE = ("dockerInstructions", "imageSpec", "gitLatestPatch")  # stages that are no names of a repository


class Placed(NamedTuple):
    """What a finished image is called in a repository: `repository` with the registry in front, its tag, and the digest of its manifest."""

    repository: str
    tag: str
    manifest: str

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Held:
    """A record that is here."""

    record: Record

    def __call__(self) -> Record:
        return self.record


class Wanted:
    """A record that is read when somebody wants it; pickled as what was read."""

    def __init__(self, read: Callable[[], Record]) -> None:
        self._read = read

    def __call__(self) -> Record:
        return self._read()

    def __reduce__(self) -> tuple[type[Held], tuple[Record]]:
        return Held, (self._read(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One image of a finished build. `content_digest` names it by all its inputs: 56 hex digits; of an image for several platforms it names them all.

    `seconds_by_stage` holds the stages built in this run, and only those; `sources` where the others came from ("local", "repo", "secondary",
    "cache-repo"). `placed`: what it is called in the repository, None without one. `platforms`: the images of one for several platforms.
    `load` reads the record where the build had no need to; it raises what registries say, and MissingBlob for what is lost there.
    """

    name: str
    final: bool
    project: str
    content_digest: str
    load: Callable[[], Record] = field(repr=False, compare=False)
    seconds_by_stage: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    moved_by_stage: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # bytes from registries, and to them
    placed: Placed | None = None
    stage_repository: str = ""  # with the registry in front: where its stages lie, which is not the final repository
    custom_tags: tuple[str, ...] = ()
    platforms: tuple[BuiltImage, ...] = ()
    platform: str = ""  # "linux/amd64"; "" of an image for several, and where the build was remembered

    @property
    def record(self) -> Record:
        """What the storage keeps of it; of an image for several platforms, that of the first. Asks the repository where the build only saw that it is there."""
        return self.platforms[0].record if self.platforms else self.load()

    @property
    def image_id(self) -> str:
        """The digest of the image's config, as `podman images` shows it."""
        return digest_of(self.record.config.encode())

    @property
    def local_name(self) -> str:
        """PROJECT:CONTENT-DIGEST."""
        return f"{self.project}:{self.content_digest}"

    @property
    def full_name(self) -> str:
        """What to deploy: REPOSITORY:CONTENT-DIGEST, or without a repository the local name."""
        return str(self.placed) if self.placed is not None else self.local_name

    @property
    def rebuilt(self) -> bool:
        return bool(self.seconds_by_stage) or any(one.rebuilt for one in self.platforms)


def records_of(image: BuiltImage | Record) -> tuple[Record, ...]:
    """One for each platform."""
    if isinstance(image, Record):
        return (image,)
    return tuple(one.record for one in image.platforms) or (image.record,)


def record_for(image: BuiltImage | Record, platform: Platform) -> Record:
    """That of the platform, of an image for several. Raises UsageError where it is not among them."""
    if isinstance(image, Record) or not image.platforms:
        return image if isinstance(image, Record) else image.record
    for one in image.platforms:
        if one.platform == str(platform):
            return one.record
    offered = [one.platform for one in image.platforms]
    what = f"image {image.name or '~'!r} is for {', '.join(offered)}, and not for {platform}, as this machine is"
    raise UsageError(what, mend=f"name one of them: --platform {offered[0]}")


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
    pushed_bytes: int = 0
    found: int = 0  # images that the repository was only asked for, by their names

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
    the configuration, which those name images by; the labels of the build are not in it, so it is not `BuiltImage.image_id`. Of an image for
    several platforms `digest` is of the index, and there is no `image_id`.
    """

    image: str
    to: str
    name: str
    image_id: BlobDigest | Literal[""]
    digest: BlobDigest | Literal[""]
