"""What an import takes, its checksum, and where it lands."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.layers.compose import PathBlocked, compose
from layerwright.layers.entry import CHAR, DIRECTORY, FILE, HARDLINK, SYMLINK, Content, Entry
from layerwright.layers.selection import BrokenHardLink, NotInImage, Selected, files_checksum, graft, select
from layerwright.layers.stack import StackedIndex
from tests.layers.trees import Model, directory, file, hardlink, layer, plain_layers, stack, symlink, whiteout

SOURCE = stack(
    [
        directory("usr"),
        directory("usr/lib", 0o2755, gid=5),
        file("usr/lib/a", "a"),
        symlink("lib", "usr/lib"),
        symlink("one", "usr/lib/a"),
        symlink("gone", "no"),
    ],
    [
        directory("usr"),
        directory("usr/lib", 0o2755, gid=5),
        directory("usr/lib/sub", 0o1777),
        file("usr/lib/sub/b", "bb", mode=0o4755),
        hardlink("usr/lib/c", "usr/lib/sub/b"),
    ],
    [whiteout("usr/lib/a"), directory("usr/lib/empty"), hardlink("usr/lib/sub/d", "usr/lib/c"), Entry(b"usr/lib/null", CHAR, 0o666, device=(1, 3))],
)


def everything(_: bytes) -> bool:
    return True


def only(*paths: str) -> Callable[[bytes], bool]:
    return lambda path: path.decode() in paths


def taken(view: StackedIndex, add: str, takes: Callable[[bytes], bool] = everything) -> list[tuple[str, str, str, int]]:
    return [(item.path.decode(), item.entry.kind, item.entry.link.decode(), item.layer) for item in select(view, add.encode(), takes).items]


def test_all_of_a_directory_in_the_order_of_a_walk() -> None:
    assert taken(SOURCE, "/usr/lib/") == [
        ("", DIRECTORY, "", 1),
        ("c", FILE, "", 1),
        ("empty", DIRECTORY, "", 2),
        ("null", CHAR, "", 2),
        ("sub", DIRECTORY, "", 1),
        ("sub/b", HARDLINK, "c", 1),
        ("sub/d", HARDLINK, "c", 1),
    ]


def test_the_file_behind_a_hard_link_is_named_by_layer_offset_and_digest() -> None:
    (item,) = [item for item in select(SOURCE, b"usr/lib", everything).items if item.path == b"c"]
    assert (item.layer, item.source) == (1, file("usr/lib/sub/b", "bb", mode=0o4755))
    assert (item.entry.mode, item.entry.size, item.entry.digest, item.entry.offset) == (0o4755, 2, item.source.digest, -1)


@pytest.mark.parametrize(
    ("add", "takes", "paths"),
    [
        ("usr/lib", only("sub/d"), ["", "sub", "sub/d"]),
        ("lib", only("sub/d"), ["", "sub", "sub/d"]),
        ("/lib/sub", everything, ["", "b", "d"]),
        ("usr/lib", only("empty"), ["", "empty"]),
        ("usr/lib", only("a"), []),
        ("usr/lib", only(""), [""]),
        ("one", everything, [""]),
        ("lib/c", everything, [""]),
        ("lib/c", only("c"), []),
        ("", only("usr/lib/c"), ["", "usr", "usr/lib", "usr/lib/c"]),
        ("gone", everything, [""]),
    ],
)
def test_what_is_taken(add: str, takes: Callable[[bytes], bool], paths: list[str]) -> None:
    assert [path for path, *_ in taken(SOURCE, add, takes)] == paths


def test_a_symlink_that_leads_to_no_directory_is_taken_as_it_is() -> None:
    view = stack([symlink("lib", "usr"), directory("usr"), symlink("usr/x", "y"), file("usr/y")])
    selection = select(view, b"lib/x", everything)
    assert (selection.add, selection.is_directory, selection.items[0].entry.kind) == (b"usr/x", False, SYMLINK)


def test_a_bare_directory_counts_as_empty() -> None:
    assert select(SOURCE, b"usr/lib/empty", everything).is_empty
    assert select(SOURCE, b"usr/lib", only("nothing")).is_empty
    assert not select(SOURCE, b"usr/lib", only("empty")).is_empty
    assert not select(SOURCE, b"usr/lib/c", everything).is_empty


@pytest.mark.parametrize("add", ["no", "usr/lib/a", "usr/lib/c/x"])
def test_a_path_that_is_not_there_is_named(add: str) -> None:
    with pytest.raises(NotInImage, match=add):
        select(SOURCE, add.encode(), everything)


def test_a_hard_link_to_nothing_is_named() -> None:
    with pytest.raises(BrokenHardLink, match="/a is a hard link to /b"):
        select(stack([hardlink("a", "b")]), b"", everything)


BASE = [directory("d", 0o750, uid=1), file("d/f", "text", mode=0o644), hardlink("d/g", "d/f"), symlink("d/l", "f")]


@pytest.mark.parametrize(
    ("place", "other"),
    [
        (0, directory("d", 0o751, uid=1)),
        (0, directory("d", 0o750, uid=2)),
        (1, file("d/f", "tex2")),
        (1, file("d/f", "text", mode=0o4644)),
        (1, file("d/f", "text", gid=4)),
        (1, file("d/f", "text", xattrs=((b"security.capability", b"\1"),))),
        (2, file("d/g", "text")),
        (2, hardlink("d/h", "d/f")),
        (3, symlink("d/l", "g")),
        (3, Entry(b"d/l", CHAR, 0o777, device=(1, 3))),
    ],
)
def test_the_checksum_changes_with_what_is_taken(place: int, other: Entry) -> None:
    changed = [*BASE[:place], other, *BASE[place + 1 :]]
    assert files_checksum(select(stack(BASE), b"d", everything)) != files_checksum(select(stack(changed), b"d", everything))


def test_the_checksum_knows_neither_times_nor_layers_nor_offsets() -> None:
    plain = files_checksum(select(stack(BASE), b"d", everything))
    later = [entry._replace(mtime_ns=5 * 10**9, offset=entry.offset + 4096 if entry.kind == FILE else -1) for entry in BASE]
    assert files_checksum(select(stack(later), b"d", everything)) == plain
    apart = stack([directory("d"), file("d/f", "old"), file("d/more")], [whiteout("d/more"), *BASE[:2]], [hardlink("d/g", "d/f"), symlink("d/l", "f")])
    assert files_checksum(select(apart, b"d", everything)) == plain
    elsewhere = stack([entry._replace(path=b"x/" + entry.path, link=b"x/" + entry.link if entry.kind == HARDLINK else entry.link) for entry in BASE])
    assert files_checksum(select(elsewhere, b"x/d", everything)) == plain


def test_the_checksum_is_this_one() -> None:
    """Stage digests hold it: another value is another stage everywhere."""
    assert files_checksum(select(stack(BASE), b"d", everything)) == "89f99d8d52136ad8e36530cc7d0a743817c52ec5f8a8bdaba03b04e1446f58c5"


def content(item: Selected) -> Content:
    return lambda: io.BytesIO(item.source.path)


def grafted(add: str, to: str, below: StackedIndex, takes: Callable[[bytes], bool] = everything, **owner: int) -> list[tuple[str, str, str]]:
    adds = graft(select(SOURCE, add.encode(), takes), to=to.encode(), below=below, content=content, **owner)
    return [(entry.path.decode(), entry.kind, entry.link.decode()) for entry, _ in adds]


def test_a_directory_is_merged_into_its_target() -> None:
    below = stack([directory("opt"), symlink("srv", "opt"), directory("opt/sub"), directory("deep"), file("opt/sub/old")])
    new = [("opt/x", DIRECTORY, ""), ("opt/x/b", FILE, ""), ("opt/x/d", HARDLINK, "opt/x/b")]
    assert grafted("usr/lib/sub", "/srv/x", below) == new
    assert grafted("usr/lib", "/srv", below, only("sub/d", "c")) == [("opt/c", FILE, ""), ("opt/sub", DIRECTORY, ""), ("opt/sub/d", HARDLINK, "opt/c")]
    assert grafted("usr/lib/sub", "/", below) == [("b", FILE, ""), ("d", HARDLINK, "b")]


def test_directories_of_the_selection_follow_symlinks_to_directories_only() -> None:
    below = stack([directory("usr"), directory("usr/sub"), symlink("to/sub", "/usr/sub"), symlink("to/empty", "nothing"), directory("to")])
    found = grafted("usr/lib", "to", below, only("sub/b", "empty"))
    assert found == [("to/empty", DIRECTORY, ""), ("usr/sub", DIRECTORY, ""), ("usr/sub/b", FILE, "")]


def test_a_file_gets_the_name_of_its_target() -> None:
    below = stack([symlink("bin", "usr/bin"), directory("usr"), directory("usr/bin"), symlink("usr/bin/old", "/elsewhere")])
    assert grafted("usr/lib/c", "/bin/new", below) == [("usr/bin/new", FILE, "")]
    assert grafted("usr/lib/c", "/bin/old", below) == [("usr/bin/old", FILE, "")]


@pytest.mark.parametrize(
    ("add", "to", "named"),
    [("usr/lib/c", "usr/bin", "/usr/bin is a directory"), ("usr/lib/sub", "file", "/file is a file"), ("usr/lib", "opt", "/opt/c is a directory")],
)
def test_what_is_in_the_way_is_named(add: str, to: str, named: str) -> None:
    below = stack([directory("usr"), directory("usr/bin"), file("file"), directory("opt"), directory("opt/c"), file("opt/c/x")])
    with pytest.raises(PathBlocked, match=named):
        grafted(add, to, below)


def test_owners_are_replaced_where_asked_and_the_rest_is_kept() -> None:
    source = stack([file("f", "x", mode=0o4755, uid=3, gid=4, mtime_ns=9, xattrs=((b"security.capability", b"\1"),))])
    (new,) = graft(select(source, b"f", everything), to=b"/t", uid=33, below=stack([]), content=content)
    assert new.entry == file("t", "x", mode=0o4755, uid=33, gid=4, mtime_ns=9, offset=-1, xattrs=((b"security.capability", b"\1"),))
    assert new.content is not None
    assert new.content().read() == b"f"


@given(st.lists(plain_layers(), min_size=1, max_size=3))
def test_an_imported_tree_has_the_checksum_of_its_source(layers: list[tuple[Entry, ...]]) -> None:
    model = Model()
    for entries in layers:
        model.apply(entries)  # leaves out layers that lead through loops
    view = stack(*layers)
    selection = select(view, b"", everything)
    below = stack([directory("other")])
    adds = graft(selection, to=b"/copy", below=below, content=content)
    copied = below.on_top(layer(*(entry for entry, _ in compose(adds=adds, removals=[], below=below, time_s=7))))
    again = select(copied, b"copy", everything)
    assert files_checksum(again) == files_checksum(selection)
    assert [entry._replace(path=entry.path.removeprefix(b"copy").lstrip(b"/"), offset=0) for entry in copied.walk(b"copy")] == [
        entry._replace(offset=0) for entry in view.walk()
    ]
