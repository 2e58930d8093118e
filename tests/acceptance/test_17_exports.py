"""Images leave the store: to archives that stream, to the stores of Docker and Podman, several at once; and nothing half-written stays behind."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.docker_daemon import DockerDaemon
from tests.support.exported import read_layout
from tests.support.layouts import skopeo
from tests.support.machine import find_program
from tests.support.processes import await_that, start
from tests.support.project import Project
from tests.support.readers import Podman, unpacked_by_umoci
from tests.support.registry_server import RegistryServer

FILES = 1000
LARGE_BYTES = 200 << 20
MEMORY_BYTES = 160 << 20  # of a process's own; Python with its threads takes 60 MiB


def make_app(project: Project, base: str) -> None:
    """An image of a thousand files on busybox."""
    for number in range(FILES):
        project.write(f"files/{number}", f"{number}\n")
    project.werf(f"""
        image: app
        from: {base}
        git: [{{add: /files, to: /files}}]
        imageSpec: {{config: {{cmd: [cat, /files/7]}}}}
        """)
    project.commit()


@pytest.fixture
def app(lw: CommandLine, project: Project, base_images: BaseImages) -> CommandLine:
    """That image, for a test that changes it; not built yet."""
    make_app(project, base_images.busybox)
    return lw


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, base_images: BaseImages) -> CommandLine:
    """The same image, built once for all tests that leave it as it is."""
    project = Project(tmp_path_factory.mktemp("shared") / "project")
    make_app(project, base_images.busybox)
    return built(project)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """An image whose one layer is larger than the memory a test gives the process."""
    project = Project(tmp_path_factory.mktemp("large") / "project")
    with project.write("large").open("wb") as file:
        file.truncate(LARGE_BYTES)
    project.git("config", "core.looseCompression", "1")
    project.werf("image: app\nfrom: scratch\ngit: [{add: /large, to: /large}]\n")
    project.commit()
    return built(project)


def built(project: Project) -> CommandLine:
    place = project.path.parent
    (place / "user").mkdir()
    lw = CommandLine(home=place / "home", user_home=place / "user", directory=project.path)
    lw("build")
    return lw


@pytest.fixture
def fresh(shared: CommandLine, tmp_path: Path) -> CommandLine:
    """The shared project, and a store with nothing in it."""
    return shared.with_home(tmp_path / "fresh")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerDaemon]:
    with DockerDaemon() as daemon:
        yield daemon


def only(directory: Path, *programs: str) -> dict[str, str]:
    """An environment whose PATH has nothing but git and these programs."""
    place = directory / "programs"
    place.mkdir()
    for name in ("git", "newuidmap", "newgidmap", *programs):
        (place / name).symlink_to(find_program(name))
    return {"PATH": str(place)}


def manifest_of(layout: Path, number: int = 0) -> dict[str, Any]:
    entry = json.loads((layout / "index.json").read_bytes())["manifests"][number]
    found: dict[str, Any] = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    return found


def names_in(layout: Path) -> dict[str, str]:
    """Manifest digests by the names of images."""
    listed = json.loads((layout / "index.json").read_bytes())["manifests"]
    return {one["annotations"]["org.opencontainers.image.ref.name"]: one["digest"] for one in listed}


# Docker's store.


@pytest.mark.needs_root
def test_docker_gets_the_image_as_a_stream_and_runs_it(app: CommandLine, project: Project, docker: DockerDaemon) -> None:
    env = {"DOCKER_HOST": docker.host}
    app("build")
    before = stored_bytes(app)
    image_id = app("export", "app", "--to", "docker-daemon:lw/one:1", env=env).stdout.strip()
    assert docker("image", "inspect", "--format", "{{.Id}}", "lw/one:1") == image_id
    assert docker("run", "--rm", "--network", "none", "lw/one:1") == "7"
    assert docker("run", "--rm", "--network", "none", "lw/one:1", "sh", "-c", "ls /files | wc -l") == str(FILES)
    fetched = stored_bytes(app) - before
    assert fetched < 3 << 20, "the base's layer, and no copy of what was exported"
    project.write("files/7", "changed\n")
    project.commit()
    again = app("export", "app", "--to", "docker-daemon:lw/one:1", env=env).stdout.strip()
    assert again != image_id
    assert docker("run", "--rm", "--network", "none", "lw/one:1") == "changed"


def stored_bytes(lw: CommandLine) -> int:
    return sum(one.stat().st_size for one in (lw.home / "blobs").rglob("*") if one.is_file())


@pytest.mark.needs_root
def test_skopeo_stands_in_where_docker_is_not_installed(shared: CommandLine, docker: DockerDaemon, tmp_path: Path) -> None:
    env = only(tmp_path, "skopeo")
    image_id = shared("export", "app", "--to", "docker-daemon:lw/two", env=env | {"DOCKER_HOST": docker.host}).stdout
    told = json.loads(skopeo("inspect", "--raw", "--config", f"--daemon-host={docker.host}", "docker-daemon:lw/two:latest"))
    assert told["config"]["Cmd"] == ["cat", "/files/7"]
    assert docker("image", "inspect", "--format", "{{.Id}}", "lw/two:latest") == image_id.strip()
    ran = shared("export", "app", "--to", "docker-daemon:lw/two", env=env | {"DOCKER_HOST": f"unix://{tmp_path}/none"}, code=3)
    assert f"Cannot connect to the Docker daemon at unix://{tmp_path}/none" in ran.stderr


@pytest.mark.parametrize(("place", "package"), [("docker-daemon:app:1", "docker.io"), ("containers-storage:app:1", "skopeo")])
def test_without_the_tool_nothing_is_built_and_the_package_is_named(fresh: CommandLine, tmp_path: Path, place: str, package: str) -> None:
    ran = fresh("export", "app", "--to", place, env=only(tmp_path), code=3)
    assert f"apt-get install {package}" in ran.stderr
    assert "Building" not in ran.stderr
    assert ran.stdout == ""


def test_a_daemon_that_does_not_run_is_told_in_its_own_words(shared: CommandLine, tmp_path: Path) -> None:
    ran = shared("export", "app", "--to", "docker-daemon:app:1", env={"DOCKER_HOST": f"unix://{tmp_path}/none"}, code=3)
    assert f"Cannot connect to the Docker daemon at unix://{tmp_path}/none" in ran.stderr
    assert "systemctl start docker" in ran.stderr
    assert "DOCKER_HOST" in ran.stderr


def test_a_daemon_that_hangs_is_left_at_once_and_its_tool_ended(shared: CommandLine, tmp_path: Path) -> None:
    """The real `docker`, and a socket that takes connections and never answers."""
    path = f"/tmp/layerwright-{os.getpid()}-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        run = start(shared, "export", "app", "--to", "docker-daemon:app:1", env={"DOCKER_HOST": f"unix://{path}"})
        silent.settimeout(60)
        taken, _ = silent.accept()
        with taken:
            tools = children_of(run.pid, "docker")
            assert tools
            run.send_signal(signal.SIGINT)
            assert run.wait(60) == 130
    os.unlink(path)
    await_that(lambda: not any(Path(f"/proc/{pid}").exists() for pid in tools))


def children_of(pid: int, name: str) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if re.search(rf"^PPid:\t{pid}$", text, re.MULTILINE) and text.startswith(f"Name:\t{name}\n"):
            found.append(int(status.parent.name))
    return found


# The store of Podman and others.


@pytest.mark.needs_root
@pytest.mark.parametrize("tool", ["skopeo", "podman"])
def test_a_store_of_podman_gets_the_image_by_the_tool_that_is_there(shared: CommandLine, tmp_path: Path, tool: str) -> None:
    env = only(tmp_path, tool, *(("conmon", "runc") if tool == "podman" else ()))
    with Podman() as podman:
        digest = shared("export", "app", "--to", f"containers-storage:{podman.store}example.com/lw/app:1", env=env).stdout.strip()
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
        assert podman("image", "inspect", "--format", "{{json .Config.Cmd}}", "example.com/lw/app:1") == '["cat","/files/7"]'
        container = podman("create", "example.com/lw/app:1")
        podman("cp", f"{container}:/files/999", str(tmp_path / "999"))
        podman("rm", container)
        assert podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}") == "example.com/lw/app:1"
    assert (tmp_path / "999").read_text() == "999\n"


@pytest.mark.needs_root
def test_what_the_tool_says_is_told(shared: CommandLine, tmp_path: Path) -> None:
    ran = shared("export", "app", "--to", f"containers-storage:[nosuch@{tmp_path}/r+{tmp_path}/n]app:1", code=1)
    assert "skopeo" in ran.stderr
    assert "nosuch" in ran.stderr


# Archives and layouts.


def test_archives_are_the_same_bytes_on_every_machine_and_through_a_pipe(shared: CommandLine, out: Path) -> None:
    other = shared.with_home(out / "other")
    for kind, name in (("oci-archive", "app"), ("docker-archive", "example.com/app:1")):
        shared("export", "app", "--to", f"{kind}:{out}/one:{name}")
        told = other("export", "app", "--to", f"{kind}:{out}/two:{name}").stdout.strip()
        with (out / "three").open("wb") as file:
            piped = start(shared, "export", "app", "--to", f"{kind}:-:{name}", stdout=file, stderr=subprocess.PIPE)
            said = piped.communicate()[1].decode()
        assert piped.returncode == 0, said
        assert told in said
        assert len({hashlib.sha256((out / one).read_bytes()).digest() for one in ("one", "two", "three")}) == 1
        assert skopeo("inspect", "--raw", "--config", f"{kind}:{out}/one")
        with tarfile.open(out / "one") as tar:
            assert {(one.mtime, one.uid, one.gid, one.mode) for one in tar} == {(0, 0, 0, 0o644)}


def test_a_thousand_files_are_read_by_others(shared: CommandLine, out: Path) -> None:
    shared("export", "app", "--to", f"oci:{out}/layout:it")
    assert len(read_layout(out / "layout").below("files")) == FILES
    if os.geteuid() == 0:
        root = unpacked_by_umoci(out / "layout", out / "bundle")
        assert sorted(os.listdir(root / "files"), key=int) == [str(number) for number in range(FILES)]


def test_an_archive_is_not_for_a_terminal(shared: CommandLine) -> None:
    ours, theirs = pty.openpty()
    try:
        run = start(shared, "export", "app", "--to", "oci-archive:-", stdout=theirs, stderr=subprocess.PIPE)
        said = run.communicate()[1].decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert run.returncode == 2
    assert "terminal" in said
    assert "Building" not in said


WRONG: list[tuple[list[str], str]] = [
    (["oci-archive:{out}/no/such/a.tar"], "mkdir -p {out}/no/such"),
    (["docker-archive:{out}/no/a.tar"], "mkdir -p {out}/no"),
    (["oci:{out}/no/such"], "mkdir -p {out}/no"),
    (["oci-archive:{out}"], "directory"),
    (["oci:{out}/taken"], "something else than an OCI layout"),
    (["oci-archive:{out}/a.tar", "tarball:{out}/b.tar"], "containers-storage:NAME"),
    (["oci-archive:-", "docker-archive:-"], "one archive"),
    ([], "--to"),
]


def test_a_wrong_destination_is_told_before_anything_is_built(fresh: CommandLine, out: Path) -> None:
    (out / "taken").mkdir()
    (out / "taken" / "file").write_text("mine")
    for places, said in WRONG:
        ran = fresh("export", "app", *(word for one in places for word in ("--to", one.format(out=out))), code=2)
        assert said.format(out=out) in ran.stderr
    assert not (fresh.home / "records").exists()
    assert os.listdir(out) == ["taken"]


def test_several_destinations_get_the_image_in_one_run(shared: CommandLine, out: Path) -> None:
    places = [f"oci-archive:{out}/a.tar", f"oci:{out}/layout:app", f"docker-archive:{out}/d.tar", "oci-archive:/dev/null"]
    ran = shared("export", "app", *(word for one in places for word in ("--to", one)))
    first, second, third, fourth = ran.stdout.split()
    config = json.loads(skopeo("inspect", "--raw", f"oci:{out}/layout:app"))["config"]["digest"]
    assert (first, third) == (second, config)
    assert fourth == first
    assert json.loads(skopeo("inspect", f"oci-archive:{out}/a.tar"))["Digest"] == first
    assert os.path.exists("/dev/null")
    assert not os.path.isfile("/dev/null")


def test_a_layout_holds_many_images_also_of_exports_at_once(app: CommandLine, project: Project, out: Path) -> None:
    app("build")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: app("export", "app", "--to", f"oci:{out}/layout:tag{number}"), range(6)))
    old = names_in(out / "layout")
    assert sorted(old) == [f"tag{number}" for number in range(6)]
    project.write("files/7", "changed\n")
    project.commit()
    new = app("export", "app", "--to", f"oci:{out}/layout:tag3").stdout.strip()
    assert names_in(out / "layout") == old | {"tag3": new}
    assert sorted(os.listdir(out)) == ["layout"]
    for name in old:
        skopeo("inspect", f"oci:{out}/layout:{name}")


def test_compression_is_chosen_for_our_layers_and_the_base_stays_as_it_was_pulled(shared: CommandLine, out: Path) -> None:
    kinds = {}
    for kind in ("zstd", "none", "gzip"):
        shared("export", "app", "--compression", kind, "--to", f"oci:{out}/{kind}")
        kinds[kind] = [layer["mediaType"].rpartition("tar")[2] for layer in manifest_of(out / kind)["layers"]]
    assert kinds == {"zstd": ["+gzip", "+zstd"], "none": ["+gzip", ""], "gzip": ["+gzip", "+gzip"]}
    assert {skopeo("inspect", "--config", "--raw", f"oci:{out}/{kind}") for kind in kinds} == {skopeo("inspect", "--config", "--raw", f"oci:{out}/gzip")}
    assert manifest_of(out / "gzip")["layers"][0] == manifest_of(out / "zstd")["layers"][0]


def test_a_registry_mounts_the_layers_of_a_base_that_it_has(shared: CommandLine, registry: RegistryServer) -> None:
    digest = shared("export", "app", "--to", f"docker://{registry.reference('exports/mounted:1')}").stdout.strip()
    base = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.reference('exports/mounted')}@{digest}"))["layers"][0]["digest"]
    asked = [line for line in registry.log.splitlines() if "/v2/exports/mounted/blobs/uploads/" in line and "PUT" in line]
    assert asked, "what is new is uploaded"
    assert not [line for line in asked if base.replace(":", "%3A") in line or base in line]


# Large.


PLACES: list[tuple[str, list[str]]] = [
    ("oci-archive:{out}/a.tar", ["--compression", "none"]),
    ("oci-archive:{out}/a.tar", ["--compression", "gzip"]),
    ("oci:{out}/layout", ["--compression", "zstd"]),
    ("docker-archive:{out}/a.tar", []),
    ("docker-archive:-", []),
]


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))


def test_a_large_layer_passes_through_and_is_never_held(large: CommandLine, out: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):  # the limit is one: a process that holds the layer does not fit
        subprocess.run((sys.executable, "-c", f"bytearray({LARGE_BYTES})"), preexec_fn=limited, check=True, capture_output=True)
    for place, options in PLACES:
        run = start(large, "export", "app", *options, "--to", place.format(out=out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=limited)
        said = run.communicate()[1].decode()
        assert run.returncode == 0, f"{place}: {said}"


def test_killed_on_the_way_it_leaves_nothing(large: CommandLine, out: Path) -> None:
    kill_while_writing(large, f"docker-archive:{out}/a.tar", out)
    assert os.listdir(out) == []
    kill_while_writing(large, f"oci:{out}/layout", out, "--compression", "none")
    assert not (out / "layout").exists()
    large("export", "app", "--to", f"oci:{out}/layout")
    assert os.listdir(out) == ["layout"], "what the killed one had begun is swept away"


def kill_while_writing(lw: CommandLine, place: str, directory: Path, *options: str) -> None:
    run = start(lw, "export", "app", *options, "--to", place)
    await_that(lambda: run.poll() is not None or written_bytes(run.pid, directory) > 1 << 20)
    assert run.poll() is None, "it was too quick to be killed on its way"
    run.kill()
    run.wait()


def written_bytes(pid: int, directory: Path) -> int:
    """How far the process has come in files below the directory, named or not yet."""
    try:
        links = [one for one in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(one).startswith(f"{directory}{os.sep}")]
        return sum(int(re.search(r"^pos:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{one.name}").read_text()).group(1)) for one in links)  # type: ignore[union-attr]
    except OSError:
        return 0


def test_stopped_on_the_way_it_leaves_nothing(large: CommandLine, out: Path) -> None:
    for place in (f"docker-archive:{out}/a.tar", f"oci:{out}/layout"):
        run = start(large, "export", "app", "--compression", "none", "--to", place)
        await_that(lambda run=run: run.poll() is not None or written_bytes(run.pid, out) > 1 << 20)  # type: ignore[misc]
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
        assert os.listdir(out) == []


@pytest.mark.needs_root
def test_a_full_disk_leaves_nothing(large: CommandLine, out: Path) -> None:
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", out), check=True)
    try:
        for place in (f"docker-archive:{out}/a.tar", f"oci-archive:{out}/a.tar", f"oci:{out}/layout"):
            ran = large("export", "app", "--compression", "none", "--to", place, code=3)
            assert "no space left" in ran.stderr
            assert str(out) in ran.stderr
            assert os.listdir(out) == []
    finally:
        subprocess.run(("umount", out), check=True)
    large("export", "app", "--to", f"docker-archive:{out}/a.tar")


# Damaged.


def damage_layer(lw: CommandLine) -> None:
    """Change one byte of the largest blob, the layer of sources."""
    path = max((one for one in (lw.home / "blobs").rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.fixture
def declared(lw: CommandLine, project: Project) -> CommandLine:
    project.write("file", b"x" * 3_000_000)
    project.werf("image: app\nfrom: scratch\ngit: [{add: /file, to: /file}]\n")
    project.commit()
    lw("build")
    return lw


def test_a_damaged_layer_is_made_again_but_a_stream_cannot_be_taken_back(declared: CommandLine, out: Path) -> None:
    damage_layer(declared)
    ran = declared("export", "app", "--to", "docker-archive:-", code=1)
    assert "not the whole image" in ran.stderr
    whole = declared("export", "app", "--to", f"docker-archive:{out}/a.tar")
    damage_layer(declared)
    again = declared("export", "app", "--to", f"docker-archive:{out}/b.tar")
    assert "made again" in again.stderr
    assert again.stdout == whole.stdout
    assert (out / "a.tar").read_bytes() == (out / "b.tar").read_bytes()


def test_stopping_an_export_does_not_spoil_the_store(large: CommandLine, out: Path) -> None:
    """A reader that goes away, or a full disk, says nothing about the layer that was being read."""
    fifo = out / "fifo"
    os.mkfifo(fifo)
    run = start(large, "export", "app", "--to", f"docker-archive:{fifo}")
    with fifo.open("rb") as reader:
        reader.read(1 << 20)
    assert run.wait(60) != 0
    ran = large("export", "app", "--to", f"docker-archive:{out}/a.tar")
    assert "made again" not in ran.stderr
    assert "Building" not in ran.stderr
