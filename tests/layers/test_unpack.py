"""Layers onto the disk: what they hold arrives, what they have no right to does not happen."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import subprocess
from pathlib import Path

import pytest

from layerwright.errors import MachineLacks
from layerwright.layers.entry import CHAR, DIRECTORY, FIFO, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import BadLayer, Limits
from layerwright.layers.tree import tree_matches
from layerwright.layers.unpack import needs_below, unpack, unpack_alone
from tests.layers.tars import archive, in_overlay, index_of, member, new_file, unpack_stack, write

pytestmark = pytest.mark.needs_root

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep
TIME = 1_600_000_000 * 10**9


def unpacked(tar: bytes, directory: Path) -> Path:
    """One layer alone; what is unpacked with its index in one pass is compared with what is unpacked without."""
    tree, alone = directory / "tree", directory / "alone"
    tree.mkdir()
    alone.mkdir()
    unpack(io.BytesIO(tar), str(tree), below=StackedIndex(()), lower_trees=())
    index, complete = unpack_alone(io.BytesIO(tar), str(alone))
    assert index.entries == index_of(tar).entries
    assert index.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert complete or needs_below(index)
    if complete:
        assert listing(alone) == listing(tree)
    return tree


def listing(tree: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(tree.rglob("*")):
        state = os.lstat(path)
        size = state.st_size if stat.S_ISREG(state.st_mode) else 0
        names = os.listxattr(path, follow_symlinks=False)
        found[str(path.relative_to(tree))] = (oct(state.st_mode), state.st_uid, state.st_gid, state.st_mtime_ns, size, state.st_nlink, state.st_rdev, names)
    return found


def test_everything_a_layer_can_hold_arrives(tmp_path: Path) -> None:
    tar, _ = write(
        Entry(b"d", DIRECTORY, 0o1777, 1, 2, TIME, xattrs=((b"user.d", b"1"),)),
        Entry(b"d/sub", DIRECTORY, 0o2750, 0, 44, TIME + 10**9),
        new_file("d/sub/f", b"x" * 70_000, mode=0o4755, uid=33, gid=44, mtime_ns=TIME, xattrs=((b"security.capability", CAPABILITY), (b"user.a", b"\0"))),
        new_file("d/sub/g", b"", mode=0o000),
        Entry(b"d/sub/h", HARDLINK, 0o4755, link=b"d/sub/f"),
        Entry(b"d/sym", SYMLINK, 0o777, 5, 6, TIME, link=b"/etc/passwd"),
        Entry(b"fifo", FIFO, 0o640, 7, 8, TIME),
        Entry(b"null", CHAR, 0o666, device=(1, 3), mtime_ns=TIME),
    )
    tree = unpacked(tar, tmp_path)
    assert tree_matches(str(tree), index_of(tar)) is None
    assert (tree / "d/sub/f").read_bytes() == b"x" * 70_000
    assert os.getxattr(tree / "d/sub/f", "security.capability") == CAPABILITY
    assert os.getxattr(tree / "d/sub/f", "user.a") == b"\0"
    assert os.getxattr(tree / "d", "user.d") == b"1"
    assert (tree / "d/sub/f").stat().st_mode & 0o7777 == 0o4755
    assert (tree / "d/sub").stat().st_mode & 0o7777 == 0o2750
    assert (tree / "d/sub/h").stat().st_ino == (tree / "d/sub/f").stat().st_ino
    assert os.readlink(tree / "d/sym") == "/etc/passwd"


def test_a_tree_is_what_gnu_tar_makes_of_it(tmp_path: Path) -> None:
    source, gnu = tmp_path / "source", tmp_path / "gnu"
    source.mkdir()
    gnu.mkdir()
    for number in range(300):
        path = source / f"d{number % 7}" / f"e{number % 3}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number * 37))
        path.chmod(0o600 + number % 0o177)
        os.chown(path, number, number + 1)
    os.link(source / "d0/e0/file0", source / "d1/hard")
    os.symlink("/".join(["x" * 100] * 3), source / "d1/sym")  # longer than a tar header's field; no name of it longer than a file system takes
    tar = subprocess.run(["tar", "-c", "--sort=name", "--format=pax", "."], cwd=source, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-xpf", "-", "-C", gnu], input=tar, check=True)
    assert listing(unpacked(tar, tmp_path)) == listing(gnu)


def test_the_last_of_several_entries_wins(tmp_path: Path) -> None:
    tree = unpacked(
        archive(
            *(member("a", content=b"first"), member("a", content=b"second!")),
            *(member("b", "dir"), member("b/c", "dir"), member("b/c/x"), member("b", content=b"file")),
            *(member("c", "sym", link="a"), member("c", content=b"no link")),
            *(member("d"), member("d", "dir", mode=0o755), member("d/x")),
            *(member("e", "sym", link="/etc"), member("e", "dir", mode=0o700), member("e/x")),
            *(member("f", "dir"), member("f/x"), member("f", "dir", mode=0o711)),
            *(member("g"), member("g", "hard", link="a")),
            *(member("h"), member("h", "fifo")),
        ),
        tmp_path,
    )
    assert (tree / "a").read_bytes() == b"second!"
    assert (tree / "b").read_bytes() == b"file"
    assert (tree / "c").read_bytes() == b"no link"
    assert not (tree / "c").is_symlink()
    assert (tree / "d/x").exists()
    assert not (tree / "e").is_symlink()
    assert (tree / "e/x").exists()
    assert (tree / "f/x").exists()
    assert (tree / "f").stat().st_mode & 0o777 == 0o711
    assert (tree / "g").samefile(tree / "a")
    assert stat.S_ISFIFO((tree / "h").stat().st_mode)


def test_times_that_no_file_system_keeps_become_the_nearest(tmp_path: Path) -> None:
    tar = archive(member("a", pax={"mtime": "99999999999999"}), member("b", pax={"mtime": "-99999999999999.5"}), member("c", pax={"mtime": "-1.5"}))
    tree = unpacked(tar, tmp_path)
    assert tree_matches(str(tree), index_of(tar)) is None
    assert (tree / "c").stat().st_mtime_ns == -1_500_000_000


# --- what an archive has no right to ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        [member("out", "sym", link="{outside}"), member("out/planted")],
        [member("out", "sym", link="{outside}"), member("out/sub", "dir"), member("out/sub/planted")],
        [member("out", "sym", link="../../../../../../../..{outside}"), member("out/planted")],
        [member("d", "dir"), member("d/out", "sym", link="{outside}"), member("d/out/planted", "sym", link="x")],
        [member("out", "sym", link="{outside}"), member("out", "hard", link="out/victim"), member("out", content=b"overwritten")],
        [member("victim", "sym", link="{outside}/victim"), member("victim", content=b"overwritten")],
        [member("a", "sym", link="{outside}"), member("b", "sym", link="a"), member("b/planted")],
        [member("out", "sym", link="{outside}"), member("out/.wh.victim")],
        [member("out", "sym", link="{outside}"), member("out/.wh..wh..opq")],
        [member("out", "sym", link="{outside}"), member("out/p", "fifo"), member("out/c", "char")],
        [member("d", "dir"), member("d/x"), member("d", "sym", link="{outside}"), member("d/victim", content=b"overwritten")],
    ],
)
def test_symlinks_lead_nowhere_but_into_the_tree(tmp_path: Path, members: list[bytes]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"untouched")
    before = listing(outside)
    tar = archive(*(_with_link(one, str(outside)) for one in members))
    tree = tmp_path / "tree"
    tree.mkdir()
    try:
        unpack(io.BytesIO(tar), str(tree), below=StackedIndex(()), lower_trees=())
    except BadLayer:
        pass
    assert listing(outside) == before
    assert (outside / "victim").read_bytes() == b"untouched"


def _with_link(block: bytes, outside: str) -> bytes:
    """The same member with another link target."""
    link = block[157:257].rstrip(b"\0").replace(b"{outside}", outside.encode())
    block = block[:157] + link.ljust(100, b"\0") + block[257:]
    cleared = block[:148] + b" " * 8 + block[156:512]
    return cleared[:148] + b"%06o\0 " % sum(cleared) + block[156:]


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ([member("../x")], "out of the root"),
        ([member("h", "hard", link="../outside/victim")], "out of the root"),
        ([member("h", "hard", link="/etc/passwd")], "not there"),
        ([member("s", "sym", link="/etc"), member("h", "hard", link="s/passwd")], "not there"),
        ([member("h", "hard", link="h")], "to itself"),
        ([member("a", "hard", link="b"), member("b", "hard", link="a")], "not there"),
        ([member("d", "dir"), member("h", "hard", link="d")], "to a directory"),
        ([member("d", "dir"), member("d/f"), member("d", "hard", link="d/f")], "refuses"),
        ([member("f"), member("f/x")], "is none"),
        ([member("a", "sym", link="b"), member("b", "sym", link="a"), member("a/x")], "40 symlinks"),
        ([member("c", "char")], "device 0:0"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, members: list[bytes], what: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(BadLayer, match=what):
        unpack(io.BytesIO(archive(*members)), str(tree), below=StackedIndex(()), lower_trees=())


def test_paths_through_symlinks_stay_in_the_tree(tmp_path: Path) -> None:
    tree = unpacked(archive(member("usr", "dir"), member("lib", "sym", link="../../usr/lib"), member("lib/sub/x", content=b"1")), tmp_path)
    assert (tree / "usr/lib/sub/x").read_bytes() == b"1"
    assert os.readlink(tree / "lib") == "../../usr/lib"


def test_deep_trees_need_few_descriptors(tmp_path: Path) -> None:
    """Names may be 4,095 bytes long: 2,000 levels."""
    tar = archive(*(member("/".join(["d"] * depth), "dir", mode=0o755) for depth in (*range(1, 2000),)), member("/".join(["d"] * 1999) + "/f", content=b"deep"))
    tree = tmp_path / "tree"
    tree.mkdir()
    index, complete = unpack_alone(io.BytesIO(tar), str(tree))
    assert complete
    assert len(index.entries) == 2000
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(1999):
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    assert os.listdir(fd) == ["f"]
    os.close(fd)
    subprocess.run(["rm", "-rf", tree], check=True)


def test_limits_hold(tmp_path: Path) -> None:
    with pytest.raises(BadLayer, match="entries"):
        unpack(io.BytesIO(archive(member("a"), member("b"))), str(tmp_path), below=StackedIndex(()), lower_trees=(), limits=Limits(layer_entries=1))


# --- on top of other layers -------------------------------------------------------------------------------------------------------


def test_implicit_parents_are_like_those_below(tmp_path: Path) -> None:
    base, _ = write(Entry(b"tmp", DIRECTORY, 0o1777, 3, 4, TIME, xattrs=((b"user.a", b"1"),)))
    trees, _ = unpack_stack([base, archive(member("tmp/new/x"))], tmp_path)
    state = os.stat(trees[1] + "/tmp")
    assert (state.st_mode & 0o7777, state.st_uid, state.st_gid, state.st_mtime_ns) == (0o1777, 3, 4, TIME)
    assert os.getxattr(trees[1] + "/tmp", "user.a") == b"1"
    assert os.stat(trees[1] + "/tmp/new").st_mode & 0o7777 == 0o755


def test_paths_lead_through_the_symlinks_of_lower_layers(tmp_path: Path) -> None:
    base = archive(member("usr", "dir", mode=0o755), member("usr/lib", "dir", mode=0o751), member("lib", "sym", link="usr/lib"), member("usr/lib/old"))
    middle = archive(member("lib64", "sym", link="/lib"))
    top = archive(member("lib64/x", content=b"1"), member("lib/.wh.old"))
    trees, view = unpack_stack([base, middle, top], tmp_path)
    assert Path(trees[2], "usr/lib/x").read_bytes() == b"1"
    assert os.listdir(trees[2]) == ["usr"]
    assert os.stat(trees[2] + "/usr/lib").st_mode & 0o777 == 0o751
    assert in_overlay(trees, tmp_path / "upper", "find . | sort").split() == [".", "./lib", "./lib64", "./usr", "./usr/lib", "./usr/lib/x"]
    assert tree_matches(trees[2], view.layers[2], below=view.below(2)) is None
    assert tree_matches(trees[2], view.layers[2]) is None


def test_a_directory_entry_replaces_a_symlink_of_a_lower_layer(tmp_path: Path) -> None:
    trees, view = unpack_stack([archive(member("lib", "sym", link="usr/lib")), archive(member("lib", "dir"), member("lib/x"))], tmp_path)
    assert not needs_below(view.layers[1])
    assert in_overlay(trees, tmp_path / "upper", "find . | sort").split() == [".", "./lib", "./lib/x"]


def test_hard_links_to_files_of_lower_layers_become_copies(tmp_path: Path) -> None:
    base, _ = write(
        Entry(b"bin", DIRECTORY, 0o755),
        new_file("bin/a", b"content", mode=0o4755, uid=3, mtime_ns=TIME, xattrs=((b"security.capability", CAPABILITY),)),
        Entry(b"bin/s", SYMLINK, 0o777, link=b"a"),
        new_file("bin/gone", b"x"),
    )
    middle, _ = write(Entry(b"bin", DIRECTORY, 0o755), new_file("bin/a", b"newer content", mode=0o755, mtime_ns=TIME))
    top, _ = write(
        Entry(b"opt", DIRECTORY, 0o755),
        Entry(b"opt/b", HARDLINK, 0o755, link=b"bin/a"),
        Entry(b"opt/c", HARDLINK, 0o755, link=b"bin/a"),
        Entry(b"opt/s", HARDLINK, 0o777, link=b"bin/s"),
    )
    trees, view = unpack_stack([base, top], tmp_path)
    copy = os.stat(trees[1] + "/opt/b")
    assert Path(trees[1], "opt/b").read_bytes() == b"content"
    assert (copy.st_mode & 0o7777, copy.st_uid, copy.st_mtime_ns, copy.st_nlink) == (0o4755, 3, TIME, 2)
    assert os.getxattr(trees[1] + "/opt/b", "security.capability") == CAPABILITY
    assert os.readlink(trees[1] + "/opt/s") == "a"
    assert needs_below(view.layers[1])
    assert tree_matches(trees[1], view.layers[1], below=view.below(1)) is None
    (tmp_path / "other").mkdir()
    trees, _ = unpack_stack([base, middle, top], tmp_path / "other")
    assert Path(trees[2], "opt/b").read_bytes() == b"newer content"


@pytest.mark.parametrize("hidden", [[member(".wh.bin")], [member("bin", "dir"), member("bin/.wh..wh..opq")], [member("bin")]])
def test_hard_links_to_what_is_removed_are_refused(tmp_path: Path, hidden: list[bytes]) -> None:
    base = archive(member("bin", "dir"), member("bin/a", content=b"x"))
    for number, layers in enumerate(
        ([base, archive(*hidden), archive(member("b", "hard", link="bin/a"))], [base, archive(*hidden, member("b", "hard", link="bin/a"))])
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        with pytest.raises(BadLayer, match="hard link"):
            unpack_stack(layers, directory)


def test_removals_are_the_marks_of_overlayfs(tmp_path: Path) -> None:
    base = archive(*(member(name, "dir") for name in ("a", "b", "c", "d", "d/e")), *(member(name) for name in ("a/x", "b/x", "c/x", "d/e/x", "f")))
    top, _ = write(
        Entry(b"a", WHITEOUT),
        Entry(b"f", WHITEOUT),
        Entry(b"b", DIRECTORY, 0o755),
        Entry(b"b", OPAQUE),
        new_file("b/new"),
        Entry(b"c", WHITEOUT),
        Entry(b"c", DIRECTORY, 0o755),
        new_file("c/new"),
    )
    trees, view = unpack_stack([base, top], tmp_path)
    state = os.lstat(trees[1] + "/a")
    assert stat.S_ISCHR(state.st_mode)
    assert state.st_rdev == 0
    assert os.getxattr(trees[1] + "/b", "trusted.overlay.opaque") == b"y"
    assert in_overlay(trees, tmp_path / "upper", "find . | sort").split() == [".", "./b", "./b/new", "./c", "./c/new", "./d", "./d/e", "./d/e/x"]
    assert tree_matches(trees[1], view.layers[1]) is None
    assert [entry.path for entry in view.walk()][1:] == [b"b", b"b/new", b"c", b"c/new", b"d", b"d/e", b"d/e/x"]


def test_an_opaque_root_hides_all_that_is_below(tmp_path: Path) -> None:
    base = archive(member("a"), member("d", "dir"), member("d/x"), member("e", "dir"), member("e/x"))
    trees, view = unpack_stack([base, archive(member(".wh..wh..opq"), member("d", "dir"), member("d/new"), member("d/.wh.x"))], tmp_path)
    assert in_overlay(trees, tmp_path / "upper", "find . | sort").split() == [".", "./d", "./d/new"]
    assert needs_below(view.layers[1])
    assert tree_matches(trees[1], view.layers[1], below=view.below(1)) is None


def test_whiteouts_within_a_directory_that_hides_all_are_not_made(tmp_path: Path) -> None:
    base = archive(member("d", "dir"), member("d/x"))
    trees, view = unpack_stack([base, archive(member("d", "dir"), member("d/.wh..wh..opq"), member("d/.wh.x"))], tmp_path)
    assert os.listdir(trees[1] + "/d") == []
    assert tree_matches(trees[1], view.layers[1]) is None


def test_in_a_user_namespace_the_marks_are_user_attributes(tmp_path: Path) -> None:
    tar = archive(member("d", "dir", mode=0o755), member("d/.wh..wh..opq"), member("d/x", pax={"SCHILY.xattr.trusted.t": "1"}))
    unpack(io.BytesIO(tar), str(tmp_path), below=StackedIndex(()), lower_trees=(), user_xattr=True)
    assert os.getxattr(tmp_path / "d", "user.overlay.opaque") == b"y"
    assert tree_matches(str(tmp_path), index_of(tar), user_xattr=True) is None
    assert tree_matches(str(tmp_path), index_of(tar)) is not None


def test_devices_that_a_user_may_not_make_are_left_out_with_their_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = archive(member("d", "dir", mode=0o755), member("d/disk", "block"), member("d/link", "hard", link="d/disk"), member("d/pipe", "fifo"))
    real = os.mknod

    def of_a_user(path: bytes, mode: int, device: int, *, dir_fd: int) -> None:
        if stat.S_ISBLK(mode):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, mode, device, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", of_a_user)
    with pytest.raises(MachineLacks):
        unpack(io.BytesIO(tar), str(tmp_path), below=StackedIndex(()), lower_trees=())
    (tree := tmp_path / "tree").mkdir()
    unpack(io.BytesIO(tar), str(tree), below=StackedIndex(()), lower_trees=(), user_xattr=True)
    assert os.listdir(tree / "d") == ["pipe"]
    assert tree_matches(str(tree), index_of(tar), user_xattr=True) is None
    assert "is missing" in (tree_matches(str(tree), index_of(tar)) or "")


def test_marks_that_an_image_brings_along_are_dropped(tmp_path: Path) -> None:
    tar = archive(
        member("d", "dir", mode=0o755, pax={"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.a": "1"})
    )
    assert os.listxattr(unpacked(tar, tmp_path) / "d") == ["user.a"]


@pytest.mark.parametrize(
    ("members", "needed"),
    [
        ([], False),
        ([member("./", "dir"), member("a"), member("d", "dir"), member("d/x"), member("d/.wh.y"), member("d/h", "hard", link="a")], False),
        ([member("d/x")], True),
        ([member("d/x"), member("d", "dir")], True),
        ([member("d", "sym", link="e"), member("d/x")], True),
        ([member("d/.wh.x")], True),
        ([member("d/.wh..wh..opq")], True),
        ([member(".wh..wh..opq")], True),
        ([member("d", "dir"), member("d/.wh..wh..opq")], False),
        ([member("h", "hard", link="a")], True),
        ([member("h", "hard", link="a"), member("a")], True),
    ],
)
def test_whether_a_layer_needs_those_below_is_known_from_its_index(tmp_path: Path, members: list[bytes], needed: bool) -> None:
    tar = archive(*members)
    index = index_of(tar)
    assert needs_below(index) is needed
    _, complete = unpack_alone(io.BytesIO(tar), str(tmp_path))
    assert complete or needed
