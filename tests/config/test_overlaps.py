"""Targets within targets: the reference's table of examples, and a few of our own."""

from __future__ import annotations

import pytest

from layerwright.config.faults import Faults
from layerwright.config.model import GitMapping, Import, Position
from layerwright.config.overlaps import with_implied_excludes


def mapping(to: str, *include: str, exclude: tuple[str, ...] = (), line: int = 1) -> GitMapping:
    return GitMapping(add="/", to=to, include_paths=include, exclude_paths=exclude, position=Position("f", line, 1))


def imported(to: str, *include: str) -> Import:
    return Import(image="x", when="before", at="setup", add="/", to=to, include_paths=include, position=Position("f", 9, 1))


@pytest.mark.parametrize(
    ("mappings", "implied"),
    [
        ((mapping("/app"), mapping("/app/assets")), (("assets",), ())),
        ((mapping("/app", "a"), mapping("/app", "b")), (("b",), ("a",))),
        ((mapping("/app", "a"), mapping("/app")), ((), ("a",))),
        ((mapping("/app", "a"), mapping("/app", "a/b")), (("a/b",), ())),
        ((mapping("/"), mapping("/app")), (("app",), ())),
        ((mapping("/"), mapping("/app", "a", "b")), (("app/a", "app/b"), ())),
        ((mapping("/app", exclude=("assets/x",)), mapping("/app/assets")), ((), ())),
        ((mapping("/app"), mapping("/application")), ((), ())),
        ((mapping("/app"), mapping("/app/a"), mapping("/app/a/b")), (("a", "a/b"), ("b",), ())),
        ((mapping("/app"), mapping("/app/a/b"), mapping("/app/a")), (("a/b",), (), ("b",))),
        ((mapping("/", "a"), mapping("/", "b")), (("b",), ("a",))),
    ],
)
def test_a_mapping_leaves_out_what_another_fills(mappings: tuple[GitMapping, ...], implied: tuple[tuple[str, ...], ...]) -> None:
    faults = Faults()
    git, _ = with_implied_excludes(mappings, [], faults)
    assert tuple(one.implied_excludes for one in git) == implied
    assert faults.found == []


@pytest.mark.parametrize(
    ("mappings", "path"),
    [
        ((mapping("/app"), mapping("/app", line=2)), "/app"),
        ((mapping("/app", "a"), mapping("/app", "a", line=2)), "/app/a"),
        ((mapping("/"), mapping("/", line=2)), "/"),
    ],
)
def test_two_that_fill_the_same_path_are_one_fault(mappings: tuple[GitMapping, ...], path: str) -> None:
    faults = Faults()
    with_implied_excludes(mappings, [], faults)
    (fault,) = faults.found
    assert fault.what == f'this git mapping and the git mapping on line 1 both fill "{path}"'
    assert fault.position.line == 2


def test_imports_take_part() -> None:
    faults = Faults()
    git, imports = with_implied_excludes([mapping("/app")], [imported("/app/dist"), imported("/")], faults)
    assert git[0].implied_excludes == ("dist",)
    assert [one.implied_excludes for one in imports] == [(), ("app", "app/dist")]
    with_implied_excludes([], [imported("/app"), imported("/app")], faults)
    assert faults.found[0].what == 'this import and the import on line 9 both fill "/app"'
