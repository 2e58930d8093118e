"""The demo and its surroundings, as far as they can be checked cheaply: `make demo` does the rest."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.commandline import CommandLine
from tests.support.project import Project

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("script", sorted(ROOT.glob("tools/*.sh")), ids=lambda path: path.name)
def test_shell_scripts_are_well_formed_and_executable(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()


def test_the_makefile_has_the_promised_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = {"demo", "test", "test-fast", "lint", "setup", "clean"}
    assert targets <= set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert "tools/demo.sh" in text
    if make := shutil.which("make"):
        shown = subprocess.run([make, "-s", "-C", ROOT, "help"], check=True, capture_output=True, text=True).stdout
        assert targets <= set(re.findall(r"^make (\S+)", shown, re.MULTILINE))


def test_the_readme_shows_what_the_command_line_has(lw: CommandLine) -> None:
    readme = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^ *(?:\$ )?(?:sudo )?layerwright ([a-z]+)", readme, re.MULTILINE))
    assert {"build", "run"} <= commands
    known = set(re.findall(r"^  ([a-z]+)  ", lw("--help").stdout, re.MULTILINE))
    assert commands <= known
    assert "make demo" in readme


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_the_example_is_built_once_runs_and_follows_a_change(lw: CommandLine, project: Project, debian: str) -> None:
    shutil.copytree(ROOT / "examples/hello", project.path, dirs_exist_ok=True)
    config = (project.path / "werf.yaml").read_text()
    assert config.count("from: debian:12-slim") == 2
    project.write("werf.yaml", config.replace("debian:12-slim", debian))
    project.commit()
    built = lw("build")
    assert "Building stage app/install" in built.stdout
    assert built.stderr == ""  # it shows what nobody is warned of
    name = lw("stage", "image", "app").stdout
    again = lw("build").stdout
    assert "Building" not in again
    assert "Use previously built image for builder/setup" in again
    assert lw("stage", "image", "app").stdout == name
    listed = lw("run", "-q", "app").stdout
    assert re.search(r"^index +Hello$", listed, re.MULTILINE)
    assert "It was rendered in the image" in lw("run", "-q", "app", "--", "show", "index").stdout
    assert "2 pages are as they were built, and 5 words are known" in lw("run", "-q", "app", "--", "check").stdout
    project.write("app/bin/site", (project.path / "app/bin/site").read_text().replace("as they were built", "just as they were built"), executable=True)
    project.commit()
    changed = lw("build").stdout
    assert re.findall(r"^Building stage (\S+)", changed, re.MULTILINE) == ["app/gitLatestPatch", "app/imageSpec"]
    assert "just as they were built" in lw("run", "-q", "app", "--", "check").stdout
