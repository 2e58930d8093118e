"""The stacked view of layers: tables of single rules, and everything at once against a model that applies layers entry by entry."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from layerwright.layers.entry import Entry
from layerwright.layers.index import BadIndex, encode_index, load_index
from layerwright.layers.stack import REMOVED, SHADOWED, WROTE, StackedIndex, SymlinkLoop
from tests.layers.trees import Model, directory, file, hardlink, layer, opaque, plain_layers, resolve, stack, symlink, whiteout


def names(view: StackedIndex, path: bytes = b"") -> list[str]:
    return [entry.path.decode() for entry in view.walk(path) if entry.path]


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([[file("a")], [whiteout("a")]], []),
        ([[directory("d"), file("d/x")], [directory("d"), file("d/y")]], ["d", "d/x", "d/y"]),
        ([[directory("d"), file("d/x")], [whiteout("d")]], []),
        ([[directory("d"), file("d/x")], [whiteout("d"), directory("d"), file("d/y")]], ["d", "d/y"]),
        ([[directory("d"), file("d/x")], [directory("d"), opaque("d"), file("d/y")]], ["d", "d/y"]),
        ([[directory("d"), file("d/x")], [opaque("d")]], ["d"]),
        ([[directory("d"), file("d/x")], [file("d")]], ["d"]),
        ([[directory("d"), file("d/x")], [file("d")], [directory("d")]], ["d"]),
        ([[directory("d"), file("d/x")], [symlink("d", "e")], [directory("d"), file("d/y")]], ["d", "d/y"]),
        ([[file("d")], [file("d/x")]], ["d", "d/x"]),
        ([[file("a"), file("b")], [opaque(""), file("c")]], ["c"]),
        ([[file("a/x"), file("a-b"), file("a.b")]], ["a", "a/x", "a-b", "a.b"]),
        ([[file("a")], [file("a"), whiteout("a")]], ["a"]),
        ([[directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib")], [file("lib/x")]], ["lib", "usr", "usr/lib", "usr/lib/x"]),
        ([[directory("usr"), directory("usr/lib"), file("usr/lib/x"), symlink("lib", "usr/lib")], [whiteout("lib/x")]], ["lib", "usr", "usr/lib"]),
        ([[directory("usr"), directory("usr/lib"), file("usr/lib/x"), symlink("lib", "usr/lib")], [opaque("lib")]], ["lib", "usr", "usr/lib"]),
        ([[directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib")], [directory("lib"), file("lib/x")]], ["lib", "lib/x", "usr", "usr/lib"]),
        ([[directory("usr"), symlink("lib", "usr")], [whiteout("lib"), file("lib/x")]], ["lib", "lib/x", "usr"]),
        ([[directory("usr"), symlink("lib", "usr"), file("lib/x")]], ["lib", "usr", "usr/x"]),
        ([[], [symlink("lib", "/usr"), file("lib/x")]], ["lib", "usr", "usr/x"]),
        ([[symlink("lib", "../../usr")], [file("lib/a/x")], [file("lib/a/y")]], ["lib", "usr", "usr/a", "usr/a/x", "usr/a/y"]),
    ],
)
def test_layers_make_the_tree_that_unpacking_them_in_order_makes(layers: list[list[Entry]], left: list[str]) -> None:
    assert names(stack(*layers)) == left


def test_an_implied_directory_keeps_what_is_below() -> None:
    view = stack([directory("tmp", 0o1777, uid=3)], [file("tmp/x")])
    assert view.lookup(b"tmp") == directory("tmp", 0o1777, uid=3)
    assert view.layer_of(b"tmp") == 0


def test_an_implied_directory_that_is_new_belongs_to_root() -> None:
    view = stack([], [file("new/x")])
    assert view.lookup(b"new") == directory("new", 0o755)
    assert view.layer_of(b"new") == 1


def test_the_upper_directory_gives_the_metadata() -> None:
    view = stack([directory("d", 0o700), file("d/x")], [directory("d", 0o711)])
    assert view.lookup(b"d") == directory("d", 0o711)
    assert (view.layer_of(b"d"), view.layer_of(b"d/x")) == (1, 0)


def test_a_path_below_a_symlink_does_not_exist() -> None:
    view = stack([directory("usr"), file("usr/x"), symlink("lib", "usr")])
    assert view.lookup(b"lib/x") is None
    assert view.children(b"lib") == ()


@pytest.mark.parametrize(
    ("path", "last", "led"),
    [
        ("lib/x", False, "usr/lib/x"),
        ("/lib//x/", False, "usr/lib/x"),
        ("lib", False, "lib"),
        ("lib", True, "usr/lib"),
        ("lib/", False, "lib"),
        ("abs/y", False, "usr/lib/y"),
        ("../../lib/x", False, "usr/lib/x"),
        ("up/lib/x", False, "usr/lib/x"),
        ("lib/..", True, "usr"),
        ("chain/z", False, "usr/lib/z"),
        ("missing/../a", False, "a"),
        ("dangling/q", True, "no/where/q"),
        ("", True, ""),
        ("/", True, ""),
    ],
)
def test_resolve_stays_inside_the_root(path: str, last: bool, led: str) -> None:
    view = stack(
        [directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/lib"), symlink("up", "../../.."), symlink("chain", "abs/.")],
        [symlink("dangling", "no/where")],
    )
    assert view.resolve(path.encode(), follow_last=last).decode() == led


def test_a_loop_of_symlinks_is_named() -> None:
    view = stack([symlink("a", "b"), symlink("b", "a")])
    assert view.resolve(b"a") == b"a"
    with pytest.raises(SymlinkLoop, match="/a/x"):
        view.resolve(b"a/x")


@pytest.mark.parametrize(
    ("layers", "path", "expected"),
    [
        ([[file("a")]], "a", (0, WROTE)),
        ([[file("a")], [file("b")]], "a", (0, WROTE)),
        ([[file("a")], [whiteout("a")]], "a", (1, REMOVED)),
        ([[file("a")], [whiteout("a")], [whiteout("a")]], "a", (1, REMOVED)),
        ([[file("d/x")], [whiteout("d")]], "d/x", (1, REMOVED)),
        ([[file("d/x")], [opaque("d")]], "d/x", (1, REMOVED)),
        ([[file("d/x")], [opaque("d"), file("d/x")]], "d/x", (1, WROTE)),
        ([[file("d/x")], [symlink("d", "e")]], "d/x", (1, SHADOWED)),
        ([[file("d/x")], [symlink("d", "e")], [directory("d")]], "d/x", (1, SHADOWED)),
        ([[file("d/x")], [whiteout("d")], [directory("d")]], "d/x", (1, REMOVED)),
        ([[], [whiteout("a")]], "a", None),
        ([[file("d/x")]], "d", (0, WROTE)),
        ([[directory("d")], [file("d/x")]], "d", (0, WROTE)),
        ([[file("d")], [file("d/x")]], "d", (1, WROTE)),
        ([[file("d/x")], [whiteout("d")]], "d", (1, REMOVED)),
        ([[file("a")]], "b", None),
    ],
)
def test_last_change_names_the_layer_and_what_it_did(layers: list[list[Entry]], path: str, expected: tuple[int, str] | None) -> None:
    change = stack(*layers).last_change(path.encode())
    assert (change and (change.layer, change.how)) == expected


def test_a_hard_link_finds_its_bytes_where_the_first_name_was() -> None:
    view = stack(
        [file("a", "one"), directory("usr"), symlink("lib", "usr")],
        [hardlink("b", "a"), file("usr/c", "c"), hardlink("d", "lib/c")],
        [file("a", "two")],
        [whiteout("a")],
    )
    assert view.file_of(b"b") == (0, file("a", "one"))
    assert view.file_of(b"d") == (1, file("usr/c", "c"))
    assert view.file_of(b"a") is None
    assert view.file_of(b"lib") is None


def test_a_hard_link_to_itself_or_to_nothing_has_no_bytes() -> None:
    view = stack([hardlink("a", "a"), hardlink("b", "gone")])
    assert view.file_of(b"a") is None
    assert view.file_of(b"b") is None


PASSWD = b"root:x:0:0:root:/root:/bin/sh\n# no:x:1:1\n+nis:x:2:2\nwww-data:x:33:34::/:/x\nwww-data:x:99:99::/:/x\nbad:x:y:1\nshort:x\n"


def test_accounts_are_read_through_symlinks_and_layers() -> None:
    lower = layer(directory("etc"), file("etc/passwd"), symlink("etc/group", "/usr/group"), texts={b"etc/passwd": PASSWD})
    view = StackedIndex([lower, layer(hardlink("etc/group.1", "etc/passwd"))])
    assert [view.uid_of(name) for name in ("root", "www-data", "nis", "bad", "short", "nobody")] == [0, 33, None, None, None, None]
    assert (view.primary_gid(33), view.primary_gid(5), view.gid_of("root")) == (34, None, None)
    assert view.text(b"etc/group.1") == PASSWD
    assert view.on_top(layer(whiteout("etc/passwd"))).uid_of("root") is None


def test_on_top_leaves_the_stack_below_as_it_was() -> None:
    view = stack([file("a")])
    upper = view.on_top(layer(whiteout("a"), file("b")))
    assert (names(view), names(upper), len(upper)) == (["a"], ["b"], 2)
    assert names(upper.below(1)) == ["a"]
    assert upper.entry_in(1, b"b") == file("b")
    assert upper.entry_in(1, b"a") is None


def test_questions_about_directories_and_symlinks_load_no_other_part() -> None:
    index = layer(directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), file("usr/lib/x"))
    parts = encode_index(index)
    stored = load_index(index.diff_id, {"skeleton": parts["skeleton"]}.get)
    assert stored is not None
    view = StackedIndex([stored])
    assert view.resolve(b"lib/../x") == b"usr/x"
    assert view.lookup(b"usr/none") is None
    assert view.last_change(b"app/main.py") is None
    with pytest.raises(BadIndex, match="files"):
        view.lookup(b"usr/lib/x")


def test_a_question_about_metadata_loads_no_digests() -> None:
    index = layer(file("usr/lib/x", "text"))
    parts = encode_index(index)
    stored = load_index(index.diff_id, {"skeleton": parts["skeleton"], "files": parts["files"]}.get)
    assert stored is not None
    view = StackedIndex([stored])
    change = view.last_change(b"usr/lib/x")
    assert change is not None
    assert change.entry == file("usr/lib/x", "text")._replace(digest="")
    with pytest.raises(BadIndex, match="digests"):
        view.lookup(b"usr/lib/x")


@given(st.lists(plain_layers(), min_size=1, max_size=5), st.booleans())
def test_the_stack_equals_layers_applied_one_by_one(layers: list[tuple[Entry, ...]], pushed: bool) -> None:
    model = Model()
    for entries in layers:
        model.apply(entries)
    view = stack(*layers)
    if pushed:
        view = stack()
        for number, entries in enumerate(layers):
            view = view.on_top(layer(*entries, name=str(number)))
            view.lookup(b"a/b")
    expected = sorted(model.tree.values(), key=lambda node: node.entry.path.split(b"/") if node.entry.path else [])
    assert list(view.walk_placed()) == [(node.layer, node.entry) for node in expected]
    for path in {path for snapshot in model.snapshots for path in snapshot} | {b"b/b/b"}:
        node = model.tree.get(path)
        assert view.find(path) == (node and (node.layer, node.entry))
        if path:
            change = view.last_change(path)
            assert (change and (change.layer, "wrote" if change.how == WROTE else "gone")) == model.changes(path)
        inside = [known.rpartition(b"/")[2] for known in model.tree if known and known.rpartition(b"/")[0] == path]
        assert view.children(path) == tuple(sorted(inside))


@given(st.lists(plain_layers(kinds="fddll"), min_size=1, max_size=3), st.sampled_from([b"a", b"b/c", b"a/b/c", b"c/../a", b"/../b"]))
def test_resolve_equals_the_model(layers: list[tuple[Entry, ...]], path: bytes) -> None:
    model = Model()
    for entries in layers:
        model.apply(entries)
    view = stack(*layers)
    try:
        found = view.resolve(path, follow_last=True)
    except SymlinkLoop:
        assume(False)
    assert found == resolve(model.tree, path)
