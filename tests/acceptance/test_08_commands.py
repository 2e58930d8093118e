"""Command stages, seen from outside: what they see, what they leave, how they fail, how they are stopped."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.base_images import PATH, BaseImages
from tests.support.commandline import CommandLine
from tests.support.exported import Exported, read_layout
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.terminal import Terminal, line_of
from tools.base_image import make_busybox_tar, write_layout

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]


def tar_of(files: dict[str, bytes | str], mode: int = 0o644) -> bytes:
    """A layer of files (bytes) and symlinks (text)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.mode = mode
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def one_image(project: Project, base: str, *commands: str, more: str = "", stage: str = "install") -> None:
    """werf.yaml with the image `app`, whose stage has `commands`, committed."""
    listed = "".join(f"    - {json.dumps(command)}\n" for command in commands)
    project.werf(f"image: app\nfrom: {base}\n{more}shell:\n  {stage}:\n{listed}")
    project.commit()


def output_of(stdout: str, stage: str = "app/install") -> list[str]:
    """The lines a stage's commands printed."""
    start = f"{stage} | "
    return [line.removeprefix(start) for line in stdout.splitlines() if line.startswith(start)]


def export(lw: CommandLine, image: str = "app") -> Exported:
    layout = lw.home.parent / f"exported-{len(list(lw.home.parent.iterdir()))}"
    lw("export", image, "--to", f"oci:{layout}")
    return read_layout(layout)


def unpacked(lw: CommandLine, image: str = "app") -> Path:
    """The root file system of an image, unpacked by umoci."""
    place = lw.home.parent / "unpacked"
    lw("export", image, "--to", f"oci:{place}-image:it")
    subprocess.run([find_program("umoci"), "unpack", "--image", f"{place}-image:it", place], check=True, capture_output=True)
    return place / "rootfs"


# What commands see.


def test_commands_see_the_images_environment_and_the_commits_and_nothing_of_the_hosts(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    one_image(project, base_images.variant("full"), "env", "id -u; id -g; pwd")
    printed = output_of(lw("build", env={"SECRET_OF_THE_HOST": "x", "HTTP_PROXY": "http://x"}).stdout)
    seen = dict(line.split("=", 1) for line in printed[:-3])
    for by_the_shell in ("HOME", "PWD", "SHLVL", "_"):
        seen.pop(by_the_shell, None)
    assert seen.pop("WERF_COMMIT_TIME_HUMAN").startswith("2023-11-14 22:13:20 +0000")
    path = PATH.partition("=")[2]
    expected = {
        "GREETING": "good day",
        "LANG": "C",
        "PATH": path,
        "WERF_COMMIT_HASH": project.head(),
        "WERF_COMMIT_TIME_UNIX": "1700000000",
    }
    assert seen == expected
    assert printed[-3:] == ["0", "0", "/"]  # though the base says another user and directory
    settings = export(lw).settings
    assert settings["Env"] == [PATH, "LANG=C", "GREETING=good day"]
    assert (settings["User"], settings["WorkingDir"]) == ("nobody", "/home")


def test_commands_have_a_language_where_the_image_sets_none(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    one_image(project, base_images.variant("bare"), "env")
    printed = output_of(lw("build").stdout)
    assert {"LANG=C.UTF-8", "LC_ALL=C.UTF-8"} <= set(printed)


def test_the_network_is_the_hosts_unless_there_is_to_be_none(lw: CommandLine, project: Project, base_images: BaseImages, registry: RegistryServer) -> None:
    ask = f"wget -q -O /dev/null http://{registry.address}/v2/ && echo reached || echo not reached"
    one_image(project, base_images.busybox, ask, "ls /sys/class/net")
    assert "reached" in output_of(lw("build").stdout)
    one_image(project, base_images.busybox, ask, "ls  /sys/class/net", more="network: none\n")
    assert output_of(lw("build").stdout)[-2:] == ["not reached", "lo"]
    one_image(project, base_images.busybox, ask, "echo again")
    assert "not reached" in output_of(lw("build", "--backend-network", "none").stdout)


def test_mounted_directories_are_seen_by_commands_and_are_never_in_the_image(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    more = "mount:\n  - from: tmp_dir\n    to: /scratch\n  - from: build_dir\n    to: /cache\n"
    commands = ("echo {} >>/cache/log", "cat /cache/log", "ls -A /scratch", "touch /scratch/left {}", "mkdir -p /made")
    for word in ("one", "two"):
        one_image(project, base_images.busybox, *(command.format(word) for command in commands[:3]), "touch /scratch/left", "echo made >/made", more=more)
        printed = output_of(lw("build", "--loose-giterminism").stdout)
    assert printed == ["one", "two"]  # build_dir lasts, tmp_dir was empty again
    seen = json.loads(json.dumps(sorted(export_loose(lw).files)))
    assert "made" in seen
    assert not [path for path in seen if path.startswith(("scratch/", "cache/"))]


def test_no_two_mounts_share_a_temporary_directory(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    places = ("/a/b", "/a-b", "/" + "long/" * 60 + "end")
    one_image(project, base_images.busybox, "touch /a/b/x", "ls -A /a-b", more="mount:\n" + "".join(f"- {{from: tmp_dir, to: {place}}}\n" for place in places))
    assert output_of(lw("build").stdout) == []


def export_loose(lw: CommandLine) -> Exported:
    layout = lw.home.parent / "exported-loose"
    lw("export", "app", "--loose-giterminism", "--to", f"oci:{layout}")
    return read_layout(layout)


# What they leave.


def test_hard_links_sparse_files_and_times_survive(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    one_image(
        project,
        base_images.busybox,
        "mkdir /d; echo x >/d/a; ln /d/a /d/b; touch -t 200102030405.06 /d/a",
        "dd if=/dev/zero of=/d/sparse bs=1 count=1 seek=67108863 2>/dev/null",
        more="docker: {WORKDIR: /d}\n",
    )
    lw("build")
    blocks, size = lw("run", "-q", "app", "--", "stat", "-c", "%b %s", "sparse").stdout.split()
    assert (int(size), int(blocks) < 1000) == (64 << 20, True)
    assert sum(path.stat().st_size for path in (lw.home / "blobs").rglob("*") if path.is_file()) < 16 << 20
    root = unpacked(lw)
    assert (root / "d/a").stat().st_ino == (root / "d/b").stat().st_ino
    assert (root / "d/a").stat().st_nlink == 2
    assert (root / "d/a").stat().st_mtime == 981173106
    assert (root / "d/sparse").stat().st_size == 64 << 20


def test_capabilities_of_files_survive(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    setcap = find_program("setcap")
    listed = subprocess.run(["ldd", setcap], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(", listed)
    # Everything in one directory, found by name: the base's own /lib is a link to another place than the host's.
    files: dict[str, bytes | str] = {f"tools/{Path(one).name}": Path(one).read_bytes() for one in [setcap, *libraries]}
    loader = next(name for name in files if "/ld-" in name)
    base = base_images.push("base/setcap:1", [make_busybox_tar(), tar_of(files, 0o755)], {"Env": [PATH]})
    one_image(project, base, "cp /bin/busybox /ping", f"/{loader} --library-path /tools /tools/setcap cap_net_raw+ep /ping")
    lw("build")
    ping = unpacked(lw) / "ping"
    shown = subprocess.run([find_program("getcap"), ping], check=True, capture_output=True, text=True).stdout
    assert "cap_net_raw=ep" in shown


def test_sockets_are_left_out_with_a_notice(lw: CommandLine, project: Project, debian: str) -> None:
    one_image(
        project,
        debian,
        "perl -MSocket -e 'socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die; bind($s, sockaddr_un(\"/srv/x.sock\")) or die'",
        "echo kept >/srv/kept",
    )
    built = lw("build")
    assert re.search(r"^Warning: app: .*srv/x\.sock", built.stderr, re.MULTILINE)
    files = export(lw).files
    assert files["srv/kept"].content == b"kept\n"
    assert "srv/x.sock" not in files


def test_an_image_of_200_layers_works(lw: CommandLine, project: Project, tmp_path: Path) -> None:
    layers = [make_busybox_tar(), *(tar_of({f"layers/{number}": b"x"}) for number in range(199))]
    write_layout(tmp_path / "deep", layers, {"Env": [PATH]})
    digest = lw("image", "load", str(tmp_path / "deep"), "--name", "example.com/base/deep:1").stdout.split()[-1]
    one_image(project, f"example.com/base/deep@{digest}", "ls /layers | wc -l >/counted", "rm /layers/7")
    lw("build")
    assert lw("run", "-q", "app", "--", "sh", "-c", "cat /counted; ls /layers | wc -l").stdout.split() == ["199", "198"]
    image = export(lw)
    assert len(image.layers) == 201
    assert "layers/7" not in image.files
    assert "layers/198" in image.files


# How they fail.


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_failing_line_and_its_status_are_told(
    lw: CommandLine, project: Project, base_images: BaseImages, request: pytest.FixtureRequest, shell: str
) -> None:
    base = request.getfixturevalue("debian") if shell == "bash" else base_images.busybox
    project.werf(
        f"""
        image: app
        from: {base}
        shell:
          install:
            - echo first
            - |
              echo second
              (exit 42)
              echo never
        """
    )
    project.commit()
    failed = lw("build", code=1)
    assert "Error: werf.yaml:11: image 'app', stage install: `(exit 42)` failed: exit status 42\n" in failed.stderr
    assert output_of(failed.stdout) == ["first", "second"]
    assert "Failed stage app/install" in failed.stdout


def test_a_failed_stage_leaves_nothing_and_is_run_again(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    project.write("ok", "no")
    images = """
        image: app
        from: {base}
        git:
          - add: /ok
            to: /ok
            stageDependencies: {{setup: "*"}}
        shell:
          install: ["echo installed >/installed"]
          setup: ["echo half >/half; for i in $(seq 300); do echo line $i; done; grep yes /ok"]
        """
    project.werf(images.format(base=base_images.busybox))
    project.commit()
    failed = lw("build", "-q", code=1)
    assert output_of(failed.stdout, "app/setup") == [f"line {number}" for number in range(1, 301)]  # in full, though nothing else is shown
    assert "is not built" in lw("stage", "image", "app", code=1).stderr
    again = lw("build", code=1)
    assert "Use previously built image for app/install" in again.stdout
    assert "Building stage app/setup" in again.stdout
    assert not list((lw.home / "work").iterdir())
    project.write("ok", "yes")
    project.commit()
    lw("build")
    assert lw("run", "-q", "app", "--", "cat", "/installed", "/half").stdout == "installed\nhalf\n"


def test_output_is_told_as_it_comes_with_the_images_name_before_each_line(lw: CommandLine, project: Project, base_images: BaseImages) -> None:
    sections = [
        f"image: {name}\nfrom: {base_images.busybox}\nshell:\n  install: ['echo start {name}; sleep 1.5; printf \"two\\\\nlines {name}\"']\n"
        for name in ("left", "right")
    ]
    project.werf("---\n".join(sections))
    project.commit()
    with started(lw, "build") as build:
        assert build.stdout is not None
        came = {line.strip(): time.monotonic() for line in build.stdout}
    for name in ("left", "right"):
        assert came[f"{name}/install | lines {name}"] - came[f"{name}/install | start {name}"] > 0.8
        assert f"{name}/install | two" in came


# How they are stopped.


def started(lw: CommandLine, *arguments: str) -> subprocess.Popen[str]:
    argv = (sys.executable, "-m", "layerwright", *arguments)
    return subprocess.Popen(
        argv,
        cwd=lw.directory,
        env=lw.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def traces(mark: str, home: Path) -> list[str]:
    """Processes whose command line has `mark` or that have the store's directories mounted."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            mounts = (process / "mountinfo").read_text(errors="replace")
        except OSError:
            continue
        if mark in command or str(home) in mounts:
            found.append(f"{process.name}: {command!r}")
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_build_leaves_no_container_and_no_mount(lw: CommandLine, project: Project, base_images: BaseImages, stop: signal.Signals) -> None:
    mark = f"76543.{stop.value}"
    one_image(project, base_images.busybox, "trap '' INT TERM; echo half >/half", f"(trap '' INT TERM; sleep {mark}) & sleep {mark}")
    build = started(lw, "build")
    assert wait_until(lambda: len(traces(mark, lw.home)) >= 2), build.kill()
    os.kill(build.pid, stop)
    _, errors = build.communicate(timeout=20)
    if stop == signal.SIGKILL:
        assert wait_until(lambda: not traces(mark, lw.home))
        return
    assert build.returncode == 128 + stop, errors
    assert errors == ""
    assert traces(mark, lw.home) == []
    assert not list((lw.home / "work").iterdir())
    assert "is not built" in lw("stage", "image", "app", code=1).stderr


def test_ctrl_c_in_a_terminal_stops_the_build(lw: CommandLine, project: Project, base_images: BaseImages, tmp_path: Path) -> None:
    mark = "76543.tmux"
    one_image(project, base_images.busybox, f"sleep 76543; : {mark}")
    with Terminal(tmp_path, line_of(lw, "build"), height=30) as terminal:
        terminal.until(lambda shown: bool(traces("76543", lw.home)) and "Building stage app/install" in shown)
        terminal.type("C-c")
        shown = terminal.ended()
        assert "ended with 130" in shown
        assert "Traceback" not in shown
        assert wait_until(lambda: not traces("sleep\x0076543", lw.home))
