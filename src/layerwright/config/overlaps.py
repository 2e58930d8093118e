"""Targets that lie within each other: which paths a mapping leaves to another one. Source: werf.yaml reference, "Overlapping targets"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from layerwright.config.faults import Faults
from layerwright.config.model import GitMapping, Import, Position
from layerwright.globs import clean_path


@dataclass(slots=True)
class _Target:
    """Paths are relative to the image's root. `filled`: what the mapping fills, nothing if that is the root itself."""

    shown: str
    to: str
    filled: tuple[str, ...]
    position: Position
    excluded: list[str] = field(default_factory=list)
    implied: list[str] = field(default_factory=list)


def with_implied_excludes(git: Sequence[GitMapping], imports: Sequence[Import], faults: Faults) -> tuple[tuple[GitMapping, ...], tuple[Import, ...]]:
    """The same mappings, each without what another one fills below it. Two that fill the same path are a fault."""
    targets = [_target(one, "git mapping") for one in git] + [_target(one, "import") for one in imports]
    conflicts: set[frozenset[int]] = set()
    for (left, outer), (right, inner) in permutations(enumerate(targets), 2):
        path = _leave_to(outer, inner)
        if path is not None and frozenset((left, right)) not in conflicts:
            conflicts.add(frozenset((left, right)))
            _tell(targets[min(left, right)], targets[max(left, right)], path, faults)
    implied = [tuple(one.implied) for one in targets]
    return (
        tuple(replace(one, implied_excludes=paths) if paths else one for one, paths in zip(git, implied, strict=False)),
        tuple(replace(one, implied_excludes=paths) if paths else one for one, paths in zip(imports, implied[len(git) :], strict=True)),
    )


def _target(one: GitMapping | Import, shown: str) -> _Target:
    to = one.to.strip("/")
    filled = tuple(_joined(to, path) for path in one.include_paths) if one.include_paths else ((to,) if to else ())
    return _Target(shown, to, filled, one.position, [_joined(to, path) for path in one.exclude_paths])


def _leave_to(outer: _Target, inner: _Target) -> str | None:
    """Exclude from `outer` what `inner` fills below it; the path that both fill, if there is one ("" is the root)."""
    if not _is_within(inner.to, outer.to):
        return None
    if not outer.filled and not inner.filled:
        return ""
    for path in inner.filled:
        if path in outer.filled:
            return path
        if any(_is_within(one, path) for one in (*outer.filled, *outer.excluded)):
            continue
        outer.excluded.append(path)
        outer.implied.append(path[len(outer.to) + 1 :] if outer.to else path)
    return None


def _tell(first: _Target, second: _Target, path: str, faults: Faults) -> None:
    what = f'this {second.shown} and the {first.shown} on line {first.position.line} both fill "/{path}"'
    faults.add(second.position, what, 'give one of them another "to", or part the files between them with includePaths that differ')


def _joined(to: str, path: str) -> str:
    cleaned = clean_path(f"/{to}/{path}")
    return cleaned.strip("/")


def _is_within(path: str, directory: str) -> bool:
    return not directory or path == directory or path.startswith(f"{directory}/")
