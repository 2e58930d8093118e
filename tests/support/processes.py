"""Processes of the command line that run while a test does something else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.commandline import CommandLine

WAIT_S = 30.0


def start(lw: CommandLine, *arguments: str, env: Mapping[str, str] | None = None, **settings: Any) -> subprocess.Popen[bytes]:
    """Start `layerwright ARGUMENTS`; what it prints goes nowhere unless `settings` of Popen say otherwise."""
    argv = (*lw.prefix, sys.executable, "-m", "layerwright", *arguments)
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(argv, cwd=lw.directory, env={**lw.environment(), **(env or {})}, **(quiet | settings))


def await_that(happened: Callable[[], object]) -> None:
    """Fails the test unless it happens soon."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
