"""The local store, seen from outside: killed, shared, damaged and full. The next build uses it as it is, and it never gives wrong bytes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine, Ran
from tests.support.exported import read_layout
from tests.support.front import Front
from tests.support.layouts import Layer, Layout, tar_of
from tests.support.processes import await_that, start
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tools.base_image import make_busybox_tar

KILLS = 8
NAP = f"sleep {1_000_000 + os.getpid()}"  # what containers of these tests do when they are to be found running, and nobody else


# Processes of a build, seen from outside.


def processes_of(lw: CommandLine) -> dict[int, str]:
    """Running processes whose command line or mounts name the store, or that nap in a container: pid and command line."""
    home = str(lw.home)
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            mounts = (folder / "mountinfo").read_text(errors="replace")
        except OSError:
            continue
        if command and (home in command or home in mounts or NAP in command):
            found[int(folder.name)] = command
    return found


def await_end_of_all(lw: CommandLine) -> None:
    """Fails unless all processes of a build and their mounts are gone soon; the kernel needs a moment to kill and unmount."""
    deadline = time.monotonic() + 10
    while (left := processes_of(lw)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == {}


# Killed.


@pytest.mark.needs_runtime
def test_a_build_killed_at_any_moment_leaves_a_store_that_the_next_one_uses(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    """First kills fall into a slow download, later ones into commands and everything between; what was finished by then is used."""
    moments = random.Random(7)
    with Front(base_images.registry, bytes_per_s=3_000_000) as front:
        for number in range(KILLS):
            if number in (0, 1, 2, 6):
                shutil.rmtree(lw.home, ignore_errors=True)  # from the start again: download, index and unpack
            project.write("source", f"{number}\n" * 5000)
            project.werf(f"""
                image: app
                from: {front.reference("base/busybox:1")}
                git: [{{add: /, to: /app, stageDependencies: {{install: source}}}}]
                shell:
                  beforeInstall: seq 1 20000 > /numbers
                  install: |
                    i=0; while [ $i -lt 200 ]; do echo $i > /many-$i; i=$((i+1)); done
                    ({NAP} &) ; sleep 0.15
                  setup: cat /app/source /many-* | md5sum > /sum
                """)
            project.commit()
            build = start(lw, "build")
            time.sleep(moments.uniform(0.1, 1.3))
            build.kill()
            build.wait()
            await_end_of_all(lw)
            ran = lw("build")
            await_end_of_all(lw)
            assert list((lw.home / "work").iterdir()) == [], "what the dead one left is removed"
            shown = lw("run", "app", "--", "sh", "-c", "cat /app/source /many-* | md5sum | cmp - /sum && wc -l < /numbers && head -n 1 /app/source").stdout
            assert shown.split() == ["20000", str(number)], ran


def test_a_download_that_was_killed_is_cleaned_up_and_done_again(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    """Without any command stage, so nothing ever starts a worker."""
    with Front(base_images.registry, bytes_per_s=500_000) as front:
        project.werf(f"image: app\nfrom: {front.reference('base/busybox:1')}\ngit: [{{add: /, to: /app}}]\n")
        project.commit()
        build = start(lw, "build")
        await_that(lambda: any(path.stat().st_size > 100_000 for path in lw.home.glob("work/*/.tmp-*")))
        build.kill()
        build.wait()
        await_end_of_all(lw)
    assert list((lw.home / "work").iterdir()) != []
    with Front(base_images.registry) as front:
        project.werf(f"image: app\nfrom: {front.reference('base/busybox:1')}\ngit: [{{add: /, to: /app}}]\n")
        project.commit()
        lw("build")
    assert list((lw.home / "work").iterdir()) == []
    lw("export", "app", "--to", f"oci:{lw.home.parent / 'exported'}")
    assert "usr/bin/busybox" in read_layout(lw.home.parent / "exported").contents


@pytest.mark.needs_runtime
def test_a_killed_build_never_harms_a_build_dir(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    project.write("werf-giterminism.yaml", "giterminismConfigVersion: 1\nconfig: {stapel: {mount: {allowBuildDir: true}}}\n")
    werf = f"image: app\nfrom: {base_images.busybox}\nmount: [{{from: build_dir, to: /cache}}, {{from: tmp_dir, to: /scratch}}]\n"
    project.werf(f"{werf}shell: {{install: 'mkdir -p /cache/deep; echo precious > /cache/deep/file; echo x > /scratch/x; {NAP}'}}\n")
    project.commit()
    build = start(lw, "build")
    kept = lw.home / "mounts"
    await_that(lambda: list(kept.rglob("file")) and list(lw.home.glob("work/*/tmp_dir/*/x")))
    file = next(kept.rglob("file"))
    await_that(lambda: any(NAP in command for command in processes_of(lw).values()))
    build.kill()
    build.wait()
    await_end_of_all(lw)
    (dead,) = [one for one in (lw.home / "work").iterdir() if (one / "root").is_dir()]
    leftover = dead / "root" / "cache"
    leftover.mkdir(parents=True, exist_ok=True)
    subprocess.run(("mount", "--bind", file.parent, leftover), check=True)  # as if its mount had stayed: a clean-up must stop there
    try:
        project.werf(f"{werf}shell: {{install: 'cat /cache/deep/file > /seen; ls /scratch > /empty'}}\n")
        project.commit()
        lw("build")
        assert (leftover / "file").read_text() == "precious\n"
    finally:
        subprocess.run(("umount", leftover), check=True)
    assert file.read_text() == "precious\n"
    assert lw("run", "app", "--", "cat", "/seen", "/empty").stdout == "precious\n"
    project.write("more")
    project.commit()
    project.werf(f"{werf}shell: {{install: 'true'}}\n")
    project.commit()
    lw("build")
    assert list((lw.home / "work").iterdir()) == [], "without the mount it goes"
    assert file.read_text() == "precious\n"


# Shared.


@pytest.mark.needs_runtime
def test_ten_builds_at_once_build_each_stage_once(lw: CommandLine, project: Project, new_project: Callable[[str], Project], base_images: BaseImages) -> None:
    def fill(one: Project, text: str) -> None:
        one.werf(
            f"""
            image: app
            from: {base_images.busybox}
            git: [{{add: /, to: /app, includePaths: [source], stageDependencies: {{setup: source}}}}]
            shell:
              beforeInstall: seq 1 5000 > /numbers; sleep 0.3
              install: date +%N > /once
              setup: cat /app/source > /seen
            """,
            project=text,
        )
        one.write("source", f"{text}\n")
        one.commit()

    fill(project, "same")
    others = [new_project(f"other-{number}") for number in range(5)]
    for number, other in enumerate(others):
        fill(other, f"other-{number}")
    places = [project.path] * 5 + [other.path for other in others]
    with ThreadPoolExecutor(len(places)) as pool:
        rans = list(pool.map(lambda place: lw("build", "--log-verbose", directory=place), places))
    digests = Counter(digest for ran in rans for digest in re.findall(r"^Building stage \S+ .*no stage ([0-9a-z]{12})", ran.stdout, re.MULTILINE))
    assert set(digests.values()) == {1}, rans
    stages = Counter(stage for ran in rans for stage in re.findall(r"^Building stage app/(\w+)", ran.stdout, re.MULTILINE))
    assert stages["from"] == stages["beforeInstall"] == 1, "shared by all ten"
    assert stages["setup"] == 6, "one for each source"
    once = {lw("run", "app", "--", "cat", "/once", directory=place).stdout for place in {project.path, others[0].path}}
    for number, other in enumerate(others):
        assert lw("run", "app", "--", "cat", "/seen", "/app/source", directory=other.path).stdout == f"other-{number}\n" * 2
    assert once
    assert list((lw.home / "work").iterdir()) == []


# Damaged.


def lose(path: Path) -> None:
    """A file, or a whole folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def flip(file: Path) -> None:
    """Change one bit in the middle, as a bad disk would; the size stays."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.chmod(0o644)
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.chmod(0o644)
    os.truncate(file, file.stat().st_size // 2)


Case = tuple[Callable[[Path], None], Path]
FOLDERS = {"blobs", "images", "indexes", "layers", "memo", "records", "trees.root"}


def damages(home: Path) -> list[Case]:
    """What may befall the files and folders of a store: one thing to each file by turns, and to each kind of file all three."""
    files = [path.relative_to(home) for path in sorted(home.rglob("*")) if path.is_file() and not path.is_symlink() and path.stat().st_size]
    by_kind: dict[str, list[Path]] = {}
    for file in files:
        by_kind.setdefault(f"{file.parts[0]} {file.suffix if file.parts[0] == 'indexes' else ''}", []).append(file)
    assert {kind.partition(" ")[0] for kind in by_kind} == FOLDERS
    cases: list[Case] = [(lose, Path(folder)) for folder in sorted(FOLDERS)]
    for same in by_kind.values():
        cases += [((lose, flip, cut)[number % 3], same[number % len(same)]) for number in range(max(3, len(same)))]
    return cases


@pytest.mark.needs_runtime
def test_every_file_of_the_store_may_be_lost_or_damaged(lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path) -> None:
    """Each in turn, in a copy of the store: a run or an export gives what it gave before, and then all is whole again."""
    project.werf(f"""
        image: source
        from: {base_images.busybox}
        shell: {{install: 'echo made > /made; ln /made /linked'}}
        ---
        image: app
        from: {base_images.busybox}
        git: [{{add: /, to: /app, includePaths: [file], stageDependencies: {{setup: file}}}}]
        import: [{{image: source, add: /made, to: /imported, after: install}}]
        shell: {{setup: 'cat /app/file /imported > /all'}}
        """)
    for text in ("one\n", "two\n"):
        project.write("file", text * 100)
        project.commit()
        lw("build")
    paths = ("all", "app/file", "imported")
    show = ("run", "app", "--", "md5sum", *(f"/{path}" for path in paths))
    wanted = lw(*show).stdout
    lw("export", "app", "--to", f"oci:{tmp_path / 'whole'}")
    contents = read_layout(tmp_path / "whole").contents

    def faults_after(number: int, damage: Callable[[Path], None], path: Path) -> list[str]:
        home = tmp_path / f"damaged-{number}"
        subprocess.run(("cp", "--archive", lw.home, home), check=True)
        damage(home / path)
        one = lw.with_home(home)
        faults = []
        if number % 2 or path.parts[0] == "trees.root":
            ran = one(*show, code=None)
            faults += [] if (ran.code, ran.stdout) == (0, wanted) else [f"{damage.__name__} {path}: {ran}"]
        if not number % 2 or path.parts[0] == "blobs":
            ran = one("export", "app", "--to", f"oci:{home / 'exported'}", code=None)
            faults += [f"{damage.__name__} {path}: {ran}"] if ran.code else []
            if not ran.code:
                found = read_layout(home / "exported").contents
                faults += [f"{damage.__name__} {path}: {name} is another" for name in paths if found[name] != contents[name]]
        if path.name in FOLDERS:
            ran = one("build", code=None)
            faults += [f"{damage.__name__} {path}: {ran}"] if ran.code or "Building stage" in ran.stdout else []
        shutil.rmtree(home)
        return faults

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda case: faults_after(case[0], *case[1]), enumerate(damages(lw.home))))
    assert [fault for faults in found for fault in faults] == []
    assert len(found) > 50


def test_a_damaged_blob_is_not_pushed(lw: CommandLine, project: Project, base_images: BaseImages, registry: RegistryServer) -> None:
    project.werf(f"image: app\nfrom: {base_images.busybox}\ngit: [{{add: /, to: /app}}]\n")
    project.write("file", "content\n")
    project.commit()
    name = registry.reference("store/pushed:1")
    lw("export", "app", "--to", f"oci:{lw.home.parent / 'first'}")
    for file in (path for path in (lw.home / "blobs").rglob("*") if path.is_file()):
        flip(file)
    assert "made again" in lw("export", "app", "--to", f"docker://{name}").stderr
    shown = subprocess.run(
        ("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{lw.home.parent / 'pulled'}:it"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert read_layout(lw.home.parent / "pulled").contents["app/file"] == b"content\n"


# Full.


@contextmanager
def tiny(directory: Path, size_kib: int) -> Iterator[Callable[[int], None]]:
    """A small file system at `directory`; what it yields gives it another size."""
    directory.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={size_kib}k,mode=755", "tmpfs", directory), check=True)
    try:
        yield lambda size: subprocess.run(("mount", "-o", f"remount,size={size}k", directory), check=True) and None
    finally:
        subprocess.run(("umount", directory), check=True)


def assert_says_full(ran: Ran, home: Path) -> None:
    assert ran.code == 3, ran
    assert "no space left" in ran.stderr
    assert str(home) in ran.stderr
    assert f"df -h {home}" in ran.stderr
    assert "LAYERWRIGHT_HOME" in ran.stderr


@pytest.mark.needs_runtime
def test_a_full_disk_is_said_and_the_build_goes_on_once_there_is_room(lw: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    """Room for nothing, then for the pulled layer, then for its files, then for what the command writes."""
    layout = Layout(tmp_path / "layout")
    noise = random.Random(1).randbytes(1 << 20)
    base = layout.push(registry, layout.image([Layer(make_busybox_tar()), Layer(tar_of({"noise": noise}))]), "store/noise:1")
    project.werf(f"""
        image: app
        from: {base}
        git: [{{add: /, to: /app, excludePaths: [werf.yaml]}}]
        shell: {{install: 'head -c 2000000 /dev/zero > /made'}}
        """)
    project.write("large", random.Random(2).randbytes(1 << 20))
    project.commit()
    with tiny(lw.home, 64) as resize:
        sizes = list(range(512, 12000, 768))
        codes = []
        for size in [64, *sizes]:
            resize(size)
            ran = lw("build", code=None)
            codes.append(ran.code)
            if ran.code == 0:
                break
            assert_says_full(ran, lw.home)
        assert len(codes) >= 6, "the steps are small enough to fill up in different places"
        assert codes[-1] == 0
        assert lw("run", "app", "--", "sh", "-c", "wc -c < /app/large; wc -c < /made; wc -c < /noise").stdout.split() == ["1048576", "2000000", "1048576"]
        resize(size + 256)
        assert_says_full(lw("export", "app", "--to", f"oci-archive:{tmp_path / 'out.tar'}", code=None), lw.home)
        assert not (tmp_path / "out.tar").exists()
        resize(60000)
        lw("export", "app", "--to", f"oci-archive:{tmp_path / 'out.tar'}")
    assert json.loads(subprocess.run(("skopeo", "inspect", f"oci-archive:{tmp_path / 'out.tar'}"), check=True, capture_output=True).stdout)["Layers"]
