"""The configuration as frozen values: what `parse` makes of werf.yaml, and all that later rooms know of it.

Lists keep the order of the file. Paths are cleaned (POSIX, lexically). An image section with several names gives one `Image` per name.
Source: werf.yaml reference, sections "meta" and "stapel image".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from layerwright.config.position import Position as Position

UserStage = Literal["beforeInstall", "install", "beforeSetup", "setup"]
USER_STAGES: tuple[UserStage, ...] = ("beforeInstall", "install", "beforeSetup", "setup")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalBase:
    """An image of a registry. `text` is the reference as written, with `:latest` where it names neither tag nor digest."""

    text: str
    latest: bool = False  # fromLatest
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalBase:
    """Another image of the same file."""

    image: str
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchBase:
    """`from: scratch`."""

    position: Position


Base = ExternalBase | InternalBase | ScratchBase


@dataclass(frozen=True, slots=True, kw_only=True)
class GitMapping:
    """Files of this repository that go into the image. `add` and `to` are absolute; filters and stage dependencies are globs relative to `add`.

    `implied_excludes` are what overlapping targets add (werf.yaml reference, "Overlapping targets"), relative to `to`; they are filters too, but written by nobody.
    """

    add: str
    to: str
    owner: str = ""
    group: str = ""
    include_paths: tuple[str, ...] = ()
    exclude_paths: tuple[str, ...] = ()
    implied_excludes: tuple[str, ...] = ()
    stage_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by install, beforeSetup, setup
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """Files of another image of the same file. `stage` is "" for its last stage."""

    image: str
    stage: str = ""
    when: Literal["before", "after"]
    at: Literal["install", "setup"]
    add: str
    to: str
    owner: str = ""
    group: str = ""
    include_paths: tuple[str, ...] = ()
    exclude_paths: tuple[str, ...] = ()
    implied_excludes: tuple[str, ...] = ()  # as in GitMapping, relative to `to`
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """One user stage: its commands in order, its own cache version, and the common one of `shell`."""

    stage: UserStage
    commands: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()  # the line in werf.yaml on which each command starts
    cache_version: str = ""
    common_cache_version: str = ""
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory of the host that build containers see at `to`, and the image does not."""

    kind: Literal["tmp_dir", "build_dir"]
    to: str
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """Times are seconds; None leaves a field out."""

    test: tuple[str, ...] = ()
    interval_s: int | None = None
    timeout_s: int | None = None
    start_period_s: int | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """The `docker` section. `cmd`, `entrypoint`: a str is the shell form, a tuple the exec form, None is not written."""

    volume: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    label: Mapping[str, str] = field(default_factory=dict)
    cmd: str | tuple[str, ...] | None = None
    entrypoint: str | tuple[str, ...] | None = None
    workdir: str = ""
    user: str = ""
    healthcheck: str = ""
    exact_values: bool = False
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """The `imageSpec` section, `build.imageSpec` already merged in. None of `expose` means not written; () empties it."""

    author: str = ""
    clear_history: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    remove_labels: tuple[str, ...] = ()
    keep_essential_werf_labels: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    remove_env: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    remove_volumes: tuple[str, ...] = ()
    expose: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    clear_cmd: bool = False
    clear_entrypoint: bool = False
    clear_user: bool = False
    clear_working_dir: bool = False
    healthcheck: Healthcheck | None = None
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image (or artifact) of the file. `name` is "" for the nameless one, which people see as "~"."""

    name: str
    base: Base
    artifact: bool = False
    final: bool = True
    from_cache_version: str = ""
    cache_version: str = ""  # its own, else build.cacheVersion
    git: tuple[GitMapping, ...] = ()
    git_after_patch: bool = True  # False: disableGitAfterPatch, or an artifact
    commands: Mapping[str, Commands] = field(default_factory=dict)  # by user stage; only those with commands or a cache version
    imports: tuple[Import, ...] = ()
    mounts: tuple[Mount, ...] = ()
    docker: Docker | None = None
    image_spec: ImageSpec | None = None
    network: str = ""  # "", "host" or "none"
    platforms: tuple[str, ...] = ()  # normalised, each once, in the file's order; () is the host's
    position: Position

    @property
    def shown(self) -> str:
        return self.name or "~"

    @property
    def platform(self) -> str:
        """The only one of `platforms`; "" is the host's."""
        assert len(self.platforms) <= 1, f"{self.shown} is for several platforms"
        return self.platforms[0] if self.platforms else ""

    @property
    def needs(self) -> tuple[str, ...]:
        """The images of this file it is made from, its base first, each once."""
        base = (self.base.image,) if isinstance(self.base, InternalBase) else ()
        return tuple(dict.fromkeys(base + tuple(one.image for one in self.imports)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Warn:
    """Something to tell the user that stops nothing."""

    position: Position
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One werf.yaml: images in the file's order, checked; `needs` has no cycle and names only images of the file."""

    project: str
    images: tuple[Image, ...]
    warnings: tuple[Warn, ...] = ()
    file: str = "werf.yaml"

    def image(self, name: str) -> Image:
        return next(one for one in self.images if one.name == name)
