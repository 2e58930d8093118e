"""Real repositories for the tests of this room, submodules and clones included."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.project import Project

ENV = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


@dataclass
class Repositories:
    """Makes repositories below one directory."""

    directory: Path
    git_program: str = field(default_factory=lambda: shutil.which("git") or "git")

    def new(self, name: str = "project") -> Project:
        return Project(self.directory / name)

    def sha256(self, name: str = "sha256") -> Project:
        self.run("init", "--quiet", "--object-format=sha256", "-b", "main", str(self.directory / name))
        return Project(self.directory / name)

    def run(self, *words: str) -> str:
        """git outside of any of the repositories."""
        argv = [self.git_program, "-c", "protocol.file.allow=always", *words]
        return subprocess.run(argv, cwd=self.directory, env=ENV, check=True, capture_output=True, text=True).stdout

    def clone(self, source: Project, name: str, *options: str) -> Project:
        self.run("clone", "--quiet", *options, f"file://{source.path}", str(self.directory / name))
        return Project(self.directory / name)

    def with_nested_submodule(self) -> tuple[Project, Project, Project]:
        """A project with a submodule `lib` (which the name in .gitmodules is too) that has one at `deep`; both initialised."""
        nested = self.new("nested")
        nested.write("file.txt", "nested one")
        nested.commit()
        library = self.new("library")
        library.write("file.txt", "library one")
        library.git("submodule", "--quiet", "add", f"file://{nested.path}", "deep")
        library.commit()
        project = self.new()
        project.write("lib.txt", "beside")
        project.write("lib-x/file", "beside")
        project.git("submodule", "--quiet", "add", f"file://{library.path}", "lib")
        project.git("submodule", "--quiet", "update", "--init", "--recursive")
        project.commit()
        return project, library, nested
