"""Builds by a user who is not root: the same images, and a word where the machine lacks something. Seen through the command line and standard tools."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance.test_05_conveyor import (  # noqa: F401 - the facts of a conveyor hold for every user: `lw` is another here
    CAPABILITY,
    declared,
    test_a_change_that_no_stage_names_builds_one_patch_and_the_configuration_above_it,
    test_a_mebibyte_of_changes_becomes_a_cache_that_later_patches_start_from,
    test_a_moved_tag_is_noticed_only_where_the_latest_is_asked_for,
    test_a_rebased_history_builds_nothing,
    test_a_reverted_change_is_the_earlier_image_again,
    test_a_second_run_asks_no_registry_and_starts_nothing,
    test_an_image_without_git_after_patch_never_sees_later_sources,
    test_an_import_whose_source_is_built_anew_with_equal_files_is_reused,
    test_another_network_builds_nothing,
    test_branches_share_their_stages_and_differ_in_the_files,
    test_cmd_and_entrypoint_follow_the_table,
    test_independent_images_are_built_at_once_and_a_stage_they_share_once,
)
from tests.acceptance.test_07_local_store import NAP, await_end_of_all, processes_of
from tests.support.base_images import BaseImages
from tests.support.built import build, export
from tests.support.commandline import SOURCES, CommandLine
from tests.support.exported import read_layout
from tests.support.machine import find_program
from tests.support.processes import await_that, start
from tests.support.project import Project
from tests.support.readers import inspect_config, seen_on_disk, unpacked_by_umoci
from tests.support.unprivileged import NAME, SUBIDS, UID, Unprivileged
from tools.base_image import add_entry, make_busybox_tar, write_layout

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user's Python keeps compiled modules: he may not write beside the sources, and starts it often."""
    directory = tmp_path_factory.mktemp("compiled")
    directory.chmod(0o755)
    os.chown(directory, UID, UID)
    return directory


@pytest.fixture
def as_user(tmp_path: Path, project: Project, compiled: Path) -> Callable[..., CommandLine]:
    """The command line of a user who is not root, with a store of his own; the arguments are those of Unprivileged."""

    def line(**given: tuple[object, ...]) -> CommandLine:
        place = tmp_path / f"user{len(list(tmp_path.iterdir()))}"
        user = Unprivileged(place=place, **given).settle()  # type: ignore[arg-type]
        user.own(user.home / "exported")
        more = {"PYTHONPYCACHEPREFIX": str(compiled)}
        return CommandLine(home=user.home / "store", user_home=user.home, directory=project.path, more=more, prefix=user.prefix([tmp_path, compiled]))

    return line


@pytest.fixture
def lw(as_user: Callable[..., CommandLine]) -> CommandLine:
    """For the tests that other files have of a conveyor, too."""
    return as_user()


@pytest.fixture
def of_root(tmp_path: Path, project: Project) -> CommandLine:
    user_home = tmp_path / "root"
    user_home.mkdir()
    return CommandLine(home=tmp_path / "root-store", user_home=user_home, directory=project.path)


# The same image.


def special_layer() -> bytes:
    """Owners, modes, a capability, hard links and a device."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_entry(tar, "tree", 0o2751, kind=tarfile.DIRTYPE, owner=12)
        add_entry(tar, "tree/gone", 0o755, kind=tarfile.DIRTYPE, owner=7)
        add_entry(tar, "tree/gone/file", 0o600, content=b"gone", owner=7)
        add_entry(tar, "tree/emptied", 0o755, kind=tarfile.DIRTYPE, owner=7)
        add_entry(tar, "tree/emptied/file", 0o600, content=b"gone", owner=7)
        add_entry(tar, "tree/secret", 0o700, kind=tarfile.DIRTYPE, owner=1000)
        add_entry(tar, "tree/secret/key", 0o400, content=b"of user 1000", owner=1000)
        add_entry(tar, "tree/a", 0o640, content=b"linked", owner=7)
        add_entry(tar, "tree/b", 0o640, kind=tarfile.LNKTYPE, target="tree/a", owner=7)
        add_entry(tar, "tree/suid", 0o4755, content=b"s", owner=65534)
        for name in ("capable", "touched"):
            info = tarfile.TarInfo(f"tree/{name}")
            info.size, info.mode, info.mtime = 1, 0o755, 1_600_000_000
            info.pax_headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"), "SCHILY.xattr.user.note": "kept"}
            tar.addfile(info, io.BytesIO(b"c"))
        device = tarfile.TarInfo("tree/device")
        device.type, device.devmajor, device.devminor, device.mode = tarfile.CHRTYPE, 1, 3, 0o666
        tar.addfile(device)
        add_entry(tar, "tree/device2", 0o666, kind=tarfile.LNKTYPE, target="tree/device")
    return out.getvalue()


WHOLE = """
image: lib
from: {lib}
---
image: app
from: {base}
git:
- {{add: /src, to: /app, owner: www-data, group: 1234, stageDependencies: {{install: dep}}}}
import:
- {{image: lib, add: /tree, to: /opt/tree, excludePaths: ["device*"], before: install}}
mount:
- {{from: build_dir, to: /cache}}
- {{from: tmp_dir, to: /scratch}}
shell:
  install:
  - test "$(id -u):$(id -g)" = 0:0
  - cp --archive /opt/tree/capable /opt/copied
  - chmod 700 /opt/tree/touched && chmod 755 /opt/tree/touched && touch --date=@1700000000 /opt/tree/touched
  - chown 1234:4321 /app/a && chown --no-dereference 5:6 /app/link
  - rm --recursive /opt/tree/gone /etc/issue
  - rm --recursive /opt/tree/emptied && mkdir /opt/tree/emptied && echo new > /opt/tree/emptied/new
  - ln /opt/tree/suid /opt/tree/suid2 && mkfifo --mode=640 /opt/pipe
  - install --owner=7 --group=65534 --mode=6711 /bin/true /opt/true
  - perl -e '$( = $) = "33 33"; $< = $> = 33; open F, ">/tmp/of-33" or die; print F "x"'
  - touch /cache/seen /scratch/seen && chown 33:33 /cache/seen /scratch/seen
  setup:
  - stat --format=%u:%g /cache/seen /opt/tree/secret/key /opt/tree > /owners
  - test ! -e /scratch/seen
  - cat /opt/tree/secret/key >> /owners
docker:
  USER: "33"
  WORKDIR: /app
  ENTRYPOINT: [/bin/cat]
  CMD: [/owners]
"""


@pytest.fixture
def whole(project: Project, base_images: BaseImages, debian: str) -> Project:
    project.werf(WHOLE.format(base=debian, lib=base_images.push("rootless/lib:1", [make_busybox_tar(), special_layer()])))
    project.write("werf-giterminism.yaml", "giterminismConfigVersion: 1\nconfig: {stapel: {mount: {allowBuildDir: true}}}\n")
    for path in ("src/a", "src/dep", "src/deep/b"):
        project.write(path, path)
    project.link("src/link", "a")
    project.commit()
    return project


def test_a_user_builds_what_root_builds(whole: Project, lw: CommandLine, of_root: CommandLine, tmp_path: Path) -> None:
    layouts: list[Path] = []
    stages = []
    for line in (lw, of_root):
        built = build(line)
        assert "copied" not in built.ran.stderr  # an overlay
        stages.append((built.stages(), built.content()))
        layouts.append(export(line))
    assert stages[0] == stages[1]
    ours, roots = (inspect_config(one) for one in layouts)
    assert ours["config"] == roots["config"]
    # The base, the import and the sources: layers of declared inputs are the same bytes.
    steps = stages[0][0]
    commands = {steps.index(name) for name in ("install", "setup")}
    same = [one == other for one, other in zip(ours["rootfs"]["diff_ids"], roots["rootfs"]["diff_ids"], strict=True)]
    assert [number for number, equal in enumerate(same) if not equal] == sorted(commands)
    # All layers name the same paths, removals included, and together they show the same files.
    assert read_layout(layouts[0]).layers == read_layout(layouts[1]).layers
    assert "etc/.wh.issue" in read_layout(layouts[0]).layers[min(commands)]
    seen = [everything(unpacked_by_umoci(layout, tmp_path / f"bundle{number}")) for number, layout in enumerate(layouts)]
    assert seen[0] == seen[1]
    found = seen[0]
    assert found["app/a"][1:3] == (1234, 4321)
    assert found["opt/copied"][-1] == found["opt/tree/touched"][-1] == (("security.capability", CAPABILITY), ("user.note", b"kept"))
    assert found["opt/true"][:3] == (stat.S_IFREG | 0o6711, 7, 65534)
    assert found["tmp/of-33"][1:3] == (33, 33)
    assert found["opt/tree/suid"][3] == found["opt/tree/suid2"][3] == 2
    assert found["owners"][4] == b"33:33\n1000:1000\n12:12\nof user 1000"
    assert "opt/tree/gone" not in found
    assert lw("run", "-q", "app").stdout == "33:33\n1000:1000\n12:12\nof user 1000"
    assert lw("run", "-q", "-u", "1000", "--entrypoint", "id", "app").stdout.startswith("uid=1000 gid=0(root)")
    assert list((lw.home / "work").iterdir()) == []
    await_end_of_all(lw)


Everything = dict[str, tuple[int, int, int, int, bytes, tuple[tuple[str, bytes], ...]]]


def everything(root: Path) -> Everything:
    """By path: type and mode, owner, group, number of names, content or target, extended attributes. No times: commands ran twice."""
    found: Everything = {}
    for path, seen in seen_on_disk(root).items():
        place = root / path
        state = place.lstat()
        links = state.st_nlink if not stat.S_ISDIR(state.st_mode) else 0
        attributes = tuple((name, os.getxattr(place, name, follow_symlinks=False)) for name in sorted(os.listxattr(place, follow_symlinks=False)))
        found[path] = (state.st_mode, state.st_uid, state.st_gid, links, seen.what, attributes)
    return found


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_each_runtime_works_for_a_user_and_devices_stay_in_the_layer(project: Project, lw: CommandLine, base_images: BaseImages, runtime: str) -> None:
    """A user namespace makes no devices: containers do without those of the image, and its layers keep them."""
    base = base_images.push("rootless/lib:1", [make_busybox_tar(), special_layer()])
    project.werf(f"image: app\nfrom: {base}\nshell: {{install: 'ls /tree > /seen; echo > /dev/null', setup: cat /seen > /again}}\nnetwork: none\n")
    project.commit()
    assert build(lw, "--runtime", runtime).new() == ["from", "install", "setup"]
    exported = read_layout(export(lw))
    assert b"device" not in exported.contents["again"]
    assert exported.files["tree/device"].kind == "other"
    trees = inodes(lw)
    project.werf(f"image: app\nfrom: {base}\nshell: {{install: 'ls /tree > /seen; echo > /dev/null', setup: cat /seen > /once-more}}\n")
    project.commit()
    assert build(lw, "--runtime", runtime).new() == ["setup"]
    assert trees.items() <= inodes(lw).items()  # found to be what they should, and not made again


def inodes(lw: CommandLine) -> dict[str, int]:
    return {one.name: one.stat().st_ino for one in lw.home.glob("trees.*/*")}


# Without what it takes.


@pytest.fixture
def alone(project: Project, base_images: BaseImages) -> Project:
    """Images that one id is enough for, and one that needs another."""
    project.werf(f"""
        image: own
        from: {base_images.push("rootless/own:1", [one_owner()])}
        git: [{{add: /src, to: /app}}]
        shell: {{install: 'test "$(id -u)" = 0; cp /app/a /made; rm /etc/group; stat -c %u:%g / /made > /seen'}}
        ---
        image: several
        from: {base_images.busybox}
        git: [{{add: /src, to: /app}}]
        ---
        image: commands
        from: {base_images.busybox}
        shell: {{install: "true"}}
        ---
        image: chown
        from: {base_images.push("rootless/own:1", [one_owner()])}
        shell: {{install: chown 33 /etc/passwd}}
        """)
    project.write("src/a", "a")
    project.commit()
    return project


def one_owner() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(make_busybox_tar())) as source, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in source:
            member.uid = member.gid = 0
            tar.addfile(member, source.extractfile(member) if member.isreg() else None)
    return out.getvalue()


def test_without_a_range_one_id_is_used_where_it_is_enough(alone: Project, as_user: Callable[..., CommandLine], of_root: CommandLine) -> None:
    lw = as_user(ranges=())
    built = build(lw, "own", "several")
    assert built.new("own") == ["from", "gitArchive", "install"]
    exported = read_layout(export(lw, "own"))
    build(of_root, "own", "several")
    assert exported.layers == read_layout(export(of_root, "own")).layers
    assert exported.contents["seen"] == b"0:0\n0:0\n"
    assert {(one.uid, one.gid) for one in exported.files.values()} == {(0, 0)}
    assert read_layout(export(lw, "several")).files["var/www"].uid == 33  # nothing had to be unpacked
    assert lw("run", "-q", "own", "--", "cat", "/made").stdout == "a"
    assert "uid 33 is not among the ids" in lw("run", "-q", "-u", "33", "own", "--", "id", code=3).stderr


def test_without_a_range_the_error_names_the_file_and_the_line(alone: Project, as_user: Callable[..., CommandLine]) -> None:
    lw = as_user(ranges=())
    said = lw("build", "commands", code=3).stderr
    assert "/var/www in layer sha256:" in said
    assert "uid 33 is not among the ids" in said
    line = f"{NAME}:100000:65536"
    assert f"add the line `{line}` to /etc/subuid and to /etc/subgid" in said
    said = lw("build", "chown", code=1).stderr
    assert "these commands had one id only" in said
    assert line in said
    with_line = as_user(ranges=((100000, 65536),))  # what it said is enough
    assert with_line("build", "commands", "chown").code == 0


def test_without_newuidmap_the_error_names_its_package(alone: Project, as_user: Callable[..., CommandLine]) -> None:
    lw = as_user(without=("newuidmap", "newgidmap"))
    assert build(lw, "own").new("own") == ["from", "gitArchive", "install"]
    said = lw("build", "commands", code=3).stderr
    assert "apt-get install uidmap" in said


def test_an_id_beyond_the_range_is_named_with_a_line_that_holds_it(alone: Project, as_user: Callable[..., CommandLine]) -> None:
    lw = as_user(ranges=((SUBIDS[0], 20),))
    said = lw("build", "commands", code=3).stderr
    assert "uid 33 is not among the ids" in said
    assert re.search(r"Error: werf\.yaml:\d+:\d+: .*, .* in layer sha256:", said), "the base that has it, and the file"
    start = SUBIDS[0] + 20
    assert f"{NAME}:{start}:65536" in said
    more = as_user(ranges=((SUBIDS[0], 20), (start, 65536)))
    assert build(more, "commands").new("commands") == ["from", "install"]


# Killed.


@pytest.mark.parametrize("by", ["a build", "another command"])
def test_a_killed_build_leaves_nothing_that_its_user_cannot_remove(project: Project, lw: CommandLine, base_images: BaseImages, by: str) -> None:
    text = f"image: app\nfrom: {base_images.busybox}\nshell: {{{{install: 'mkdir -m 700 /mine; echo x > /mine/x; chown -R 33:33 /mine; touch /up; {{}}'}}}}\n"
    project.werf(text.format(NAP))
    project.commit()
    build_process = start(lw, "build")
    await_that(lambda: any(NAP in command and "sh" not in command for command in processes_of(lw).values()))
    assert foreign(lw.home / "work")
    os.kill(build_process.pid, signal.SIGKILL)
    build_process.wait()
    await_end_of_all(lw)
    assert foreign(lw.home / "work")  # what was killed could not tidy up
    if by == "a build":
        project.werf(text.format("true"))
        project.commit()
        assert build(lw).new() == ["install"]
    else:
        write_layout(lw.user_home / "layout", [one_owner()])
        lw("image", "load", "--name", "example.com/loaded:1", str(lw.user_home / "layout"))
    assert list((lw.home / "work").iterdir()) == []
    await_end_of_all(lw)


def foreign(directory: Path) -> list[str]:
    """What belongs to mapped users."""
    found = [os.path.join(folder, name) for folder, names, files in os.walk(directory) for name in (*names, *files)]
    return [path for path in found if os.lstat(path).st_uid not in (0, UID)]


# In a container.


def podman_prefix(place: Path, shown: Path, *options: str) -> tuple[str, ...]:
    """`podman run` of a root file system that shows this machine's programs, and `shown`; root in there has no right that podman does not give."""
    root = place / "root"
    for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    needed = [Path(sys.prefix), Path(sys.base_prefix), SOURCES.parent, *(Path(one) for one in sys.path if "-packages" in one)]
    volumes = {one for one in needed if not one.is_relative_to("/usr")} | {Path("/usr")}
    outermost = sorted(one for one in volumes if not any(other != one and one.is_relative_to(other) for other in volumes))
    where = ("--root", f"{place}/r", "--runroot", f"{place}/n", "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs")
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")  # podman asks for more than every machine gives
    run = ("run", "--rm", "--network=host", *limits, *(f"--volume={one}:{one}:ro" for one in outermost), f"--volume={shown}:{shown}", "--env-host")
    return (find_program("podman"), *where, "--runtime", find_program("runc"), *run, *options, f"--workdir={shown}/project", "--rootfs", str(root))


@pytest.fixture
def podman_place() -> Iterator[Path]:
    """With a short name, as podman demands, and nothing left of it afterwards."""
    place = Path(tempfile.mkdtemp(prefix="lwc-", dir="/tmp"))
    yield place
    for mount in [one for one in mounted_below(place) if one != str(place)]:
        subprocess.run((find_program("umount"), "--lazy", mount), check=True)
    shutil.rmtree(place)


def mounted_below(place: Path) -> list[str]:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((one for one in mounts if Path(one).is_relative_to(place)), reverse=True)


def test_in_a_container_without_any_right_declared_images_are_built_and_commands_told_what_they_lack(
    project: Project, of_root: CommandLine, base_images: BaseImages, tmp_path: Path, podman_place: Path
) -> None:
    project.werf(f"""
        image: plain
        from: {base_images.busybox}
        git: [{{add: /src, to: /app, owner: www-data}}]
        ---
        image: app
        from: {base_images.busybox}
        git: [{{add: /src, to: /app, owner: www-data}}]
        shell: {{install: 'id -u; chown 33:33 /etc/passwd; rm -r /home'}}
        """)
    project.write("src/a", "a")
    project.commit()
    inside = replace(of_root, prefix=podman_prefix(podman_place / "1", tmp_path))
    assert build(inside, "plain").new("plain") == ["from", "gitArchive"]
    assert read_layout(export(inside, "plain")).files["app/a"].uid == 33
    refused = inside("build", "app", code=3)
    assert "this container hides parts of its own /proc" in refused.stderr
    assert "podman run --security-opt unmask=ALL" in refused.stderr
    # What it says is what it takes.
    unmasked = replace(of_root, prefix=podman_prefix(podman_place / "2", tmp_path, "--security-opt=unmask=ALL"))
    assert build(unmasked, "app", "--runtime", "crun").new("app") == ["install"]
    exported = read_layout(export(unmasked))
    assert (exported.files["etc/passwd"].uid, "home" in exported.files) == (33, False)
    assert unmasked("run", "-q", "app", "--", "id", "-u").stdout == "0\n"
