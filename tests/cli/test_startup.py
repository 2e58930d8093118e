"""The path of a build with nothing to do loads little: this is what most builds in CI are."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.project import Project

NEVER = (
    "asyncio",
    "backports",
    "importlib.metadata",
    "isal",
    "logging",
    "multiprocessing",
    "rich",
    "sqlite3",
    "ssl",
    "tarfile",
    "urllib3",
    "yaml",
    "zstd",
    "zstandard",
)
THIRD_PARTY = {"click"}
TRIED_ONLY = {"org"}  # by `copy`, which looks for Jython
# Files that an installation runs at every start of Python, whatever the program: none of ours.
OF_THE_INSTALLATION = re.compile(r"_distutils_hack|sitecustomize|usercustomize|_?__editable__.*|_virtualenv|zzz_.*")


@pytest.fixture
def built(lw: CommandLine, project: Project, base_images: BaseImages) -> CommandLine:
    project.write("hello", "hello\n")
    project.werf(f"image: app\nfrom: {base_images.busybox}\ngit: [{{add: /hello, to: /hello}}]\nimageSpec: {{config: {{env: {{A: b}}}}}}\n")
    project.commit()
    lw("build")
    return lw


def loaded(lw: CommandLine, *arguments: str) -> set[str]:
    """The modules that a run of the command line imports."""
    argv = (sys.executable, "-X", "importtime", "-m", "layerwright", *arguments)
    done = subprocess.run(argv, cwd=lw.directory, env=lw.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_a_build_with_nothing_to_do_loads_no_heavy_module(built: CommandLine) -> None:
    modules = loaded(built, "build", "-q")
    assert "layerwright.build.memo" in modules
    assert sorted(name for name in modules if any(name == heavy or name.startswith(f"{heavy}.") for heavy in NEVER)) == []
    planning = (
        "layerwright.config.load",
        "layerwright.build.run",
        "layerwright.build.cabinet",
        "layerwright.layers",
        "layerwright.registry",
        "layerwright.runtime.",
        "layerwright.stages",
    )
    whose_trees = {"layerwright.runtime.flavours", "layerwright.runtime.subids"}  # root's, or those of which map of ids: that decides what is in the store
    assert sorted(name for name in modules - whose_trees if name.startswith(planning)) == []


def test_click_is_the_only_package_of_others_that_it_loads(built: CommandLine) -> None:
    tops = {name.partition(".")[0] for name in loaded(built, "build", "-q")}
    others = {name for name in tops if name not in sys.stdlib_module_names and name != "layerwright" and not OF_THE_INSTALLATION.fullmatch(name)}
    others -= loaded_by_python_itself() | TRIED_ONLY
    assert {name for name in others if not name.startswith("_")} <= THIRD_PARTY


def loaded_by_python_itself() -> set[str]:
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", ""], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("arguments", [("version",), ("--help",)])
def test_what_needs_no_project_opens_none(built: CommandLine, arguments: tuple[str, ...]) -> None:
    heavy = {"yaml", "urllib3", "rich", "ssl"}
    assert not heavy & loaded(built, *arguments)


def test_importing_the_library_costs_next_to_nothing(built: CommandLine) -> None:
    code = "import sys; before = set(sys.modules); import layerwright; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], env=built.environment(), capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name.startswith("layerwright")] == ["layerwright"]
