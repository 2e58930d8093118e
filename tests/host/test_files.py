from __future__ import annotations

import ctypes
import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerwright.host.files import DiskFull, NotWritable, remove_tree, replacing, telling_full, write_once


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    subprocess.run(["mount", *arguments, str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


PRCTL = ctypes.CDLL(None).prctl
PR_SET_DUMPABLE = 4


def mount_points() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def test_a_replaced_file_is_the_old_one_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    with replacing(str(path)) as out:
        out.write(b"one")
    with replacing(str(path)) as out:
        out.write(b"two")
        out.flush()
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


def test_after_an_exception_the_old_file_stays_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(str(path)) as out:
            out.write(b"new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_relative_path_without_a_directory_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with replacing("file") as out:
        out.write(b"x")
    assert Path("file").read_bytes() == b"x"


def test_a_directory_that_a_clean_up_takes_while_it_is_empty_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice: between the making of the directory and the file in it, and between the making of the directory above and of itself."""
    path, real, made = tmp_path / "a" / "b" / "file", os.makedirs, 0

    def makedirs(name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        nonlocal made
        made += 1
        if made == 2:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        real(name, mode, exist_ok)
        if made == 1:
            os.removedirs(name)
            tmp_path.mkdir(exist_ok=True)

    scratch = tmp_path.parent / f"{tmp_path.name}-scratch"
    scratch.mkdir()
    monkeypatch.setattr(os, "makedirs", makedirs)
    assert write_once(str(path), b"content", scratch=str(scratch))
    assert path.read_bytes() == b"content"


def test_the_first_to_write_once_wins(tmp_path: Path) -> None:
    path = tmp_path / "a" / "record"
    assert write_once(str(path), b"first")
    assert not write_once(str(path), b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == ["record"]


@pytest.mark.parametrize(("code", "word"), [(errno.ENOSPC, "space"), (errno.EDQUOT, "quota")])
def test_a_full_disk_names_the_path_and_what_was_needed(tmp_path: Path, code: int, word: str) -> None:
    with pytest.raises(DiskFull) as caught, telling_full(str(tmp_path / "not" / "there"), needed_bytes=1234):
        raise OSError(code, os.strerror(code))
    assert caught.value.exit_code == 3
    assert word in caught.value.what
    assert "1234 bytes needed" in caught.value.what
    assert caught.value.where == str(tmp_path / "not" / "there")
    place = caught.value.mend.partition("`df -h ")[2].partition("`")[0]
    assert os.path.ismount(place)
    assert os.stat(place).st_dev == tmp_path.stat().st_dev


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), telling_full(str(tmp_path)):
        raise OSError(errno.EISDIR, "is a directory")


@pytest.mark.needs_root
@pytest.mark.parametrize("option", ["size=64k", "nr_inodes=3"])
class TestFullFileSystem:
    def test_writing_is_a_clear_error_and_leaves_nothing(self, tmp_path: Path, option: str) -> None:
        with mounted("-t", "tmpfs", "-o", option, "none", at=tmp_path):
            with pytest.raises(DiskFull) as caught:
                fill(tmp_path)
            assert ("inodes" if "inodes" in option else "space") in caught.value.what
            assert f"`df -h {tmp_path}` shows" in caught.value.mend  # not a directory that is removed with what was begun
            assert not [name for name in os.listdir(tmp_path) if name.startswith(".tmp")]


def fill(place: Path) -> None:
    for number in range(10):
        with replacing(str(place / f"file{number}")) as out:
            out.write(bytes(20_000))


def test_a_read_only_place_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotWritable) as caught:
        write_once("/proc/self/layerwright" if os.geteuid() else "/sys/kernel/layerwright", b"x")
    assert "LAYERWRIGHT_HOME" in caught.value.mend


def test_removing_follows_no_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    doomed = tmp_path / "doomed"
    (doomed / "sub").mkdir(parents=True)
    (doomed / "sub" / "dir-link").symlink_to(tmp_path / "kept")
    (doomed / "file-link").symlink_to(tmp_path / "kept" / "file")
    os.mkfifo(doomed / "fifo")
    assert remove_tree(str(doomed)) == ()
    assert not doomed.exists()
    assert (tmp_path / "kept" / "file").read_text() == "x"


def test_removing_a_link_a_file_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "dir")
    (tmp_path / "file").write_text("x")
    for name in ("link", "file", "nothing", "no/such/place"):
        assert remove_tree(str(tmp_path / name)) == ()
    assert os.listdir(tmp_path) == ["dir"]


def test_removing_survives_depth_that_no_path_can_name(tmp_path: Path) -> None:
    (tmp_path / "doomed").mkdir()
    fd = os.open(tmp_path / "doomed", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert remove_tree(str(tmp_path / "doomed")) == ()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_directories_without_permissions_are_removed_by_their_owner(tmp_path: Path) -> None:
    doomed = tmp_path / "doomed"
    (doomed / "closed" / "sub").mkdir(parents=True)
    (doomed / "closed" / "sub" / "file").write_text("x")
    (doomed / "read-only").mkdir()
    (doomed / "read-only" / "file").write_text("x")
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", str(tmp_path)], check=True)
        for parent in tmp_path.parents[:-2]:
            parent.chmod(0o755)
    (doomed / "closed" / "sub").chmod(0)
    (doomed / "closed").chmod(0)
    (doomed / "read-only").chmod(0o555)
    assert as_nobody(lambda: remove_tree(str(doomed)) == ())
    assert not doomed.exists()


def as_nobody(act: object) -> bool:
    """Whether `act` is true, done by somebody who is not root."""
    assert callable(act)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
                PRCTL(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self still belongs to root
            code = 0 if act() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.needs_root
class TestMountPoints:
    def test_a_bind_mount_of_the_same_device_survives(self, tmp_path: Path) -> None:
        kept, doomed = tmp_path / "kept", tmp_path / "doomed"
        (kept / "sub").mkdir(parents=True)
        (kept / "sub" / "file").write_text("x")
        (doomed / "a" / "mnt").mkdir(parents=True)
        (doomed / "b").mkdir()
        with mounted("--bind", str(kept), at=doomed / "a" / "mnt"):
            assert remove_tree(str(doomed)) == (str(doomed / "a" / "mnt"),)
            assert (kept / "sub" / "file").read_text() == "x"
            assert os.listdir(doomed) == ["a"]
        assert remove_tree(str(doomed)) == ()
        assert (kept / "sub" / "file").read_text() == "x"

    def test_a_bind_mount_below_fifty_directories_survives(self, tmp_path: Path) -> None:
        kept = tmp_path / "kept"
        kept.mkdir()
        (kept / "file").write_text("x")
        mount_point = tmp_path.joinpath("doomed", *["d"] * 120)
        mount_point.mkdir(parents=True)
        subprocess.run(["mount", "--bind", str(kept), str(mount_point)], check=True)
        try:
            assert remove_tree(str(tmp_path / "doomed")) == (str(mount_point),)
            assert (kept / "file").read_text() == "x"
        finally:
            for place in mount_points():  # it was moved up with the directory that holds it
                if place.startswith(str(tmp_path)):
                    subprocess.run(["umount", place], check=True)
        assert remove_tree(str(tmp_path / "doomed")) == ()
        assert (kept / "file").read_text() == "x"

    def test_another_file_system_and_a_file_mounted_over_a_file_survive(self, tmp_path: Path) -> None:
        kept, doomed = tmp_path / "kept", tmp_path / "doomed"
        (doomed / "mnt").mkdir(parents=True)
        (doomed / "file").write_text("below")
        kept.write_text("x")
        with mounted("-t", "tmpfs", "none", at=doomed / "mnt"), mounted("--bind", str(kept), at=doomed / "file"):
            (doomed / "mnt" / "file").write_text("x")
            assert sorted(remove_tree(str(doomed))) == [str(doomed / "file"), str(doomed / "mnt")]
            assert (doomed / "mnt" / "file").read_text() == "x"
            assert kept.read_text() == "x"

    def test_a_mount_point_itself_is_left(self, tmp_path: Path) -> None:
        (tmp_path / "mnt").mkdir()
        with mounted("-t", "tmpfs", "none", at=tmp_path / "mnt"):
            (tmp_path / "mnt" / "file").write_text("x")
            assert remove_tree(str(tmp_path / "mnt")) == (str(tmp_path / "mnt"),)
            assert (tmp_path / "mnt" / "file").read_text() == "x"
