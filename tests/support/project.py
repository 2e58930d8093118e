"""A real git repository for a test to fill."""

from __future__ import annotations

import os
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

FIRST_COMMIT_S = 1_700_000_000
BETWEEN_COMMITS_S = 60


@dataclass(slots=True)
class Project:
    """A work tree with its repository. Commit times start at FIRST_COMMIT_S and go on by a minute, so that equal steps give equal commits."""

    path: Path
    commits: int = 0

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.git("-c", "init.defaultBranch=main", "init", "--quiet")

    def git(self, *arguments: str) -> str:
        """Run git in the work tree and return what it printed, without the last newline."""
        time = f"{FIRST_COMMIT_S + self.commits * BETWEEN_COMMITS_S} +0000"
        env = {
            "GIT_AUTHOR_DATE": time,
            "GIT_AUTHOR_EMAIL": "test@example.com",
            "GIT_AUTHOR_NAME": "test",
            "GIT_COMMITTER_DATE": time,
            "GIT_COMMITTER_EMAIL": "test@example.com",
            "GIT_COMMITTER_NAME": "test",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
        }
        argv = ("git", "-c", "protocol.file.allow=always", *arguments)
        done = subprocess.run(argv, cwd=self.path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
        return done.stdout.removesuffix("\n")

    def write(self, path: str, content: str | bytes = "", *, executable: bool = False) -> Path:
        """Write one file; text is dedented and loses its first empty line. Returns its path on disk."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).removeprefix("\n").encode())
        target.chmod(0o755 if executable else 0o644)
        return target

    def link(self, path: str, target: str) -> None:
        """Make a symlink; an older file of that name is replaced."""
        place = self.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(target)

    def remove(self, path: str) -> None:
        self.git("rm", "-r", "--quiet", "--force", "--", path)

    def werf(self, images: str, *, project: str = "test") -> None:
        """Write werf.yaml: the meta section, and below it the image sections as given."""
        self.write("werf.yaml", f"configVersion: 1\nproject: {project}\n---\n{textwrap.dedent(images).removeprefix(chr(10))}")

    def commit(self, message: str = "change") -> str:
        """Commit everything in the work tree, even if nothing changed; returns the commit id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        self.commits += 1
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")
