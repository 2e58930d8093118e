"""From a change to the entries of a layer."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.errors import BugError
from layerwright.layers.compose import PathBlocked, compose
from layerwright.layers.entry import DIRECTORY, FILE, HARDLINK, OPAQUE, WHITEOUT, Entry, NewEntry
from layerwright.layers.stack import StackedIndex
from tests.layers.trees import PATHS, Model, directory, entries_at, file, hardlink, layer, parents, plain_layers, stack, symlink

NOW = 1_700_000_000


def composed(below: StackedIndex, *adds: Entry, removals: tuple[str, ...] = (), hidden: tuple[str, ...] = ()) -> list[str]:
    """The layer as "path", "path/" for directories, "-path" for whiteouts, "!path" for opaque marks."""
    paths = [path.encode() for path in removals]
    found = compose(adds=map(NewEntry, adds), removals=paths, opaque=[path.encode() for path in hidden], below=below, time_s=NOW)
    signs = {DIRECTORY: ("", "/"), WHITEOUT: ("-", ""), OPAQUE: ("!", "")}
    return [entry.path.decode().join(signs.get(entry.kind, ("", ""))) for entry, _ in found]


BELOW = stack([directory("d"), file("d/x"), file("d/y"), directory("d/sub"), file("d/sub/z"), file("f"), symlink("l", "d"), directory("empty")])


@pytest.mark.parametrize(
    ("adds", "removals", "hidden", "expected"),
    [
        ([], [], [], []),
        ([file("d/n")], [], [], ["d/", "d/n"]),
        ([file("new/a/b")], [], [], ["new/", "new/a/", "new/a/b"]),
        ([], ["d/x"], [], ["d/", "-d/x"]),
        ([], ["d"], [], ["-d"]),
        ([], ["d", "d/x", "d/sub", "d/sub/z"], [], ["-d"]),
        ([], ["d/gone", "gone", "gone/x"], [], []),
        ([file("d/a"), file("d/z"), file("d/m/k")], ["d/y", "d/x"], [], ["d/", "-d/x", "-d/y", "d/a", "d/m/", "d/m/k", "d/z"]),
        ([file("f")], ["f"], [], ["f"]),
        ([file("d")], ["d", "d/x"], [], ["d"]),
        ([symlink("d", "empty")], [], [], ["d"]),
        ([directory("f"), file("f/x")], ["f"], [], ["f/", "f/x"]),
        ([file("f/x")], ["f"], [], ["f/", "f/x"]),
        ([directory("l"), file("l/x")], [], [], ["l/", "l/x"]),
        ([directory("d")], ["d"], [], ["d/", "!d"]),
        ([file("d/x")], ["d"], [], ["d/", "!d", "d/x"]),
        ([directory("empty")], ["empty"], [], ["empty/"]),
        ([directory("d")], [], [], ["d/"]),
        ([], [], ["d"], ["d/", "!d"]),
        ([file("d/n")], ["d/x"], ["d", "d/sub"], ["d/", "!d", "d/n"]),
        ([], [], ["empty", "f", "gone"], []),
        ([file("f.d"), file("f-"), file("f")], [], [], ["f", "f-", "f.d"]),
        ([file("a/x"), file("a-"), file("a.x")], [], [], ["a/", "a/x", "a-", "a.x"]),
        ([directory("")], [], [], ["/"]),
        ([file("d/n")], [""], [], ["-empty", "-f", "-l", "d/", "!d", "d/n"]),
        ([file("d/sub/n")], ["d/sub/z"], [], ["d/", "d/sub/", "-d/sub/z", "d/sub/n"]),
    ],
)
def test_the_layer_holds_what_the_change_needs_in_order(adds: list[Entry], removals: list[str], hidden: list[str], expected: list[str]) -> None:
    assert composed(BELOW, *adds, removals=tuple(removals), hidden=tuple(hidden)) == expected


def test_a_parent_is_written_as_it_is_below() -> None:
    below = stack([directory("tmp", 0o1777, uid=5, mtime_ns=7)._replace(xattrs=((b"user.a", b"b"),))], [file("tmp/x")])
    found = compose(adds=[NewEntry(file("tmp/y/z"))], removals=[], below=below, time_s=NOW)
    assert found[0].entry == directory("tmp", 0o1777, uid=5, mtime_ns=7)._replace(xattrs=((b"user.a", b"b"),))
    assert found[1].entry == directory("tmp/y", 0o755, mtime_ns=NOW * 10**9)


def test_a_directory_removed_and_implied_again_is_new() -> None:
    found = compose(adds=[NewEntry(file("d/sub/n"))], removals=[b"d"], below=stack([directory("d", 0o700), directory("d/sub", 0o711)]), time_s=NOW)
    assert [entry.mode for entry, _ in found if entry.kind == DIRECTORY] == [0o755, 0o755]


@pytest.mark.parametrize("blocked", ["f/x", "l/x"])
def test_a_parent_that_is_no_directory_is_not_replaced_unasked(blocked: str) -> None:
    with pytest.raises(PathBlocked, match=blocked):
        composed(BELOW, file(blocked))


def test_two_wishes_that_exclude_each_other_are_named() -> None:
    with pytest.raises(PathBlocked, match="/n is a file, and /n/x"):
        composed(BELOW, file("n"), file("n/x"))


def read(entry: NewEntry) -> bytes:
    assert entry.content is not None
    return entry.content().read()


def at(path: str, text: str) -> NewEntry:
    return NewEntry(file(path, text), lambda: io.BytesIO(text.encode()))


@pytest.mark.parametrize("turn", [False, True])
def test_the_first_name_in_order_is_the_file(turn: bool) -> None:
    adds = [at("m", "text"), NewEntry(hardlink("z", "m")), NewEntry(hardlink("a", "m"))]
    found = compose(adds=adds[::-1] if turn else adds, removals=[], below=stack([]), time_s=NOW)
    assert [(entry.path, entry.kind, entry.link, entry.size) for entry, _ in found] == [
        (b"a", FILE, b"", 4),
        (b"m", HARDLINK, b"a", 0),
        (b"z", HARDLINK, b"a", 0),
    ]
    assert read(found[0]) == b"text"


def test_a_hard_link_keeps_its_content_when_its_first_name_is_added_anew() -> None:
    adds = [at("a", "old"), NewEntry(hardlink("b", "a")), NewEntry(hardlink("c", "a")), at("a", "newer")]
    found = compose(adds=adds, removals=[], below=stack([]), time_s=NOW)
    assert [(entry.path, entry.kind, entry.link) for entry, _ in found] == [(b"a", FILE, b""), (b"b", FILE, b""), (b"c", HARDLINK, b"b")]
    assert (read(found[0]), read(found[1])) == (b"newer", b"old")


def test_the_later_of_two_entries_counts() -> None:
    found = compose(adds=[NewEntry(hardlink("b", "a")), at("a", "one"), at("b", "two")], removals=[], below=stack([]), time_s=NOW)
    assert [(entry.path, entry.kind) for entry, _ in found] == [(b"a", FILE), (b"b", FILE)]


def test_a_hard_link_to_a_file_of_another_layer_is_our_own_mistake() -> None:
    with pytest.raises(BugError):
        composed(BELOW, hardlink("n", "f"))


@st.composite
def trees(draw: st.DrawFn) -> dict[bytes, Entry]:
    """A whole tree without its root."""
    found: dict[bytes, Entry] = {}
    for path in draw(st.lists(PATHS, max_size=7, unique=True)):
        if any(parent in found and found[parent].kind != DIRECTORY for parent in parents(path)) or path in found:
            continue
        for parent in parents(path):
            found.setdefault(parent, draw(entries_at(parent, "d")))
        found[path] = draw(entries_at(path))
    return found


@given(st.lists(plain_layers(), max_size=3), trees(), st.data())
def test_a_composed_difference_gives_the_wanted_tree(layers: list[tuple[Entry, ...]], after: dict[bytes, Entry], data: st.DataObject) -> None:
    model = Model()
    for entries in layers:
        model.apply(entries)
    view = stack(*layers)
    before = {entry.path: entry for entry in view.walk() if entry.path}
    kept = data.draw(st.sets(st.sampled_from(sorted(before)))) if before else set()
    for path in sorted(kept):  # so that both have something in common
        if path not in after and all(after.get(parent, before[path]).kind == DIRECTORY for parent in parents(path)) and set(parents(path)) <= {*after, *kept}:
            after[path] = before[path]
    adds = [NewEntry(entry) for path, entry in after.items() if before.get(path) != entry]
    found = compose(adds=adds, removals=[path for path in before if path not in after], below=view, time_s=NOW)
    written = [entry for entry, _ in found]
    assert {entry.path: entry for entry in view.on_top(layer(*written)).walk() if entry.path} == after
    model.apply(written)
    assert {path: node.entry for path, node in model.tree.items() if path} == after
    assert_in_order(written)
    assert all(entry.path in before and entry.path not in after for entry in written if entry.kind == WHITEOUT)


def assert_in_order(entries: list[Entry]) -> None:
    """Parents first; in each directory the opaque mark, whiteouts, entries by name; no name twice."""
    places: dict[bytes, list[tuple[int, bytes]]] = {}
    names = [(entry.path, entry.kind == OPAQUE) for entry in entries]
    assert len(set(names)) == len(names)
    seen = {b""}
    for entry in entries:
        above = entry.path if entry.kind == OPAQUE else entry.path.rpartition(b"/")[0]
        assert above in seen
        places.setdefault(above, []).append(({OPAQUE: 0, WHITEOUT: 1}.get(entry.kind, 2), entry.path))
        if entry.kind == DIRECTORY:
            seen.add(entry.path)
    assert all(place == sorted(place) for place in places.values())


def test_marks_carry_the_time_of_the_layer() -> None:
    found = compose(adds=[], removals=[b"f"], opaque=[b"d"], below=BELOW, time_s=NOW)
    assert {entry.mtime_ns for entry, _ in found if entry.kind in (WHITEOUT, OPAQUE)} == {NOW * 10**9}
