"""The meta section: the project, and what holds for all its images. Source: werf.yaml reference, "Meta section"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from layerwright.config.faults import Faults, quoted
from layerwright.config.model import ImageSpec, Position
from layerwright.config.nodes import Fields, Node
from layerwright.config.parse_spec import SharedSpecKeys, shared_spec
from layerwright.config.platforms import platform_name
from layerwright.config.readers import choice, duration, filled, flag, integer, many, name_or_regexp, natural, text
from layerwright.config.schema import Key, Table, Wrong, section, sections

_PROJECT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """`platforms` are those of images that name none, as written, normalised."""

    project: str
    cache_version: str = ""
    platforms: tuple[str, ...] = ()
    image_spec: ImageSpec | None = None
    position: Position


def _version(node: Node, name: str, faults: Faults) -> int:
    value = integer(node, name, faults)
    if value != 1:
        faults.add(node.position, f"configVersion {value} is unknown", "write configVersion: 1")
        raise Wrong
    return value


def _project(node: Node, name: str, faults: Faults) -> str:
    value = text(node, name, faults)
    if not _PROJECT.match(value):
        mend = f"write lower-case letters, digits and hyphens, 50 at most, without a hyphen at either end: {quoted(project_name_from(value))}"
        faults.add(node.position, f"the project name {quoted(value)} is not allowed", mend)
        raise Wrong
    return value


def project_name_from(text_: str) -> str:
    """A good project name made of `text_`."""
    return re.sub(r"[^a-z0-9]+", "-", text_.lower()).strip("-")[:50].strip("-") or "project"


class BuildKeys(Table):
    title = "build"
    cacheVersion = Key(text, "")
    platform = Key[tuple[str, ...]](many(platform_name), ())
    staged = Key(flag, False)
    imageSpec = Key[SharedSpecKeys | None](section(SharedSpecKeys), None)


class ReferenceLimitKeys(Table):
    title = "cleanup.keepPolicies.references.limit"
    last = Key(integer, -1)
    in_ = Key(duration, "", name="in")
    operator = Key(choice("And", "Or"), "And")


class ReferenceKeys(Table):
    title = "cleanup.keepPolicies.references"
    branch = Key(name_or_regexp, "")
    tag = Key(name_or_regexp, "")
    limit = Key[ReferenceLimitKeys | None](section(ReferenceLimitKeys), None)

    def __init__(self, fields: Fields, faults: Faults) -> None:
        super().__init__(fields, faults)
        if self.has("branch") == self.has("tag"):
            what = f'{self.title} has {"both" if self.has("tag") else "neither"} "branch" {"and" if self.has("tag") else "nor"} "tag"'
            faults.add(self.at("tag"), what, 'say which references the policy is for: "branch: NAME", "branch: /REGEXP/", or the same with tag')


class ImagesPerReferenceKeys(Table):
    title = "cleanup.keepPolicies.imagesPerReference"
    lenient = True  # werf ignores unknown keys here, and takes any operator
    last = Key(integer, 1)
    in_ = Key(duration, "", name="in")
    operator = Key(text, "And")


class PolicyKeys(Table):
    title = "cleanup.keepPolicies"
    references = Key[ReferenceKeys | None](
        section(ReferenceKeys), None, required='say which references the policy is for, for example "references: {branch: main}"'
    )
    imagesPerReference = Key[ImagesPerReferenceKeys | None](section(ImagesPerReferenceKeys), None)


class CleanupKeys(Table):
    title = "cleanup"
    disable = Key(flag, False)
    disableKubernetesBasedPolicy = Key(flag, False)
    disableGitHistoryBasedPolicy = Key(flag, False)
    disableBuiltWithinLastNHoursPolicy = Key(flag, False)
    keepImagesBuiltWithinLastNHours = Key(natural, 2)
    keepPolicies = Key[tuple[PolicyKeys, ...]](sections(PolicyKeys), ())


class GitWorktreeKeys(Table):
    title = "gitWorktree"
    forceShallowClone = Key(flag, False)
    allowUnshallow = Key(flag, True)
    allowFetchOriginBranchesAndTags = Key(flag, True)


class HelmChartConfigKeys(Table):
    title = "deploy.helmChartConfig"
    appVersion = Key(text, "")


class DeployKeys(Table):
    title = "deploy"
    helmChartDir = Key(filled, "")
    helmRelease = Key(filled, "")
    namespace = Key(filled, "")
    helmReleaseSlug = Key(flag, False)
    namespaceSlug = Key(flag, False)
    helmChartConfig = Key[HelmChartConfigKeys | None](section(HelmChartConfigKeys), None)


class MetaKeys(Table):
    configVersion = Key(_version, 1, required="write configVersion: 1")
    project = Key(_project, "", required='name the project, for example "project: shop"')
    build = Key[BuildKeys | None](section(BuildKeys), None)
    cleanup = Key[CleanupKeys | None](section(CleanupKeys), None)
    gitWorktree = Key[GitWorktreeKeys | None](section(GitWorktreeKeys), None)
    deploy = Key[DeployKeys | None](section(DeployKeys), None)


def parse_meta(fields: Fields, faults: Faults) -> Meta:
    keys = MetaKeys(fields, faults)
    build = keys.build
    if build is None:
        return Meta(project=keys.project, position=keys.position)
    return Meta(
        project=keys.project,
        cache_version=build.cacheVersion,
        platforms=build.platform,
        image_spec=shared_spec(build.imageSpec) if build.imageSpec else None,
        position=keys.position,
    )
