"""Names of images and stages: what they depend on, and what they do not. Seen through the build report."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.base_images import BaseImages
from tests.support.built import Built, build, export
from tests.support.commandline import CommandLine
from tests.support.exported import read_layout
from tests.support.project import Project

DECLARED = """
image: app
from: scratch
git:
- add: /src
  to: /app
  excludePaths: [ignored]
docker:
  LABEL: {kind: plain}
"""


@pytest.fixture
def declared(project: Project) -> Project:
    """A project without commands."""
    project.werf(DECLARED)
    project.write("src/a", "a\n")
    project.write("src/b/c", "c\n")
    project.write("src/ignored", "i\n")
    project.write("README", "r\n")
    project.commit()
    return project


CHANGES: dict[str, Callable[[Project], object]] = {
    "a file's content": lambda project: project.write("src/a", "other\n"),
    "a file's mode": lambda project: project.write("src/a", "a\n", executable=True),
    "a file's name": lambda project: project.git("mv", "src/a", "src/d"),
    "a file that is new": lambda project: project.write("src/n", ""),
    "a file that is gone": lambda project: project.remove("src/a"),
    "a symlink instead of a file": lambda project: project.link("src/a", "b/c"),
    "a label": lambda project: project.werf(DECLARED.replace("plain", "other")),
    "the place": lambda project: project.werf(DECLARED.replace("to: /app", "to: /opt")),
    "a filter": lambda project: project.werf(DECLARED.replace("[ignored]", "[ignored, b]")),
    "an owner": lambda project: project.werf(DECLARED.replace("to: /app", "to: /app\n  owner: 5")),
    "a cache version": lambda project: project.werf(DECLARED.replace("from: scratch", "from: scratch\nfromCacheVersion: 2")),
    "a variable": lambda project: project.werf(DECLARED + "  ENV: {A: b}\n"),
}
NO_CHANGES: dict[str, Callable[[Project], object]] = {
    "nothing but a commit": lambda project: None,
    "a file outside of the mapping": lambda project: project.write("README", "other\n"),
    "a file that is excluded": lambda project: project.write("src/ignored", "other\n"),
    "a comment": lambda project: project.werf("# a comment\n" + DECLARED),
    "the project's name": lambda project: project.werf(DECLARED, project="renamed"),
    "the order of keys": lambda project: project.werf(DECLARED.replace("- add: /src\n  to: /app", "- to: /app\n  add: /src")),
}


def test_every_declared_input_names_another_image_and_nothing_else_does(declared: Project, lw: CommandLine) -> None:
    first, start = build(lw).content(), declared.head()
    assert re.fullmatch("[0-9a-f]{56}", first)
    found = {}
    for name, change in {**CHANGES, **NO_CHANGES}.items():
        declared.git("reset", "--quiet", "--hard", start)
        change(declared)
        declared.commit()
        found[name] = build(lw).content()
    assert [name for name in CHANGES if found[name] == first] == []
    assert [name for name in NO_CHANGES if found[name] != first] == []
    assert len({found[name] for name in CHANGES}) == len(CHANGES)


def test_two_empty_stores_make_the_same_bytes_of_one_commit(declared: Project, lw: CommandLine, base_images: BaseImages) -> None:
    declared.werf(DECLARED.replace("from: scratch", f"from: {base_images.variant('full')}"))
    declared.commit()
    other = lw.with_home(lw.home / "other")
    one, two = build(lw), build(other)
    assert one.content() == two.content()
    assert one.digests() == two.digests()
    first, second = read_layout(export(lw)), read_layout(export(other))
    assert first.config["rootfs"] == second.config["rootfs"]
    assert first.config["config"] == second.config["config"]
    assert first.files == second.files


def test_the_names_of_image_and_project_are_no_inputs_so_equal_images_are_one(declared: Project, lw: CommandLine) -> None:
    declared.werf(DECLARED + "---\n" + DECLARED.replace("image: app", "image: twin"))
    declared.commit()
    built = build(lw)
    assert built.content("app") == built.content("twin")
    assert len(built.new("app")) + len(built.new("twin")) == 3  # from, gitArchive, dockerInstructions


def test_an_image_can_be_asked_for_by_name_without_building_it(declared: Project, lw: CommandLine) -> None:
    lacking = lw("stage", "image", "app", code=1)
    assert "not built" in lacking.stderr
    content = build(lw).content()
    assert lw("stage", "image", "app").stdout.strip() == f"test:{content}"
    declared.write("src/a", "changed\n")
    declared.commit()
    lw("stage", "image", "app", code=1)


def test_a_stage_digest_leaves_file_contents_out_and_a_content_digest_does_not(declared: Project, lw: CommandLine) -> None:
    first = build(lw)
    declared.write("src/a", "changed\n")
    declared.commit()
    second = build(lw)
    assert second.digests()["gitArchive"] == first.digests()["gitArchive"]
    assert second.digests()["from"] == first.digests()["from"]
    assert second.content() != first.content()


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_a_stage_is_named_after_the_bytes_it_stands_on(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(f"""
        image: app
        from: {base_images.busybox}
        shell:
          install: head -c 16 /dev/urandom > /random
          setup: echo done > /done
        """)
    project.commit()
    one, two = build(lw), build(lw.with_home(lw.home / "other"))
    assert one.digests()["install"] == two.digests()["install"]  # its inputs are equal
    assert one.digests()["setup"] != two.digests()["setup"]  # it stands on other bytes
    assert one.content() == two.content()  # the image of these inputs


@pytest.mark.needs_root
@pytest.mark.needs_runtime
def test_of_two_builds_at_once_one_builds_and_both_have_its_stage(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(f"""
        image: app
        from: {base_images.busybox}
        shell:
          install:
          - head -c 16 /dev/urandom | md5sum > /random
          - sleep 0.5
        """)
    project.commit()
    argv = [sys.executable, "-m", "layerwright", "build"]
    started = [subprocess.Popen(argv, cwd=project.path, env=lw.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert sum("Building stage app/install" in text for text in said) == 1, said
    assert rebuilt_nothing(build(lw))


def rebuilt_nothing(built: Built) -> bool:
    return not any(built.new(image) for image in built.report["Images"])
