from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from layerwright.runtime.copied import Changes, changes_since, copy_root, snapshot

pytestmark = pytest.mark.needs_root


@pytest.fixture
def lower(tmp_path: Path) -> list[Path]:
    """Three layers, top first."""
    trees = [tmp_path / name for name in ("top", "middle", "bottom")]
    for tree in trees:
        tree.mkdir()
    return trees


def copied(lower: list[Path], tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    copy_root([str(tree) for tree in lower], str(target))
    return target


def test_upper_layers_cover_lower_ones(lower: list[Path], tmp_path: Path) -> None:
    top, middle, bottom = lower
    (bottom / "file").write_text("bottom")
    (bottom / "became-directory").write_text("file")
    (bottom / "became-file").mkdir()
    (bottom / "became-file/child").touch()
    (middle / "file").write_text("middle")
    (middle / "became-directory").mkdir()
    (top / "became-file").symlink_to("file")
    target = copied(lower, tmp_path)
    assert (target / "file").read_text() == "middle"
    assert (target / "became-directory").is_dir()
    assert os.readlink(target / "became-file") == "file"


def test_whiteouts_and_opaque_directories_remove(lower: list[Path], tmp_path: Path) -> None:
    top, middle, bottom = lower
    for name in ("gone", "kept"):
        (bottom / name).mkdir()
        (bottom / name / "old").touch()
    os.mknod(middle / "gone", stat.S_IFCHR, 0)
    (top / "kept").mkdir()
    (top / "kept/new").touch()
    os.setxattr(top / "kept", "trusted.overlay.opaque", b"y")
    target = copied(lower, tmp_path)
    assert os.listdir(target) == ["kept"]
    assert os.listdir(target / "kept") == ["new"]
    assert os.listxattr(target / "kept") == []


def test_everything_about_a_file_is_kept(lower: list[Path], tmp_path: Path) -> None:
    top, *_ = lower
    file = top / "directory/file"
    file.parent.mkdir()
    with file.open("wb") as out:
        out.seek(1 << 22)
        out.write(b"end")
        out.truncate(1 << 23)
    os.link(file, top / "link")
    os.chown(file, 12, 34)
    os.chmod(file, 0o4751)
    os.setxattr(file, "user.note", b"x")
    os.mkfifo(top / "pipe")
    os.mknod(top / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for path in (file, file.parent):
        os.utime(path, ns=(1, 1_500_000_000_123_456_789))
    target = copied(lower, tmp_path)
    before, after = file.stat(), (target / "directory/file").stat()
    for name in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_nlink"):
        assert getattr(after, name) == getattr(before, name)
    assert after.st_blocks <= before.st_blocks
    assert (target / "directory/file").read_bytes() == file.read_bytes()
    assert (target / "link").stat().st_ino == after.st_ino
    assert os.getxattr(target / "directory/file", "user.note") == b"x"
    assert (target / "directory").stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert stat.S_ISFIFO((target / "pipe").stat().st_mode)
    assert (target / "device").stat().st_rdev == os.makedev(1, 3)


def test_changes_are_found_even_where_size_and_time_are_the_same(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "directory/below").mkdir(parents=True)
    for name in ("same", "content", "mode", "removed", "directory/below/file"):
        (root / name).write_text("1")
    found = (root / "content").stat()
    before = snapshot(str(root))
    time.sleep(0.02)  # the kernel's clock for change times ticks every few milliseconds
    (root / "content").write_text("2")
    os.utime(root / "content", ns=(found.st_atime_ns, found.st_mtime_ns))
    (root / "mode").chmod(0o600)
    (root / "removed").unlink()
    (root / "directory/below/file").unlink()
    (root / "directory/below").rmdir()
    (root / "new").symlink_to("same")
    assert changes_since(str(root), before) == Changes(written=(b"content", b"directory", b"mode", b"new"), removed=(b"directory/below", b"removed"))
