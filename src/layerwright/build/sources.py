"""The git mappings of an image at the commit: which files, in which state, and what stageDependencies match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from layerwright.build.events import Warned
from layerwright.build.git_update import Files, GitFile
from layerwright.config.model import GitMapping, Image
from layerwright.errors import UsageError
from layerwright.git.values import Commit, TreeEntry, state_digest
from layerwright.globs import Globs
from layerwright.stages.git_archive import MappingFacts, mapping_id, path_filter
from layerwright.stages.image_spec import removed_essential
from layerwright.stages.key import text_of


class GitAddMatchedNothing(UsageError):
    """A mapping whose `add`, with its filters, takes no file of the commit."""


@dataclass(frozen=True)
class MappingSource:
    """One mapping at the commit. `files`: path relative to `add` (b"" for a single file) and the entry, sorted."""

    mapping: GitMapping
    files: tuple[tuple[bytes, TreeEntry], ...]

    @property
    def id(self) -> str:
        return mapping_id(self.mapping)

    @cached_property
    def listed(self) -> tuple[tuple[bytes, int, str], ...]:
        return tuple((path, entry.mode, entry.oid) for path, entry in self.files)

    @cached_property
    def digest(self) -> str:
        return state_digest(self.listed)

    @cached_property
    def facts(self) -> MappingFacts:
        return MappingFacts(digest=self.digest, dependencies={stage: self._matched(globs) for stage, globs in self.mapping.stage_dependencies.items() if globs})

    def _matched(self, patterns: Sequence[str]) -> Mapping[str, str]:
        globs = Globs(patterns)
        return {text_of(path): f"{entry.mode:o} {entry.oid}" for path, entry in self.files if globs.match(path)}

    def unmatched(self, stage: str) -> tuple[str, ...]:
        """Patterns of stageDependencies that match no file: a warning, since they are likely misspelt."""
        return tuple(pattern for pattern in self.mapping.stage_dependencies.get(stage, ()) if not any(Globs([pattern]).match(path) for path, _ in self.files))


def sources_of(image: Image, tree: Sequence[TreeEntry], commit: Commit) -> tuple[MappingSource, ...]:
    """Every mapping of `image` over the commit's files. Raises GitAddMatchedNothing, UsageError."""
    return tuple(_source(image, mapping, tree, commit) for mapping in image.git)


def _source(image: Image, mapping: GitMapping, tree: Sequence[TreeEntry], commit: Commit) -> MappingSource:
    files = files_taken(mapping, tree)
    where = f"{mapping.position}, image {image.shown!r}"
    if not files:
        raise GitAddMatchedNothing(
            f"git.add {mapping.add!r} matches no file at commit {commit.id[:12]}",
            where=where,
            mend="correct the path or the filters, or commit the files: uncommitted files are not read",
        )
    if files[0][0] == b"" and mapping.to == "/":
        raise UsageError(
            f"git.add {mapping.add!r} is a file, and a file cannot replace the directory '/'",
            where=where,
            mend=f"name the file itself: to: /{mapping.add.rpartition('/')[2]}",
        )
    return MappingSource(mapping, files)


def files_taken(mapping: GitMapping, tree: Sequence[TreeEntry]) -> tuple[tuple[bytes, TreeEntry], ...]:
    """The files of a commit that a mapping takes, as MappingSource has them."""
    wanted = path_filter(mapping)
    if not wanted.includes and not wanted.excludes:
        return tuple((relative, entry) for entry in tree if (relative := wanted.relative(entry.path)) is not None)
    return tuple((relative, entry) for entry in tree if (relative := wanted.relative(entry.path)) is not None and wanted.takes(entry.path))


def targets(mappings: Sequence[GitMapping], files: Sequence[Sequence[tuple[bytes, TreeEntry]]]) -> Files:
    """Where the files of every mapping stand in the image; of two for one place the later mapping's counts."""
    placed: dict[bytes, GitFile] = {}
    for number, (mapping, listed) in enumerate(zip(mappings, files, strict=True)):
        to = mapping.to.strip("/").encode("utf-8", "surrogateescape")
        prefix = to + b"/" if to else b""
        for path, entry in listed:
            placed[prefix + path if path else to] = GitFile(number, entry)
    return placed


def doubts(image: Image, sources: Sequence[MappingSource]) -> Iterator[Warned]:
    """What in the configuration of an image is likely a mistake, but stops nothing."""
    for stage in ("install", "beforeSetup", "setup"):
        for source in sources:
            for pattern in source.unmatched(stage):
                yield Warned(text=f"stageDependencies.{stage}: {pattern!r} matches no file", position=source.mapping.position, image=image.name)
    if image.image_spec is not None and (labels := removed_essential(image.image_spec)):
        text = f"removeLabels names {', '.join(labels)}, which always stay; keepEssentialWerfLabels: true silences this"
        yield Warned(text=text, position=image.image_spec.position, image=image.name)
