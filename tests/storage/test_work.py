from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layerwright.host import locks
from layerwright.storage.local import LocalStore
from tests.storage.values import start_child


def killed(act: Callable[[int], object]) -> None:
    """Run `act` in a child that tells (through the descriptor it is given) when to kill it, and kill it."""
    read_end, write_end = os.pipe()
    child = start_child(lambda: act(write_end))
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.close(read_end)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def build_and_wait(home: str, told: int, fill: Callable[[Path], object] = lambda _: None) -> None:
    with LocalStore(home) as store, store.work() as work:
        fill(Path(work.path))
        os.write(told, b"x")
        time.sleep(60)


def test_a_work_directory_is_private_locked_and_gone_afterwards(tmp_path: Path) -> None:
    with LocalStore(str(tmp_path)) as store:
        with store.work() as one, store.work() as other:
            assert one.path != other.path
            assert not locks.is_free(one.path)
        assert not os.path.exists(one.path)


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    def fill(work: Path) -> None:
        (work / "root" / "etc").mkdir(parents=True)
        (work / "root" / "etc" / "passwd").write_text("x")

    killed(lambda told: build_and_wait(str(tmp_path), told, fill))
    assert os.listdir(tmp_path / "work")
    with LocalStore(str(tmp_path)) as store, store.work() as work:
        assert os.listdir(tmp_path / "work") == [os.path.basename(work.path)]


def test_a_running_build_is_left_alone(tmp_path: Path) -> None:
    with LocalStore(str(tmp_path)) as store, store.work() as work:
        Path(work.path, "file").write_text("x")
        with LocalStore(str(tmp_path)) as other, other.work():
            pass
        assert store.sweep_work() == ()
        assert Path(work.path, "file").read_text() == "x"


def test_a_directory_lives_as_long_as_the_last_process_that_has_its_lock(tmp_path: Path) -> None:
    def hand_over(told: int) -> None:
        with LocalStore(str(tmp_path)) as store, store.work() as work:
            worker = subprocess.Popen(["sleep", "60"], pass_fds=[work.lock_fd])
            (tmp_path / "worker").write_text(f"{worker.pid} {work.path}")
            os.write(told, b"x")
            time.sleep(60)

    killed(hand_over)
    pid, path = (tmp_path / "worker").read_text().split()
    try:
        with LocalStore(str(tmp_path)) as store, store.work():
            assert os.path.isdir(path)
    finally:
        os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: locks.is_free(path))
    with LocalStore(str(tmp_path)) as store, store.work():
        assert not os.path.exists(path)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.needs_root
def test_a_build_dir_mounted_in_a_dead_builds_root_survives(tmp_path: Path) -> None:
    home = tmp_path / "store"
    with LocalStore(str(home)) as store:
        cache = Path(store.mount_dir("project", "/var/cache"))
    (cache / "sub").mkdir()
    (cache / "sub" / "file").write_text("kept from build to build")

    def mount(work: Path) -> None:
        at = work / "root" / "var" / "cache"
        at.mkdir(parents=True)
        (work / "root" / "other").write_text("x")
        subprocess.run(["mount", "--bind", str(cache), str(at)], check=True)

    killed(lambda told: build_and_wait(str(home), told, mount))
    mount_points = list(home.glob("work/*/root/var/cache"))
    try:
        assert len(mount_points) == 1
        with LocalStore(str(home)) as store:
            with store.work():
                pass
            assert store.sweep_work() == (str(mount_points[0]),)
        assert (mount_points[0] / "sub" / "file").read_text() == "kept from build to build"
        assert not (mount_points[0].parent.parent / "other").exists()
    finally:
        for one in mount_points:
            subprocess.run(["umount", str(one)], check=True)
    with LocalStore(str(home)) as store, store.work():
        assert not mount_points[0].exists()
    assert (cache / "sub" / "file").read_text() == "kept from build to build"


def test_what_may_not_be_removed_is_left_and_harms_no_build(tmp_path: Path) -> None:
    killed(lambda told: build_and_wait(str(tmp_path), told))

    def refuse(path: str) -> tuple[str, ...]:
        raise PermissionError(path)

    with LocalStore(str(tmp_path)) as store:
        assert len(store.sweep_work(remove=refuse)) == 1
        with store.work(remove=refuse) as work:
            pass
        assert os.path.isdir(work.path)
