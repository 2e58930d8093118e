"""The program of a worker for the tests: a few tasks that show what a call can do and see, and one that runs a container."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwright.errors import MachineLacks, UsageError
from layerwright.runtime import rootfs, runner, syscalls
from layerwright.runtime.bundle import Container
from layerwright.runtime.runtimes import Runtime
from layerwright.runtime.serve import Caller, Task
from layerwright.runtime.worker import Worker

SOURCES = Path(__file__).parents[2]


class Peculiar(UsageError):
    """An error with a constructor of its own, and a field that cannot be pickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}", where="here", mend="take three")
        self.second = second
        self.unsendable = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Run `commands` (or the container's own arguments, if None) and count or send what it prints."""

    container: Container
    runtimes: tuple[Runtime, ...]
    commands: tuple[str, ...] | None = None
    shell: str = "/bin/sh"
    overlay: rootfs.Overlay | None = None
    state: str = ""


def start_worker() -> Worker:
    program = "from tests.runtime.tasks import TASKS; from layerwright.runtime.serve import serve; serve(TASKS)"
    return Worker([sys.executable, "-c", program], {"PYTHONPATH": f"{SOURCES}/src:{SOURCES}", "HOST_SECRET": "of the host"})


def echo(arguments: Any, caller: Caller) -> Any:
    return arguments


def nap(arguments: float, caller: Caller) -> float:
    time.sleep(arguments)
    return arguments


def count(arguments: int, caller: Caller) -> int:
    for number in range(arguments):
        caller(number)
    return arguments


def fail(arguments: str, caller: Caller) -> None:
    match arguments:
        case "lacks":
            raise MachineLacks("no such thing", where="/there", mend="apt-get install thing")
        case "peculiar":
            raise Peculiar(1, 2)
        case "pipe":
            raise BrokenPipeError("a pipe of the task's own")
        case "unpicklable":
            caller(lambda: None)
    raise ValueError("a bug")


def end(arguments: int, caller: Caller) -> None:
    os._exit(arguments)


def look(arguments: object, caller: Caller) -> dict[str, Any]:
    """What a request sees of itself."""
    return {
        "umask": os.umask(0o022),
        "files": len(os.listdir("/proc/self/fd")) - 1,  # without the listing's own
        "pids": [name for name in os.listdir("/proc") if name.isdigit()],
    }


def write_to(arguments: bytes, caller: Caller) -> int:
    return os.write(caller.fds[0], arguments)


def settle(arguments: str, caller: Caller) -> None:
    """Mount a tmpfs at the directory `arguments`, start a process whose command line holds that name and that ignores every signal, and stay."""
    syscalls.mount("tmpfs", arguments, "tmpfs")
    subprocess.Popen(["/bin/sh", "-c", 'trap "" TERM INT HUP; while :; do sleep 1; done', arguments], start_new_session=True)
    caller("settled")
    time.sleep(1000)


def run(arguments: Job, caller: Caller) -> runner.Ended:
    files = (caller.fds[0], caller.fds[1], caller.fds[2]) if caller.fds else None
    with tempfile.TemporaryDirectory(dir=arguments.state or None) as state:
        if arguments.overlay:
            rootfs.mount(arguments.overlay)
        try:
            if arguments.commands is None:
                return runner.run(arguments.container, runtimes=arguments.runtimes, state_dir=state, on_lines=caller, files=files)
            return runner.run_script(
                arguments.container, arguments.commands, arguments.shell, runtimes=arguments.runtimes, state_dir=state, on_lines=caller, files=files
            )
        finally:
            if arguments.overlay:
                syscalls.unmount(arguments.overlay.target, detach=True)


def stack(arguments: rootfs.Overlay, caller: Caller) -> list[str]:
    """Mount, write a file if it can be written, and list what is there."""
    with rootfs.mounted(arguments) as root:
        try:
            Path(root, "written").write_text("here")
        except OSError:
            pass
        return sorted(os.listdir(root))


def stack_twice(arguments: rootfs.Overlay, caller: Caller) -> None:
    """Try an overlay whose upper lies on an overlay."""
    with rootfs.mounted(arguments) as root:
        for name in ("upper", "work", "target"):
            os.mkdir(os.path.join(root, name))
        rootfs.mount(rootfs.Overlay(lower=arguments.lower, upper=f"{root}/upper", work=f"{root}/work", target=f"{root}/target"))


TASKS: Mapping[str, Task] = {task.__name__: task for task in (echo, nap, count, fail, end, look, write_to, settle, run, stack, stack_twice)}
