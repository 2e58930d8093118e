from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from layerwright.errors import Cancelled, LayerwrightError, MachineLacks
from layerwright.runtime import runner
from layerwright.runtime.bundle import Bind, Container
from layerwright.runtime.rootfs import Overlay
from layerwright.runtime.runner import Ended, ProgramNotStarted
from layerwright.runtime.runtimes import Runtime, find_runtimes
from layerwright.runtime.script import Failed
from layerwright.runtime.worker import Worker
from tests.runtime.conftest import traces, wait_until
from tests.runtime.tasks import SOURCES, Job
from tests.support.machine import search_path

pytestmark = pytest.mark.needs_runtime
ENV = {"PATH": "/bin"}


class Runs:
    """Runs containers on one root in the worker."""

    def __init__(self, worker: Worker, runtimes: tuple[Runtime, ...], root: Path) -> None:
        self.worker = worker
        self.runtimes = runtimes
        self.root = root

    def container(self, **fields: Any) -> Container:
        return Container(**{"root": str(self.root), "args": (), "env": ENV, **fields})

    def script(self, *commands: str, overlay: Overlay | None = None, **fields: Any) -> tuple[Ended, list[str]]:
        """How a script ended, and the lines it printed."""
        lines: list[str] = []

        def take(some: Sequence[bytes]) -> None:
            lines.extend(line.decode() for line in some)

        job = Job(container=self.container(**fields), runtimes=self.runtimes, commands=commands, overlay=overlay)
        return self.worker.call("run", job, on_event=take), lines

    def lines(self, *commands: str, overlay: Overlay | None = None, **fields: Any) -> list[str]:
        ended, lines = self.script(*commands, overlay=overlay, **fields)
        assert ended.status == 0, lines
        return lines


@pytest.fixture
def runs(worker: Worker, each_runtime: tuple[Runtime, ...], root: Path) -> Runs:
    return Runs(worker, each_runtime, root)


def test_output_comes_in_the_order_written(runs: Runs) -> None:
    assert runs.lines("for i in 1 2 3; do echo out $i; echo err $i >&2; done", "printf 'no end'") == [
        *(f"{where} {number}" for number in (1, 2, 3) for where in ("out", "err")),
        "no end",
    ]


def test_output_comes_as_it_is_written(runs: Runs) -> None:
    came: list[float] = []
    job = Job(container=runs.container(), runtimes=runs.runtimes, commands=("echo first", "sleep 0.7", "echo second"))
    runs.worker.call("run", job, on_event=lambda lines: came.append(time.monotonic()))
    assert came[1] - came[0] > 0.5


@pytest.mark.parametrize(
    ("commands", "status", "failed"),
    [
        (("true", "exit 3"), 3, Failed(command=1, line=1)),
        (("true", "true\nfalse", "echo no"), 1, Failed(command=1, line=2)),
        (("sh -c 'kill -9 $$'",), 137, Failed(command=0, line=1)),
        (("kill -TERM $$; exit 4",), 4, Failed(command=0, line=1)),
        (("yes | head -n 1 >/dev/null",), 0, None),
    ],
)
def test_the_exit_status_and_the_failing_command_are_told(runs: Runs, commands: tuple[str, ...], status: int, failed: Failed | None) -> None:
    ended, lines = runs.script(*commands)
    assert (ended.status, ended.failed) == (status, failed), lines
    assert ended.runtime in runs.runtimes


def test_ten_megabytes_come_whole(runs: Runs) -> None:
    seen = 0

    def take(lines: Sequence[bytes]) -> None:
        nonlocal seen
        seen += sum(len(line) + 1 for line in lines)

    job = Job(container=runs.container(), runtimes=runs.runtimes, commands=("yes 0123456789 | head -n 953251",))
    assert runs.worker.call("run", job, on_event=take).status == 0
    assert seen == 953251 * 11


def test_nothing_of_the_hosts_environment_leaks_in(runs: Runs) -> None:
    os.environ["LEAK_OF_THE_HOST"] = "1"
    try:
        printed = runs.lines("env", env={"PATH": "/bin", "HOME": "/root", "GIVEN": "a b=c"})
    finally:
        del os.environ["LEAK_OF_THE_HOST"]
    own = {"PWD=/", "SHLVL=1"}  # the shell's
    assert set(printed) - own == {"PATH=/bin", "HOME=/root", "GIVEN=a b=c"}


def test_the_container_is_root_at_its_root_with_no_signal_ignored(runs: Runs) -> None:
    printed = runs.lines("id -u", "id -g", "pwd", "hostname", "umask", "grep SigIgn /proc/self/status", "cat", "ls /proc/self/fd | tr '\\n' ' '")
    assert printed[:5] == ["0", "0", "/", "layerwright", "0022"]
    assert int(printed[5].split()[1], 16) & ((1 << 31) - 1) == 0
    assert printed[6].split()[:3] == ["0", "1", "2"]


def test_what_the_host_has_is_out_of_reach(runs: Runs) -> None:
    printed = runs.lines(
        "mknod /null c 1 3 2>/dev/null && echo node || echo no node",
        "mkdir -p /m; ! busybox mount -t tmpfs none /m 2>/dev/null && echo no mount",
        "! echo 1 2>/dev/null >/proc/sys/kernel/hostname && echo no sysctl",
        "! busybox unshare -U true 2>/dev/null && echo no user namespace",
        "set -- /proc/[0-9]*; echo $#",
        "cat /proc/keys",
    )
    assert printed == ["no node", "no mount", "no sysctl", "no user namespace", "1"]


def test_without_network_there_is_only_loopback(runs: Runs) -> None:
    assert [line.split(":")[1].strip() for line in runs.lines("ip -o link", network="none")] == ["lo"]
    assert runs.lines("cat /etc/resolv.conf", network="none") == []


def test_with_the_hosts_network_names_resolve_as_on_the_host(runs: Runs) -> None:
    expected = [line.rstrip() for line in Path("/etc/resolv.conf").read_text().splitlines()]
    assert [line.rstrip() for line in runs.lines("cat /etc/resolv.conf")] == expected
    assert "127.0.0.1 layerwright" in runs.lines("cat /etc/hosts")


def test_binds_are_seen_and_read_only_ones_not_written(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "secret").write_text("word")
    binds = (Bind(source=str(tmp_path / "cache"), to="/var/cache/x"), Bind(source=str(tmp_path / "secret"), to="/run/secrets/s", read_only=True))
    printed = runs.lines("cat /run/secrets/s; echo", "echo kept >/var/cache/x/file", "echo x 2>/dev/null >/run/secrets/s || echo read-only", binds=binds)
    assert printed == ["word", "read-only"]
    assert (tmp_path / "cache/file").read_text() == "kept\n"
    assert sorted(os.listdir(runs.root)) == ["bin"]


def test_a_bind_of_nothing_is_an_error_that_names_it(runs: Runs) -> None:
    with pytest.raises(LayerwrightError, match="/no/such/source"):
        runs.script("true", binds=(Bind(source="/no/such/source", to="/x"),))


def test_a_read_only_root_is_not_written(runs: Runs) -> None:
    assert runs.script("echo x 2>/dev/null >/file", read_only=True)[0].status != 0


def test_a_user_other_than_root_has_no_capabilities(runs: Runs) -> None:
    printed = runs.lines("id", "grep CapEff /proc/self/status", uid=7, gid=8, groups=(9,), cwd="/bin")
    assert printed[0] == "uid=7 gid=8 groups=9"
    assert int(printed[1].split()[1], 16) == 0


def test_a_program_the_image_lacks_is_named(runs: Runs) -> None:
    with pytest.raises(ProgramNotStarted, match="/bin/nothing"):
        runs.worker.call("run", Job(container=runs.container(args=("/bin/nothing",)), runtimes=runs.runtimes))


def test_a_layer_holds_what_was_written_and_no_mount_point(runs: Runs, busybox_tree: Path, tmp_path: Path) -> None:
    trees = [tmp_path / f"layer-{number}" for number in range(200)]
    for number, tree in enumerate(trees):
        tree.mkdir()
        (tree / f"of-{number}").touch()
    stacked = _overlay(tmp_path, *trees, busybox_tree)
    ended, lines = runs.script("ls / | grep -c of-", "echo x >/new", "rm /of-7", overlay=stacked, root=stacked.target)
    assert (ended.status, lines) == (0, ["200"])
    assert b"etc/hosts" in ended.mount_points
    assert sorted(os.listdir(stacked.upper)) == ["new", "of-7"]
    assert os.listdir(stacked.target) == []


def test_a_build_leaves_no_cgroup(runs: Runs) -> None:
    before = _cgroups()
    assert runs.script("echo x")[0].status == 0
    assert _cgroups() == before


def _cgroups() -> set[str]:
    return {path for path, _, _ in os.walk("/sys/fs/cgroup") if "layerwright" in path}


def test_twenty_containers_run_at_once(runs: Runs, busybox_tree: Path, tmp_path: Path) -> None:
    def run_one(number: int) -> list[str]:
        stacked = _overlay(tmp_path / str(number), busybox_tree)
        return runs.lines("sleep 0.5", f"echo {number}", overlay=stacked, root=stacked.target)

    started = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(run_one, range(20))) == [[str(number)] for number in range(20)]
    assert time.monotonic() - started < 10  # the sleeps alone take as long one after another


def _overlay(directory: Path, *lower: Path) -> Overlay:
    for name in ("upper", "work", "target"):
        (directory / name).mkdir(parents=True)
    return Overlay(lower=tuple(map(str, lower)), upper=f"{directory}/upper", work=f"{directory}/work", target=f"{directory}/target")


def test_a_cancelled_container_is_gone_at_once(runs: Runs) -> None:
    cancel = threading.Event()
    job = Job(container=runs.container(), runtimes=runs.runtimes, commands=("trap '' TERM INT", f": {runs.root}", "echo up", "sleep 100"))
    started = time.monotonic()
    with pytest.raises(Cancelled):
        runs.worker.call("run", job, on_event=lambda _: cancel.set(), cancel=cancel)
    assert time.monotonic() - started < 10
    assert traces(str(runs.root)) == []


def test_the_next_runtime_is_tried_where_the_first_refuses(worker: Worker, runtimes: tuple[Runtime, ...], root: Path, tmp_path: Path) -> None:
    refuses = _stand_in(tmp_path, 'echo \'level=error msg="it does \\"not\\" work"\' >&2; exit 1')
    ended, lines = Runs(worker, (refuses, *runtimes), root).script("echo ran")
    assert lines == ["ran"]
    assert ended.runtime == runtimes[0]
    assert [refusal.said for refusal in ended.refusals] == ['it does "not" work']
    with pytest.raises(MachineLacks, match='it does "not" work'):
        Runs(worker, (refuses,), root).script("echo ran")


def test_a_runtime_that_cannot_be_executed_refuses(worker: Worker, root: Path, tmp_path: Path) -> None:
    broken = _stand_in(tmp_path, "")
    Path(broken.path).write_bytes(b"\x7fELF")
    with pytest.raises(MachineLacks, match="it cannot be executed"):
        Runs(worker, (broken,), root).script("true")


def test_another_runtime_is_waited_for_itself(worker: Worker, root: Path, tmp_path: Path) -> None:
    other = _stand_in(tmp_path, "echo printed; exit 5", name="runsc")
    ended, lines = Runs(worker, (other,), root).script("true")
    assert (ended.status, lines) == (5, ["printed"])


def _stand_in(directory: Path, text: str, name: str = "crun") -> Runtime:
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)
    return find_runtimes(str(directory / name), path="")[0]


def test_a_container_can_have_the_callers_files(runs: Runs, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"given")
    os.close(writer)
    with (tmp_path / "out").open("wb") as out, os.fdopen(reader, "rb") as source:
        job = Job(container=runs.container(args=("/bin/cat",)), runtimes=runs.runtimes)
        assert runs.worker.call("run", job, fds=[source.fileno(), out.fileno(), out.fileno()]).status == 0
    assert (tmp_path / "out").read_bytes() == b"given"


def test_a_terminal_brings_the_interrupt_key_and_its_size_to_the_container(runs: Runs) -> None:
    ours, theirs = pty.openpty()
    container = runs.container(
        args=("/bin/sh", "-c", "trap 'echo interrupted; exit 42' INT; stty size; echo ready; while :; do sleep 0.1; done"), terminal=True
    )
    try:
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(runs.worker.call, "run", Job(container=container, runtimes=runs.runtimes), fds=[theirs] * 3)
            _read_until(ours, b"ready")
            os.write(ours, b"\x03")
            _read_until(ours, b"interrupted")
            assert call.result(20).status == 42
    finally:
        os.close(ours)
        os.close(theirs)


def _read_until(fd: int, text: bytes) -> None:
    seen, end = b"", time.monotonic() + 20
    while text not in seen:
        assert select.select([fd], [], [], max(0, end - time.monotonic()))[0], seen
        seen += os.read(fd, 1000)


_CLIENT = """
import sys
from pathlib import Path
from layerwright.runtime.bundle import Container
from layerwright.runtime.rootfs import Overlay
from layerwright.runtime.runtimes import find_runtimes
from tests.runtime.tasks import Job, start_worker
directory, tree, path = sys.argv[1:]
stacked = Overlay(lower=(tree,), upper=f"{directory}/upper", work=f"{directory}/work", target=f"{directory}/target")
container = Container(root=stacked.target, args=(), env={"PATH": "/bin"})
commands = (f"sh -c 'trap \\"\\" TERM INT; echo up; while :; do sleep 1; done' {directory}",)
job = Job(container=container, runtimes=find_runtimes(None, path=path), commands=commands, overlay=stacked, state=directory)
start_worker().call("run", job, on_event=lambda _: print("up", flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_main_process_that_ends_leaves_no_container_and_no_mount(busybox_tree: Path, tmp_path: Path, how: signal.Signals) -> None:
    _overlay(tmp_path)
    env = {"PYTHONPATH": f"{SOURCES}/src:{SOURCES}"}
    argv = [sys.executable, "-c", _CLIENT, str(tmp_path), str(busybox_tree), search_path()]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            wait_until(lambda: len(traces(str(tmp_path))) > 2)
            client.send_signal(how)
            client.wait(20)
            wait_until(lambda: traces(str(tmp_path)) == [])
        finally:
            client.kill()
    assert os.listdir(tmp_path / "target") == []
    assert not _cgroups()


def test_what_a_script_exports_is_remembered_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "exports").write_bytes(b"export A='" + b"x" * (1 << 20))
    assert runner._text_left(str(tmp_path), "exports") == ""
    (tmp_path / "exports").write_bytes(b"export A='x'\n")
    assert runner._text_left(str(tmp_path), "exports") == "export A='x'\n"
