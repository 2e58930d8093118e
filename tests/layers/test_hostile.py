"""Layers made to hurt: what they cost is bounded, and names go where they should."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import time
from pathlib import Path

import pytest

from layerwright.layers.compress import decompressed
from layerwright.layers.devices import BadDevices, device_paths, have_devices
from layerwright.layers.entry import FILE, Entry
from layerwright.layers.index import FileIndex
from layerwright.layers.placing import placed
from layerwright.layers.shown import shown
from layerwright.layers.stack import StackedIndex, SymlinkLoop
from layerwright.layers.tar import BadLayer
from layerwright.layers.tree import tree_matches
from layerwright.layers.unpack import unpack
from layerwright.limits import VARIABLES, Limits, as_numbers, limits_of
from layerwright.oci.digest import DiffId
from layerwright.runtime.copied import copy_root
from tests.layers.tars import archive, index_of, member

DEEP = "/".join(["d"] * 2000)


def stack(*layers: bytes) -> StackedIndex:
    return StackedIndex([index_of(layer) for layer in layers])


def test_depth_costs_no_recursion() -> None:
    view = stack(archive(member(DEEP + "/f", content=b"x"), member("l", "sym", link="d")), archive(member("h", "hard", link=DEEP + "/f")))
    assert view.find(DEEP.encode() + b"/f") is not None
    held = view.file_of(b"h")
    assert held is not None
    assert held.entry.path == DEEP.encode() + b"/f"
    moved = placed(index_of(archive(member("l" + DEEP[1:] + "/g"))), below=view, along=view)
    assert moved.entries[0].path == DEEP.encode() + b"/g"


def test_a_symlink_makes_no_path_longer_than_linux_takes(tmp_path: Path) -> None:
    links = [member("s", "sym", link=DEEP), member(DEEP.replace("d", "s", 1) + "/s", "sym", link="x" * 200 + "/" + DEEP)]
    with pytest.raises(SymlinkLoop, match="longer than 4,095"):
        stack(archive(member("s", "sym", link=DEEP))).resolve(b"s/" + DEEP.encode() + b"/f")
    with pytest.raises(BadLayer, match="longer than 4,095"):
        unpack(io.BytesIO(archive(links[0], member("s/" + DEEP + "/f"))), str(tmp_path), below=StackedIndex(()), lower_trees=())


def test_clearing_a_directory_forgets_what_was_in_it(tmp_path: Path) -> None:
    layers = archive(*(member(name, "dir", mode=0o755) for name in ("d", "d/e")), member("d/s", "sym", link="e"), member("d"), member("d/s/x"))
    with pytest.raises(BadLayer, match="is none"):
        unpack(io.BytesIO(layers), str(tmp_path), below=StackedIndex(()), lower_trees=())


def test_directories_that_are_only_implied_are_limited() -> None:
    with pytest.raises(BadLayer, match="lie too deep"):
        index_of(archive(*(member(f"{number}/{DEEP}/x") for number in range(100))))


def test_what_a_layer_unfolds_to_is_limited() -> None:
    packed = gzip.compress(bytes(3 << 20))
    with pytest.raises(BadLayer, match="larger than 2,097,152 bytes") as caught:
        decompressed(io.BytesIO(packed), most=2 << 20).read()
    assert "LAYERWRIGHT_LIMIT_LAYER_SIZE" in caught.value.mend
    with pytest.raises(BadLayer, match="empty members"):
        decompressed(io.BytesIO(gzip.compress(b"") * 5000)).read()


def test_limits_come_from_the_environment() -> None:
    assert limits_of({}) == Limits()
    assert limits_of({"LAYERWRIGHT_LIMIT_LAYER_SIZE": "2G", "LAYERWRIGHT_LIMIT_LAYER_ENTRIES": "10"}) == Limits(layer_bytes=2 << 30, layer_entries=10)
    assert Limits(**as_numbers(Limits(layer_entries=5))) == Limits(layer_entries=5)
    for wrong in ("lots", "-1", "0", "1.5G"):
        with pytest.raises(ValueError, match="LAYERWRIGHT_LIMIT_IMAGE_ENTRIES"):
            limits_of({"LAYERWRIGHT_LIMIT_IMAGE_ENTRIES": wrong})
    assert set(VARIABLES.values()) == set(as_numbers(Limits()))


def test_names_are_shown_so_that_a_terminal_is_safe() -> None:
    assert shown(b"a\x1b[2J\n\xff") == "/a\\x1b[2J\\n\\xff"
    assert shown("a\u202eb".encode()) == "/a\\u202eb"
    assert len(shown(b"x" * 4000)) == 1001


def node(name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 5
    return info.tobuf(tarfile.GNU_FORMAT)


def devices_of(place: Path, *layers: bytes) -> tuple[str, ...]:
    """What is to be covered in a root file system of these layers, oldest first."""
    trees: list[str] = []
    for number, layer in enumerate(layers):
        trees.insert(0, str(place / str(number)))
        os.makedirs(trees[0])
        unpack(io.BytesIO(layer), trees[0], below=stack(*layers[:number]), lower_trees=trees[1:])
    root = place / "root"
    root.mkdir()
    copy_root(trees, str(root))
    return device_paths(str(root), trees)


@pytest.mark.needs_root
def test_device_nodes_outside_of_dev_are_found_under_every_name(tmp_path: Path) -> None:
    base = archive(member("dev", "dir"), node("dev/zero"), node("a/disk"), node("gone"), member("usr", "dir"))
    top = archive(member("h", "hard", link="a/disk"), member("i", "hard", link="h"), member(".wh.gone"), member("l", "sym", link="usr"), node("l/n"))
    assert devices_of(tmp_path / "1", base, top) == ("/a/disk", "/h", "/i", "/usr/n")
    assert devices_of(tmp_path / "2", archive(member("f"))) == ()
    assert devices_of(tmp_path / "3", archive(member("dev", "sym", link="x"), node("x/zero"))) == ("/x/zero",)
    with pytest.raises(BadDevices, match="1,001 device nodes"):
        devices_of(tmp_path / "4", archive(*(node(f"c{number}") for number in range(1001))))
    with pytest.raises(BadDevices, match="not UTF-8"):
        devices_of(tmp_path / "5", archive(node("\udcff")))
    assert have_devices([index_of(base), index_of(archive())])
    assert not have_devices([index_of(top.replace(node("l/n"), b""))])


@pytest.mark.needs_root
def test_no_symlink_hides_where_a_device_node_lies(tmp_path: Path) -> None:
    """By index alone some of these were missed: they had been opened by whoever used crun."""
    a, b, p = member("a", "dir", mode=0o755), member("b", "dir", mode=0o755), member("p", "sym", link="a")
    assert devices_of(tmp_path / "1", archive(a, node("a/disk"), p, member("evil", "hard", link="p/disk"))) == ("/a/disk", "/evil")
    assert devices_of(tmp_path / "2", archive(a, node("a/disk"), p), archive(member("evil", "hard", link="p/disk")), archive(member(".wh.a"))) == ("/evil",)
    assert devices_of(tmp_path / "3", archive(a, b, p, node("p/disk"), member("p", "sym", link="b"))) == ("/a/disk",)
    assert devices_of(tmp_path / "4", archive(member("dev", "dir"), node("dev/disk"), member("p", "sym", link="dev"), member("e", "hard", link="p/disk"))) == (
        "/e",
    )
    deep = "/".join(["d" * 250] * 15)
    assert devices_of(tmp_path / "5", archive(node(f"{deep}/{'x' * 200}"))) == (f"/{deep}/{'x' * 200}",)


@pytest.mark.needs_root
@pytest.mark.parametrize("last", [member("x", content=b"new"), member("x", "sym", link="y"), member("x", "dir", mode=0o755), member("x", "hard", link="low2")])
def test_a_link_to_a_lower_layer_gives_way_to_a_later_entry_of_its_path(tmp_path: Path, last: bytes) -> None:
    low = archive(member("low", content=b"low"), member("low2", content=b"second"))
    top = archive(member("x", "hard", link="low"), last, member("z", "hard", link="low"))
    trees = [str(tmp_path / name) for name in ("top", "low")]
    for tree, layer, below in ((trees[1], low, stack()), (trees[0], top, stack(low))):
        os.mkdir(tree)
        unpack(io.BytesIO(layer), tree, below=below, lower_trees=trees[1:])
    assert tree_matches(trees[0], index_of(top), below=stack(low)) is None
    assert (tmp_path / "top/z").read_bytes() == b"low"
    if b"low2" in last:
        assert (tmp_path / "top/x").read_bytes() == b"second"


def test_directories_replaced_many_times_over_cost_little() -> None:
    """It took minutes once to say what the tree of such a layer looks like."""
    many = range(10_000)
    index = index_of(archive(*(member(f"{number}/x") for number in many), *(member(f"{number}") for number in many)))
    begun = time.process_time()
    assert tree_matches("/nowhere", index, below=StackedIndex(())) is not None
    assert time.process_time() - begun < 10


@pytest.mark.needs_root
def test_what_was_in_a_replaced_directory_is_expected_no_more(tmp_path: Path) -> None:
    below = stack(archive(member("d", "dir", mode=0o755), member("d/w"), member("e/f/w")))
    inside = [member("d/.wh.w"), member("d/e/f/x"), member("d/h", "hard", link="d/e/f/x"), member("d/o/.wh..wh..opq"), member("e/f/y")]
    tar = archive(*inside, member("d", content=b"1"), member("e", content=b"2"), member("after"))
    unpack(io.BytesIO(tar), str(tmp_path), below=below, lower_trees=())
    assert tree_matches(str(tmp_path), index_of(tar), below=below) is None


def test_an_index_knows_how_many_entries_it_has() -> None:
    index = FileIndex(DiffId("sha256:" + "0" * 64), [Entry(b"a", FILE), Entry(b"b", FILE)])
    assert index.count == 2


@pytest.mark.needs_root
def test_a_tree_whose_layer_replaces_a_directory_by_something_else_is_whole(tmp_path: Path) -> None:
    """Found by fuzzing: such a tree never was what its index said, so it was unpacked again in every run."""
    for number, last in enumerate((member("d", "fifo"), member("d", "sym", link="x"))):
        tree = tmp_path / str(number)
        tree.mkdir()
        tar = archive(member("d", "dir", mode=0o755), member("d/x"), member("d/h", "hard", link="d/x"), last)
        unpack(io.BytesIO(tar), str(tree), below=StackedIndex(()), lower_trees=())
        assert tree_matches(str(tree), index_of(tar)) is None


@pytest.mark.parametrize("between", [member("d"), member("d", "fifo"), member("d", "sym", link="x"), member("d", "hard", link="d/x")])
@pytest.mark.parametrize("start", [member("d", "dir"), b""])
def test_a_directory_made_again_after_something_else_is_refused(start: bytes, between: bytes) -> None:
    """On disk its first content is gone; an index that still showed it would let imports take files that no container sees."""
    for inside in (member("d/x"), member("d/e", "dir"), member("d/e/f/x"), member("d/s", "sym", link="y")):
        with pytest.raises(BadLayer, match="after it has put something below it"):
            index_of(archive(start, inside, between, member("d", "dir")))


@pytest.mark.parametrize("after", [member("s"), member("s", "dir"), member("s", "fifo"), member("s", "sym", link="other"), member("s", "hard", link="f")])
def test_a_symlink_replaced_after_something_went_through_it_is_refused(after: bytes) -> None:
    """On disk what went through it lies where it led then; the index would say where it leads in the end."""
    start = member("f") + member("d", "dir") + member("other", "dir") + member("s", "sym", link="d")
    with pytest.raises(BadLayer, match="after it has put something below it"):
        index_of(archive(start, member("s/x"), after))
    index_of(archive(start, after))
    index_of(archive(start, member("s/x"), member("s", "sym", link="d")))


def test_a_directory_made_again_that_held_nothing_is_as_good_as_new() -> None:
    for between in (member("d"), member("d", "fifo")):
        stack = StackedIndex([index_of(archive(member("d", "dir"), member("e/x"), between, member("d", "dir", mode=0o700), member("d/x")))])
        assert stack.children(b"d") == (b"x",)


@pytest.mark.needs_root
def test_attributes_that_the_kernel_refuses_are_the_images_fault(tmp_path: Path) -> None:
    tar = archive(member("a", pax={"SCHILY.xattr.security.capability": "nonsense"}))
    with pytest.raises(BadLayer, match="an extended attribute that the file system refuses"):
        unpack(io.BytesIO(tar), str(tmp_path), below=StackedIndex(()), lower_trees=())
    assert stat.S_ISDIR(os.lstat(tmp_path).st_mode)
