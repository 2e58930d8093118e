"""The law of source updates, from outside: each commit built after all earlier ones has the root file system of a build in an empty store.

The files are those that podman shows. The same law over many more histories, without processes: tests/build/test_law.py.
"""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.built import build, export
from tests.support.commandline import CommandLine
from tests.support.exported import read_layout
from tests.support.project import Project
from tests.support.readers import Podman
from tools.base_image import add_entry

HISTORIES, COMMITS, STEPS = 2, 4, 8
WERF = """
image: lib
from: scratch
git: [{{add: /lib, to: /, owner: 7}}]
---
image: app
from: {base}
git:
- {{add: /one, to: /srv, owner: 1, group: 1}}
- {{add: /two, to: /srv/b, owner: 2}}
import:
- {{image: lib, add: /early, to: /srv/a/early, before: install}}
- {{image: lib, add: /late, to: /srv/c/late, after: install}}
- {{image: lib, add: /late/file, to: /srv/b/a/file, after: setup}}
"""


def base_tar() -> bytes:
    """Files, directories and symlinks where the mappings put theirs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, mode in (("srv", 0o2775), ("srv/a", 0o700), ("srv/c", 0o755), ("opt", 0o755), ("opt/linked", 0o1777)):
            add_entry(tar, path, mode, kind=tarfile.DIRTYPE, owner=9)
        for path in ("srv/a/a", "srv/a/b", "srv/c/c", "srv/b", "opt/linked/a"):
            add_entry(tar, path, 0o640, content=b"base", owner=9)
        for path, target in (("srv/c/b", "/opt/linked"), ("srv/a/c", "a"), ("srv/c/a", "nowhere")):
            add_entry(tar, path, 0o777, kind=tarfile.SYMTYPE, target=target)
    return out.getvalue()


def take_step(project: Project, chance: random.Random) -> None:
    """Add, change or delete one path; what stands in the way goes."""
    path = chance.choice(["one", "two"]) + "".join("/" + chance.choice("abc") for _ in range(chance.choice([1, 2, 2, 3])))
    target = project.path / path
    for place in (target, *target.parents):
        if place.is_symlink() or (place.is_file() and place != target):
            place.unlink()
    if target.is_dir():
        shutil.rmtree(target)
    what = chance.choice(["file", "file", "file", "program", "link", "nothing", "nothing"])
    if what in ("file", "program"):
        project.write(path, chance.choice("0123"), executable=what == "program")
    elif what == "link":
        project.link(path, chance.choice(["a", "../b", "/opt/linked", "nowhere"]))
    else:
        target.unlink(missing_ok=True)


@pytest.mark.needs_root
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_the_order_of_commits_leaves_no_trace_in_the_files(seed: int, project: Project, lw: CommandLine, base_images: BaseImages, tmp_path: Path) -> None:
    chance = random.Random(seed)
    project.werf(WERF.format(base=base_images.push("conveyor/law:1", [base_tar()])))
    for path in ("lib/early/file", "lib/late/file", "lib/late/more/file", "one/keep", "two/keep"):
        project.write(path, "1")
    with Podman() as podman:
        for number in range(COMMITS):
            for _ in range(STEPS):
                take_step(project, chance)
            project.commit()
            after_others, alone = tmp_path / f"after-others-{number}", tmp_path / f"alone-{number}"
            empty = lw.with_home(tmp_path / "empty")
            built = built_or_refused(lw, after_others)
            assert built_or_refused(empty, alone) == built, project.git("ls-tree", "-r", "HEAD")
            if built and layers_of(after_others) != layers_of(alone):  # equal layers have equal files
                assert podman.files(after_others) == podman.files(alone)
            shutil.rmtree(empty.home)


def built_or_refused(lw: CommandLine, layout: Path) -> bool:
    """Whether the image could be built and is in `layout` now; it cannot where the sources cannot stand with the base or an import."""
    ran = lw("export", "app", "--to", f"oci:{layout}", code=None)
    assert ran.code == 0 or (ran.code in (1, 2) and "Error: " in ran.stderr), ran
    return ran.code == 0


def layers_of(layout: Path) -> list[str]:
    layers: list[str] = read_layout(layout).config["rootfs"]["diff_ids"]
    return layers


@pytest.mark.needs_root
def test_the_files_are_what_git_base_and_imports_say(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    """The law alone would hold for images without any sources: one history by hand, with what must come of it."""
    project.werf(WERF.format(base=base_images.push("conveyor/law:1", [base_tar()])))
    for path in ("lib/early/file", "lib/late/file", "lib/late/more/file", "one/keep", "two/keep", "one/a/a", "one/a/b", "one/c/b/new", "one/d/e/f"):
        project.write(path, "1")
    project.commit()
    build(lw)
    project.remove("one/a/a")  # the base has one: it shows again
    project.remove("one/d")
    project.write("one/c/b/new", "2", executable=True)
    project.commit()
    with Podman() as podman:
        seen = podman.files(export(lw))
    assert (seen["srv/a/a"].what, seen["srv/a/a"].uid) == (b"base", 9)
    assert (seen["srv/a/b"].what, seen["srv/a/b"].uid) == (b"1", 1)
    assert "srv/d" not in seen
    assert (seen["opt/linked/new"].what, seen["opt/linked/new"].mode, seen["opt/linked/new"].uid) == (b"2", 0o755, 1)
    assert (seen["opt/linked"].mode, seen["srv"].mode, seen["srv/a"].mode) == (0o1777, 0o2775, 0o700)
    assert seen["srv/c/b"].kind == "symlink"
    assert (seen["srv/b"].kind, seen["srv/b"].uid, seen["srv/b/keep"].uid) == ("directory", 2, 2)  # over a file of the base
    assert (seen["srv/a/early/file"].uid, seen["srv/c/late/more/file"].uid, seen["srv/b/a/file"].uid) == (7, 7, 7)
