"""A worker with the tasks of `tests.runtime.tasks`, a root file system with busybox, and what the machine shows of their processes and mounts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerwright.runtime.runtimes import KNOWN, Runtime, find_runtimes
from layerwright.runtime.worker import Worker
from tests.runtime.tasks import start_worker
from tests.support.machine import search_path


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    with start_worker() as started:
        yield started


@pytest.fixture(scope="session")
def runtimes() -> tuple[Runtime, ...]:
    return find_runtimes(None, path=search_path())


@pytest.fixture(params=KNOWN)
def each_runtime(request: pytest.FixtureRequest, runtimes: tuple[Runtime, ...]) -> tuple[Runtime, ...]:
    """Each of the runtimes this machine has, alone."""
    if not (found := tuple(runtime for runtime in runtimes if runtime.kind == request.param)):
        pytest.skip(f"{request.param} is not installed")
    return found


@pytest.fixture(scope="session")
def busybox_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer with nothing but busybox; tests do not write to it."""
    if (busybox := shutil.which("busybox")) is None:
        pytest.skip("needs busybox: apt-get install busybox-static")
    tree = tmp_path_factory.mktemp("busybox")
    tree.chmod(0o755)
    (tree / "bin").mkdir()
    shutil.copy(busybox, tree / "bin/busybox")
    for name in "cat dd env false grep hostname id ip ls mkdir mknod pwd rm sh sleep stty tr true yes".split():
        (tree / "bin" / name).symlink_to("busybox")
    return tree


@pytest.fixture
def root(busybox_tree: Path, tmp_path: Path) -> Path:
    """A root file system of the test's own."""
    return Path(shutil.copytree(busybox_tree, tmp_path / "root", symlinks=True))


def traces(of: str) -> list[str]:
    """Every process that has the text `of` in its command line, and every mount namespace of a living process that has it in its mounts."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "mountinfo"):
            try:
                if int(pid) != os.getpid() and of.encode() in Path("/proc", pid, name).read_bytes():
                    found.append(f"{pid} {name}")
            except OSError:
                continue  # it ended meanwhile
    return found


def wait_until(holds: Callable[[], object], *, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
