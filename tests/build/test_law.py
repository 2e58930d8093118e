"""The law of docs/decisions/0006-git-updates.md: whatever order of commits led there, an image of declared stages has the files of one built in an empty store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import assume, currently_in_test_context, event, given, settings
from hypothesis import strategies as st

from layerwright.config.faults import ConfigError
from layerwright.config.load import load_config
from layerwright.errors import LayerwrightError
from layerwright.stages import git_patch
from tests.build.histories import MemoryRepo, Node, Shown, Store, file, link

# The base brings w, x and y; the mappings lie over it, the second inside the first. Imports come before and after the sources.
WERF = """
configVersion: 1
project: law
---
image: base
from: scratch
git:
- add: /base
  to: /
---
image: lib
from: scratch
git:
- add: /lib
  to: /
  owner: "7"
---
image: app
from: base
git:
- add: /one
  to: {one}
  owner: "1"
  group: "1"
- add: /two
  to: {two}
  owner: "2"
import:
- image: lib
  add: /early
  to: {early}
  before: install
- image: lib
  add: /late
  to: {late}
  after: install
- image: lib
  add: /single
  to: {single}
  after: setup
"""

NAMES = st.sampled_from("ab")  # few, so that paths meet
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.sampled_from(["a", "b", "../b", "/a", "/w", "/w/b", "/nowhere/at/all", "."])
FILES = st.builds(file, st.sampled_from("012"), executable=st.booleans())
NODES = st.one_of(FILES, FILES, FILES, st.builds(link, TARGETS))
OPERATIONS = st.tuples(st.sampled_from(["one", "one", "two"]), PATHS, st.none() | NODES)
PLACES = {
    "one": st.sampled_from(["/w", "/w", "/"]),
    "two": st.sampled_from(["/w/t", "/w/b/t", "/b"]),
    "early": st.sampled_from(["/w/e", "/e", "/w/a/e"]),
    "late": st.sampled_from(["/w/l", "/x/l", "/w/b/l", "/w/a"]),
    "single": st.sampled_from(["/w/s", "/x/s", "/w/a/b/s"]),
}


def grown(tree: Mapping[str, Node], path: str, node: Node | None) -> dict[str, Node]:
    """`tree` with one path changed, and everything gone that git could not hold beside it."""
    kept = {name: one for name, one in tree.items() if name != path and not (node and (name.startswith(path + "/") or path.startswith(name + "/")))}
    return kept if node is None else kept | {path: node}


@st.composite
def small_trees(draw: st.DrawFn, top: str, *, at_most: int = 5) -> dict[str, Node]:
    tree: dict[str, Node] = {}
    for path, node in draw(st.lists(st.tuples(PATHS, NODES), max_size=at_most)):
        tree = grown(tree, f"{top}/{path}", node)
    return tree


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Node]]:
    """Commits of one project. What base and imports bring is fixed; the sources change."""
    fixed = draw(small_trees("base", at_most=3)) | draw(small_trees("base/w")) | {"base/keep": file()}
    fixed = {path: node for path, node in fixed.items() if not any(other.startswith(path + "/") for other in fixed)}
    fixed |= (
        draw(small_trees("lib/early", at_most=2))
        | draw(small_trees("lib/late", at_most=2))
        | {"lib/early/i": file(), "lib/late/i": file(), "lib/single": file("s")}
    )
    commits: list[dict[str, Node]] = []
    tree: dict[str, Node] = {"one/keep": file(), "two/keep": file()}
    for _ in range(draw(st.integers(2, 5))):
        for mapping, path, node in draw(st.lists(OPERATIONS, min_size=1, max_size=5)):
            tree = grown(tree, f"{mapping}/{path}", node)
        commits.append(fixed | tree)
    return commits


@pytest.mark.slow
@settings(max_examples=150, derandomize=True)
@given(st.fixed_dictionaries(PLACES), histories(), st.sampled_from([1 << 20, 2]))
def test_every_history_ends_in_the_files_of_a_first_build(places: dict[str, str], commits: list[dict[str, Node]], cache_bytes: int) -> None:
    """`cache_bytes`: from how many bytes of changes on there is a gitCache."""
    werf = WERF.format_map(places)
    assume(fits(werf))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(git_patch, "GIT_CACHE_BYTES", cache_bytes)
        assert_law(werf, commits)


def fits(werf: str) -> bool:
    try:
        load_config({"werf.yaml": werf.encode()}.get)
    except ConfigError:
        return False
    return True


def test_two_paths_that_symlinks_lead_to_one_file_are_no_change() -> None:
    places = {"one": "/", "two": "/c", "early": "/e", "late": "/x/d", "single": "/x/s"}
    fixed = {"base/c": link("/w"), "base/w/l": link("/w"), "lib/early/i": file(), "lib/late/i": file(), "lib/single": file(), "one/keep": file()}
    assert_law(WERF.format_map(places), [fixed | {"two/l/a": file("0")}, fixed | {"two/l/a": file("0"), "two/a": file("0")}])


def assert_law(werf: str, commits: Sequence[Mapping[str, Node]], image: str = "app") -> None:
    repo = MemoryRepo(commits)
    with Store() as store:
        for commit, tree in zip(repo.commits, commits, strict=True):
            with Store() as empty:
                assert difference(outcome(store, werf, repo, commit, image), outcome(empty, werf, repo, commit, image)) == {}, sorted(tree.items())


def difference(after_others: dict[str, Shown], alone: dict[str, Shown]) -> dict[str, tuple[Shown | None, Shown | None]]:
    paths = sorted({*after_others, *alone})
    return {path: (after_others.get(path), alone.get(path)) for path in paths if after_others.get(path) != alone.get(path)}


def outcome(store: Store, werf: str, repo: MemoryRepo, commit: object, image: str) -> dict[str, Shown]:
    """The image's files, or the kind of error there is."""
    try:
        result = store.build(werf, repo, commit, [image])  # type: ignore[arg-type]
    except LayerwrightError as error:
        note_outcome(f"refused: {type(error).__name__}")
        return {type(error).__name__: Shown("error", 0, 0, 0, "")}
    note_outcome("built")
    return store.root(result.image(image).record)


def note_outcome(text: str) -> None:
    """For --hypothesis-show-statistics: histories that are only refused prove little."""
    if currently_in_test_context():
        event(text)
