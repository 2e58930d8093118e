"""Trees against their indexes, and the same tar from a tree again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layerwright.layers.entry import CHAR, DIRECTORY, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.index import FileIndex, encode_index, load_index
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import LayerSummary, UnwritableEntry
from layerwright.layers.tree import tree_entries, tree_matches
from layerwright.layers.unpack import unpack
from tests.layers.tars import archive, index_of, member, new_file, write

pytestmark = pytest.mark.needs_root

TIME = 1_600_000_000 * 10**9


def a_layer() -> tuple[bytes, LayerSummary]:
    return write(
        Entry(b"d", DIRECTORY, 0o1777, 1, 2, TIME, xattrs=((b"user.d", b"1"),)),
        Entry(b"d", OPAQUE),
        new_file("d/a", b"content", mode=0o4755, uid=3, gid=4, mtime_ns=TIME, xattrs=((b"user.a", b"1"),)),
        Entry(b"d/b", HARDLINK, 0o4755, 3, 4, TIME, link=b"d/a"),
        Entry(b"d/empty", DIRECTORY, 0o755, mtime_ns=TIME),
        Entry(b"d/l", SYMLINK, 0o777, 5, 6, TIME, link=b"a"),
        Entry(b"gone", WHITEOUT),
        Entry(b"null", CHAR, 0o666, device=(1, 3), mtime_ns=TIME),
        new_file("x" * 200, b"y" * 2_000_000, mtime_ns=TIME),
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    unpack(io.BytesIO(a_layer()[0]), str(tree), below=StackedIndex(()), lower_trees=())
    return tree


def the_index() -> FileIndex:
    return index_of(a_layer()[0])


def test_the_same_bytes_are_written_from_the_tree_again(tree: Path) -> None:
    tar, summary = a_layer()
    parts = encode_index(FileIndex(summary.diff_id, summary.entries, summary.texts))
    index = load_index(summary.diff_id, parts.get)
    assert index is not None
    again, summary_again = write(*tree_entries(str(tree), index))
    assert again == tar
    assert summary_again == summary


def test_a_content_that_is_not_the_layers_any_more_is_not_written(tree: Path) -> None:
    (tree / "d/a").write_bytes(b"CONTENT")
    with pytest.raises(UnwritableEntry, match="/d/a"):
        write(*tree_entries(str(tree), the_index()))


def test_a_file_that_became_a_symlink_is_not_followed(tree: Path) -> None:
    (tree / "d/a").unlink()
    (tree / "d/a").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        write(*tree_entries(str(tree), the_index()))


def test_an_untouched_tree_matches(tree: Path) -> None:
    assert tree_matches(str(tree), the_index()) is None


def quietly(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    """The steps, and then the times as they were."""

    def changed(tree: Path) -> None:
        for step in steps:
            step(tree)
        for path in ("d/a", "d", "null"):
            if (tree / path).exists():
                os.utime(tree / path, ns=(TIME, TIME))

    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (quietly(lambda tree: (tree / "d/a").unlink()), "/d/a is missing"),
        (quietly(lambda tree: (tree / "d/new").touch()), "/d holds b'new'"),
        (quietly(lambda tree: (tree / "d/a").write_bytes(b"longer content")), "/d/a: has 14 bytes instead of 7"),
        (lambda tree: os.utime(tree / "d/a", ns=(0, TIME + 1)), "/d/a: has the time"),
        (lambda tree: os.utime(tree / "d", ns=(0, TIME + 1)), "/d: has the time"),
        (lambda tree: (tree / "d/a").chmod(0o755), "/d/a: has mode 0755 instead of 4755"),
        (lambda tree: os.chown(tree / ("x" * 200), 9, 9), "belongs to 9:9 instead of 0:0"),
        (lambda tree: os.chown(tree / "d/l", 9, 9, follow_symlinks=False), "/d/l: belongs to 9:9"),
        (quietly(lambda tree: (tree / "d/l").unlink(), lambda tree: (tree / "d/l").symlink_to("b")), "/d/l: "),
        (quietly(lambda tree: (tree / "d/empty").rmdir(), lambda tree: (tree / "d/empty").touch()), "/d/empty: is not a dir"),
        (quietly(lambda tree: (tree / "d/b").unlink(), lambda tree: (tree / "d/b").write_bytes(b"content")), "/d/b is not the same file as /d/a"),
        (lambda tree: (tree / "gone").unlink(), "/gone is missing"),
        (quietly(lambda tree: (tree / "gone").unlink(), lambda tree: (tree / "gone").touch()), "/gone: is not the mark of a removal"),
        (lambda tree: os.removexattr(tree / "d", "trusted.overlay.opaque"), "/d does not hide"),
        (
            quietly(
                lambda tree: (tree / "null").unlink(),
                lambda tree: os.mknod(tree / "null", 0o20666, os.makedev(1, 5)),
                lambda tree: (tree / "null").chmod(0o666),
            ),
            "/null: is another device",
        ),
    ],
)
def test_what_differs_is_said(tree: Path, change: Callable[[Path], object], said: str) -> None:
    change(tree)
    found = tree_matches(str(tree), the_index())
    assert found is not None
    assert said in found


def test_a_tree_that_is_not_there_does_not_match(tmp_path: Path) -> None:
    assert "No such file" in (tree_matches(str(tmp_path / "none"), the_index()) or "")


def test_a_tree_with_another_kind_of_thing_for_a_directory_does_not_match(tree: Path) -> None:
    os.rename(tree / "d", tree.parent / "elsewhere")
    os.symlink("../elsewhere", tree / "d")
    assert tree_matches(str(tree), the_index()) is not None


def test_the_tree_of_any_order_and_repetition_matches(tmp_path: Path) -> None:
    tar = archive(member("d/x", content=b"1"), member("d", "dir", mode=0o700), member("d/x", content=b"22"), member("d", "dir", mode=0o711), member("e/f/g"))
    unpack(io.BytesIO(tar), str(tmp_path), below=StackedIndex(()), lower_trees=())
    assert tree_matches(str(tmp_path), index_of(tar), below=StackedIndex(())) is None
