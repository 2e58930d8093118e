from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from layerwright.errors import Cancelled
from layerwright.host import locks


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    with locks.hold(str(tmp_path / "locks" / "a")):
        assert os.listdir(tmp_path / "locks") == ["a"]
        assert not locks.is_free(str(tmp_path / "locks" / "a"))
    assert os.listdir(tmp_path / "locks") == []
    assert locks.is_free(str(tmp_path / "locks" / "a"))


def test_threads_and_processes_are_never_two_inside(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(20):
            with locks.hold(str(tmp_path / "lock")):
                counter.write_text(str(int(counter.read_text()) + 1))

    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                count()
            finally:
                os._exit(0)
        children.append(child)
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child in children:
        os.waitpid(child, 0)
    assert counter.read_text() == "160"


def test_a_killed_holder_frees_its_lock_and_the_waiter_is_told_once(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    child = holding_child(path)
    told: list[str] = []
    threading.Timer(0.1, os.kill, (child, signal.SIGKILL)).start()
    with locks.hold(path, waiting=lambda: told.append("waiting")):
        assert told == ["waiting"]
    os.waitpid(child, 0)
    assert not os.path.exists(path)


def test_cancelling_ends_the_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    child = holding_child(path)
    started = time.monotonic()
    try:
        with pytest.raises(Cancelled), locks.hold(path, cancelled=lambda: time.monotonic() > started + 0.05):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with locks.hold(path):  # the lock file of the killed one is used again
        pass


def test_a_forked_child_does_not_keep_a_lock_that_was_given_up(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locks.hold(path):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with locks.hold(path, cancelled=lambda: True):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_asking_makes_no_file(tmp_path: Path) -> None:
    assert locks.is_free(str(tmp_path / "none"))
    assert os.listdir(tmp_path) == []


def holding_child(path: str) -> int:
    """A child that has the lock and sleeps."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with locks.hold(path):
                os.write(write_end, b"x")
                time.sleep(60)
        finally:
            os._exit(0)
    os.close(write_end)
    os.read(read_end, 1)
    os.close(read_end)
    return child
