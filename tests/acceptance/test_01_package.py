"""The package as others meet it: a command, a module, a typed library, a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import SOURCES, CommandLine
from tests.support.project import Project

ROOT = SOURCES.parent

PROGRAM = """
import sys

import layerwright
from layerwright.build.events import Event, StageBuilt, StageReused


def tell(event: Event) -> None:
    if isinstance(event, StageBuilt | StageReused):
        print(type(event).__name__, event.image, event.stage)


def show(plan: layerwright.BuildPlan) -> None:
    print("plan", plan.is_built)
    for image in plan.images:
        print("image", image.name, len(image.content_digest), image.is_built)
        for stage in image.stages:
            match stage:
                case layerwright.Reuse(record=record):
                    print("reuse", image.name, stage.stage, len(record.digest))
                case layerwright.Build(reason=reason):
                    print("build", image.name, stage.stage, reason)
                case layerwright.Unknown(reason=reason):
                    print("unknown", image.name, stage.stage, reason)


def main(directory: str) -> None:
    with layerwright.open_project(directory) as project:
        show(project.plan())
        result: layerwright.BuildResult = project.build(["app"], on_event=tell)
        app: layerwright.BuiltImage = result.image("app")
        print("built", app.rebuilt, app.content_digest == project.plan().image("app").content_digest, app.local_name)
        show(project.plan(["app"]))
    try:
        layerwright.open_project("/nowhere")
    except layerwright.UsageError as error:
        print("error", bool(error.what), bool(error.mend), error.exit_code)


main(sys.argv[1])
"""

WRONG = """
import layerwright

with layerwright.open_project(".", no_such_choice=1) as project:
    number: int = project.plan().images[0].name
    project.build(on_event=len)
    project.run(project.build().images[0], userr="x")
"""


def images(base: str, *, command: str) -> str:
    return f"""
        image: base
        final: false
        from: {base}
        shell:
          beforeInstall: ["{command}"]
        ---
        image: app
        fromImage: base
        git:
          - add: /src
            to: /src
            stageDependencies: {{setup: "*.list"}}
        import:
          - image: base
            add: /made
            to: /taken
            before: setup
        shell:
          setup: ["cat /src/a.list >/listed"]
        imageSpec:
          config: {{env: {{A: b}}}}
        """


@pytest.fixture
def filled(project: Project, base_images: BaseImages) -> Project:
    project.write("src/a.list", "a\n")
    project.write("src/code", "one\n")
    project.werf(images(base_images.busybox, command="echo made >/made"))
    project.commit()
    return project


def run_program(lw: CommandLine, program: Path, *arguments: str) -> str:
    argv = (sys.executable, program, *arguments)
    done = subprocess.run(argv, cwd=program.parent, env=lw.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def plan_of(lw: CommandLine, directory: Path, tmp_path: Path) -> list[str]:
    """What a plan says, as lines."""
    program = tmp_path / "plan.py"
    program.write_text(PROGRAM.partition("def main")[0] + "with layerwright.open_project(sys.argv[1]) as project:\n    show(project.plan())\n")
    return run_program(lw, program, str(directory)).splitlines()


def test_the_command_the_module_and_the_library_agree_on_the_version(lw: CommandLine) -> None:
    import layerwright

    assert lw("version").stdout == f"{layerwright.__version__}\n"


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_a_project_is_planned_built_and_read_by_a_program(lw: CommandLine, filled: Project, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    printed = run_program(lw, program, str(filled.path)).splitlines()
    first = printed.index("StageBuilt base from")
    assert printed[:first] == [
        "plan False",
        "image base 56 False",
        printed[2],
        "unknown base beforeInstall unknown until from is built",
        "image app 56 False",
        *(f"unknown app {stage} unknown until image base is built" for stage in ("from", "gitArchive", "dependenciesBeforeSetup", "setup", "imageSpec")),
    ]
    assert printed[2].startswith("build base from no stage ")
    name = lw("stage", "image", "app").stdout.strip()
    assert f"built True True {name}" in printed
    assert printed[-1] == "error True True 2"
    assert not [line for line in printed[printed.index(f"built True True {name}") :] if line.startswith(("build ", "unknown "))]
    assert "plan True" in printed


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_a_plan_says_what_the_next_build_then_does(lw: CommandLine, filled: Project, base_images: BaseImages, tmp_path: Path) -> None:
    store = lw.home
    assert plan_of(lw, filled.path, tmp_path)[0] == "plan False"
    assert not store.exists(), "a plan writes nothing"
    lw("build")
    filled.write("src/code", "two\n")
    filled.commit()
    planned = plan_of(lw, filled.path, tmp_path)
    head = filled.git("rev-parse", "HEAD~1")[:12]
    assert [line.split()[:3] for line in planned if line.startswith("reuse app")] == [
        ["reuse", "app", stage] for stage in ("from", "gitArchive", "dependenciesBeforeSetup", "setup")
    ]
    assert f"build app gitLatestPatch src/code changed in git since {head}" in planned
    assert "unknown app imageSpec unknown until gitLatestPatch is built" in planned
    assert "Building stage app/gitLatestPatch" in lw("build").stdout
    filled.write("src/a.list", "b\n")
    filled.commit()
    planned = plan_of(lw, filled.path, tmp_path)
    assert next(line for line in planned if line.startswith(("build app", "unknown app"))).startswith("build app setup no stage ")
    assert not [line for line in planned if "gitLatestPatch" in line]  # setup brings the sources along
    filled.werf(images(base_images.busybox, command="echo other >/made"))
    filled.commit()
    planned = plan_of(lw, filled.path, tmp_path)
    assert any(line.startswith("build base beforeInstall") for line in planned)
    assert "unknown app from unknown until image base is built" in planned


def test_the_library_is_typed(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(PROGRAM)
    wrong.write_text(WRONG)
    assert (SOURCES / "layerwright/py.typed").exists()
    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", f"--cache-dir={ROOT / '.mypy_cache' / 'acceptance'}"]
    env = {**os.environ, "MYPYPATH": str(SOURCES)}
    checked = subprocess.run([*mypy, right, wrong], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "right.py" not in checked.stdout, checked.stdout
    assert [line.split(":")[1] for line in checked.stdout.splitlines() if "wrong.py" in line and "error:" in line] == ["4", "5", "6", "7"]


def test_a_wheel_installs_and_its_command_works(tmp_path: Path, lw: CommandLine) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling: pip install hatchling")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "layerwright/py.typed" in names
    assert not [name for name in names if not name.startswith(("layerwright/", "layerwright-"))]
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    packages = next(place.glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")) + "\n")  # dependencies, without asking a server
    pip = [place / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    env = {name: value for name, value in lw.environment().items() if name != "PYTHONPATH"}
    for argv in ([place / "bin/layerwright", "version"], [place / "bin/python", "-m", "layerwright", "version"]):
        assert subprocess.run(argv, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout == lw("version").stdout
    where = subprocess.run(
        [place / "bin/python", "-c", "import layerwright; print(layerwright.__file__)"], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
    )
    assert str(packages) in where.stdout
