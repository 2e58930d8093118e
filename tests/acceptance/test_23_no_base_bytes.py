"""What is moved: declared stages read manifests, configs and indexes; a base comes once, past the disk; only commands have layers unpacked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages, push_busybox
from tests.support.commandline import CommandLine, Ran
from tests.support.layouts import tar_of
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import Requests, manifest, names_in
from tools.base_image import make_busybox_tar

DECLARED = """
image: app
from: {base}
git:
- add: /src
  to: /bin/../app
docker:
  CMD: [cat, /app/hello.txt]
"""
COMMANDS = (
    DECLARED
    + """
shell:
  setup:
  - echo made > /made
"""
)


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseImages]:
    """The base images in another registry."""
    with RegistryServer(tmp_path_factory.mktemp("abroad")) as server:
        yield push_busybox(server, tmp_path_factory.mktemp("abroad-images"))


def commit(project: Project, werf: str, hello: str = "hello\n") -> None:
    project.werf(werf)
    project.write("src/hello.txt", hello)
    project.commit()


def base_layer(registry: RegistryServer) -> str:
    (layer,) = manifest(registry, "base/busybox", "1")["layers"]
    return str(layer["digest"])


def disk_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file())


def moved(ran: Ran) -> tuple[int, int]:
    """Bytes down and up, as the last line of `build` tells them."""
    units = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
    counted = re.findall(r"([\d.]+) (B|KiB|MiB) (pulled|pushed)", ran.stdout.splitlines()[-1])
    found = {word: float(number) * units[unit] for number, unit, word in counted}
    return int(found.get("pulled", 0)), int(found.get("pushed", 0))


def test_a_base_in_the_same_registry_is_mounted_and_read_once_for_its_index(
    project: Project, lw: CommandLine, base_images: BaseImages, registry: RegistryServer, tmp_path: Path
) -> None:
    commit(project, DECLARED.format(base=base_images.busybox))
    layer = base_layer(registry)
    into, everywhere = Requests(registry, "own/mounted"), Requests(registry)
    lw("build", "--repo", registry.reference("own/mounted"))
    assert [one.status for one in into.of("POST", f"mount={layer.replace(':', '%3A')}")] == [201]
    assert len(everywhere.of("GET", f"/blobs/{layer}")) == 1
    assert into.of("PUT", f"digest={layer.replace(':', '%3A')}") == []
    assert disk_bytes(lw.home) < 200_000, "the base passed through"
    commit(project, DECLARED.format(base=base_images.busybox), hello="hello again\n")
    everything = Requests(registry)
    ran = lw.with_home(tmp_path / "empty")("build", "--repo", registry.reference("own/mounted"))
    assert [one for one in everything.all if layer in one.path or one.path.startswith("/v2/base/")] == []
    assert "app/gitLatestPatch" in ran.stdout
    down, up = moved(ran)
    assert 0 < down < 256 << 10
    assert 0 < up < 256 << 10


def test_a_base_of_another_registry_is_copied_once_past_the_disk(
    project: Project, lw: CommandLine, abroad: BaseImages, registry: RegistryServer, tmp_path: Path
) -> None:
    commit(project, DECLARED.format(base=abroad.busybox))
    layer = base_layer(abroad.registry)
    theirs, ours = Requests(abroad.registry), Requests(registry, "own/copied")
    lw("build", "--repo", registry.reference("own/copied"))
    assert len(theirs.of("GET", f"/blobs/{layer}")) == 1
    assert len(ours.of("PUT", f"digest={layer.replace(':', '%3A')}")) == 1
    assert disk_bytes(lw.home) < 200_000, "the base passed through"
    theirs, ours = Requests(abroad.registry), Requests(registry, "own/copied")
    commit(project, DECLARED.format(base=abroad.busybox), hello="hello again\n")
    lw.with_home(tmp_path / "second")("build", "--repo", registry.reference("own/copied"))
    commit(project, DECLARED.format(base=abroad.busybox).replace("image: app", "image: other"))
    lw.with_home(tmp_path / "third")("build", "--repo", registry.reference("own/copied"))
    assert theirs.all == [], "the base's registry is not asked again"
    assert [one for one in ours.all if layer in one.path.replace("%3A", ":")] == [], "its blob is neither read nor sent again"


def test_only_commands_have_layers_unpacked_and_they_come_from_the_repository(
    project: Project, lw: CommandLine, abroad: BaseImages, registry: RegistryServer, tmp_path: Path
) -> None:
    commit(project, COMMANDS.format(base=abroad.busybox))
    first = lw("build", "--repo", registry.reference("own/commands"))
    layer = base_layer(abroad.registry)
    commit(project, COMMANDS.format(base=abroad.busybox), hello="hello again\n")
    theirs, ours = Requests(abroad.registry), Requests(registry, "own/commands")
    empty = lw.with_home(tmp_path / "empty")
    ran = empty("build", "--repo", registry.reference("own/commands"))
    assert ours.of("GET", f"/blobs/{layer}") == []
    assert not list((tmp_path / "empty").glob("trees.*/*"))
    assert "app/gitLatestPatch" in ran.stdout
    commit(project, COMMANDS.format(base=abroad.busybox).replace("echo made", "echo made anew"))
    ours = Requests(registry, "own/commands")
    ran = lw.with_home(tmp_path / "another")("build", "--repo", registry.reference("own/commands"))
    assert len(ours.of("GET", f"/blobs/{layer}")) == 1
    assert list((tmp_path / "another").glob("trees.*/*"))
    assert not [path for path in (tmp_path / "another").glob("blobs/sha256/*/*") if path.name == layer[7:]], "unpacked as it came, and not kept beside"
    assert theirs.all == []
    assert names_in(ran.stdout)["app"] != names_in(first.stdout)["app"]
    assert lw.with_home(tmp_path / "runs")("run", "app", "--repo", registry.reference("own/commands"), "--", "cat", "/made").stdout == "made anew\n"


def test_imports_take_only_the_layers_they_need(project: Project, lw: CommandLine, base_images: BaseImages, registry: RegistryServer, tmp_path: Path) -> None:
    werf = (
        COMMANDS.format(base=base_images.busybox)
        + f"""
---
image: web
from: {base_images.busybox}
git:
- add: /src
  to: /srv
import:
- image: app
  add: /made
  to: /taken
  after: setup
"""
    )
    commit(project, werf)
    lw("build", "app", "--repo", registry.reference("own/imports"))
    layer, requests = base_layer(registry), Requests(registry)
    lw.with_home(tmp_path / "empty")("build", "--repo", registry.reference("own/imports"))
    assert requests.of("GET", f"/blobs/{layer}") == []
    ran = lw.with_home(tmp_path / "runs")("run", "web", "--repo", registry.reference("own/imports"), "--", "cat", "/taken")
    assert ran.stdout == "made\n"


def test_what_was_moved_and_asked_is_counted(project: Project, lw: CommandLine, abroad: BaseImages, registry: RegistryServer, tmp_path: Path) -> None:
    commit(project, DECLARED.format(base=abroad.busybox))
    theirs, ours = Requests(abroad.registry), Requests(registry)
    report = tmp_path / "report.json"
    ran = lw("build", "--repo", registry.reference("own/counted"), "--save-build-report", "--build-report-path", str(report))
    counted = re.search(r"(\d+) requests\)$", ran.stdout.splitlines()[-1])
    assert counted is not None
    assert int(counted[1]) == len(theirs.all) + len(ours.all)
    (layer,) = manifest(abroad.registry, "base/busybox", "1")["layers"]
    stages = {stage["Name"]: stage for stage in json.loads(report.read_text())["Images"]["app"]["Stages"]}
    assert layer["size"] < stages["from"]["BytesDown"] < layer["size"] + 10_000
    assert layer["size"] < stages["from"]["BytesUp"] < layer["size"] + 30_000
    assert 0 < stages["gitArchive"]["BytesUp"] < 30_000


def test_files_of_a_base_are_imported_where_it_lies_unpacked(
    project: Project, lw: CommandLine, base_images: BaseImages, registry: RegistryServer, tmp_path: Path
) -> None:
    """Its tar cannot be written again from there, as another tool wrote it: that is no damage."""
    odd = base_images.push("base/odd:1", [make_busybox_tar(), tar_of({"odd": b"odd\n"})], {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"]})
    imported = "import: [{add: /odd, to: /taken, image: app, after: setup}]"
    werf = f"image: app\nfrom: {odd}\ngit: [{{add: /src, to: /app}}]\n---\nimage: web\nfrom: {odd}\ngit: [{{add: /src, to: /srv}}]\n{imported}\n"
    commit(project, werf)
    lw("build", "--repo", registry.reference("own/odd"))
    commit(project, werf + "shell: {install: [echo one]}\n")
    ran = lw.with_home(tmp_path / "empty")("build", "--repo", registry.reference("own/odd"))
    assert "made again" not in ran.stderr
    assert len(re.findall("Building stage web/dependenciesAfterSetup", ran.stdout)) == 1
    assert lw.with_home(tmp_path / "runs")("run", "web", "--repo", registry.reference("own/odd"), "--", "cat", "/taken").stdout == "odd\n"
