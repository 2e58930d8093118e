"""Runs the command line as a user does: another process, a clean environment, a store of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.machine import search_path

SOURCES = Path(__file__).parent.parent.parent / "src"
TIMEOUT_S = 240


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run left: `stdout` and `stderr` as text, undecodable bytes replaced."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"{' '.join(self.argv)} ended with {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """Calls `layerwright`. `home` is the store (LAYERWRIGHT_HOME); `more` is set on top of the clean environment; `prefix` comes before the command."""

    home: Path
    user_home: Path
    directory: Path
    more: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def __call__(self, *arguments: str, code: int | None = 0, directory: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        """Run `layerwright ARGUMENTS`; fails the test when it ends with another exit code than `code` (None: any)."""
        argv = (sys.executable, "-m", "layerwright", *arguments)
        done = subprocess.run(
            (*self.prefix, *argv),
            cwd=directory or self.directory,
            env={**self.environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        ran = Ran(("layerwright", *arguments), done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        assert code is None or ran.code == code, f"expected exit code {code}: {ran}"
        return ran

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's but where programs and Python's modules are, and where compiled modules go."""
        return {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(self.user_home),
            "LAYERWRIGHT_HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "PATH": search_path(),
            "PYTHONPATH": str(SOURCES),
            **{name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ},
            **self.more,
        }

    def with_home(self, home: Path) -> CommandLine:
        """The same with another store: what another machine would see."""
        return CommandLine(home=home, user_home=self.user_home, directory=self.directory, more=self.more, prefix=self.prefix)
