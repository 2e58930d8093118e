"""Images for several platforms: one pass for each, one name for all, an index that other tools read; commands of another architecture, or why not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layerwright.errors import MachineLacks
from layerwright.oci.platform import Platform, host_platform
from layerwright.runtime.foreign import refuse_foreign
from tests.support.commandline import CommandLine
from tests.support.emulation import Emulation
from tests.support.layouts import Layer, Layout, skopeo, tar_of
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import Requests, manifest, names_in, tags
from tools.base_image import architecture, make_busybox_tar

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

HOST = architecture()
OTHER = "arm64" if HOST == "amd64" else "amd64"
BOTH = f"linux/{HOST},linux/{OTHER}"
SETTINGS = {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
DECLARED = """
image: app
from: {base}
git:
- add: /src
  to: /app
imageSpec:
  config:
    cmd: [cat, /app/hello.txt]
---
image: web
from: {base}
git:
- add: /src
  to: /srv
import:
- image: app
  add: /arch
  to: /taken
  after: setup
"""
COMMANDS = """
image: app
from: {base}
shell:
  install:
  - uname -m > /machine
"""


@pytest.fixture
def base(registry: RegistryServer, tmp_path: Path) -> str:
    """An index of images that say which architecture they are for; their busybox is this machine's."""
    layout = Layout(tmp_path / "base")
    images = [layout.image([Layer(make_busybox_tar()), Layer(tar_of({"arch": f"{arch}\n".encode()}))], SETTINGS, arch=arch) for arch in (HOST, OTHER, "s390x")]
    return layout.push(registry, layout.index(images), f"base/{tmp_path.name[:40].lower().replace('_', '-')}:1")


@pytest.fixture
def shop(project: Project, lw: CommandLine, base: str) -> CommandLine:
    commit(project, DECLARED.format(base=base))
    return lw


@pytest.fixture
def no_s390x() -> None:
    """Programs for s390x cannot be executed here."""
    try:
        refuse_foreign(Platform("linux", "s390x"), where="this test")
    except MachineLacks:
        return
    pytest.skip("programs for s390x are executed here")


def commit(project: Project, werf: str, hello: str = "hello\n") -> None:
    project.werf(werf)
    project.write("src/hello.txt", hello)
    project.commit()


def platforms_of(reference: str) -> dict[str, str]:
    """The index that a name stands for: platform and manifest."""
    raw: dict[str, Any] = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}"))
    assert raw["mediaType"] == "application/vnd.oci.image.index.v1+json"
    return {f"{one['platform']['os']}/{one['platform']['architecture']}": one["digest"] for one in raw["manifests"]}


@pytest.fixture
def files_of() -> Iterator[Callable[[str, str], Path]]:
    """The root file system of an image as podman pulls it for an architecture."""
    place = tempfile.mkdtemp(prefix="lw-")  # podman takes no long paths
    podman = (find_program("podman"), f"--root={place}/r", f"--runroot={place}/n", "--storage-driver=vfs")

    def run(*arguments: str) -> str:
        done = subprocess.run((*podman, *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def files(reference: str, arch: str) -> Path:
        image = run("pull", "--quiet", "--tls-verify=false", f"--arch={arch}", reference)
        return Path(run("image", "mount", image))

    try:
        yield files
        run("image", "unmount", "--all")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_a_name_stands_for_an_index_that_other_tools_read(shop: CommandLine, registry: RegistryServer, files_of: Callable[[str, str], Path]) -> None:
    built = names_in(shop("build", "--repo", registry.reference("own/index"), "--platform", BOTH).stdout)
    assert sorted(built) == ["app", "web"]
    for full, digest in built.values():
        assert sorted(platforms_of(full)) == sorted(BOTH.split(","))
        assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{full}"))["Digest"] == digest
    for arch in (HOST, OTHER):
        files = files_of(built["web"][0], arch)
        assert (files / "arch").read_text() == (files / "taken").read_text() == f"{arch}\n"
        assert (files / "srv/hello.txt").read_text() == "hello\n"


def test_what_is_built_is_asked_for_with_one_request_for_each_image(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    asked = ("build", "--repo", registry.reference("own/asked-platforms"), "--platform", BOTH)
    first = names_in(shop(*asked).stdout)
    for home in ("home", "empty", "empty"):  # where it was built, elsewhere, and there again, where the commit is remembered
        requests = Requests(registry)
        ran = shop.with_home(tmp_path / home)(*asked)
        assert names_in(ran.stdout) == first
        assert [one.method for one in requests.all] == ["HEAD", "HEAD"]
    requests = Requests(registry)
    assert shop("stage", "image", "app", *asked[1:]).stdout.strip() == first["app"][0]
    assert [one.method for one in requests.all] == ["HEAD"]
    order = names_in(shop("build", *asked[1:3], "--platform", ",".join(reversed(BOTH.split(",")))).stdout)
    assert order == first, "in whatever order they are named"


def test_a_build_for_one_platform_shares_with_one_for_several(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    repo = registry.reference("own/shared-platforms")
    one = names_in(shop("build", "--repo", repo, "--platform", f"linux/{OTHER}").stdout)
    ran = shop.with_home(tmp_path / "second")("build", "--repo", repo, "--platform", BOTH)
    assert f"linux/{OTHER})/" not in ran.stdout, "nothing of it is built or looked into"
    several = names_in(ran.stdout)
    for name, (full, digest) in one.items():
        assert platforms_of(several[name][0])[f"linux/{OTHER}"] == digest
        assert several[name][0] != full
    third = shop.with_home(tmp_path / "third")("build", "--repo", repo)
    assert "0 stages built" in third.stdout
    assert names_in(third.stdout)["app"][1] == platforms_of(several["app"][0])[f"linux/{HOST}"]


def test_git_layers_are_made_once_for_all_platforms(shop: CommandLine, registry: RegistryServer) -> None:
    ran = shop("build", "app", "--repo", registry.reference("own/once-platforms"), "--platform", BOTH, "--log-debug")
    taken = re.findall(r"\[layer\] app/gitArchive: layer (\S+) was made for another image", ran.stdout)
    assert len(taken) == 1
    found = [manifest(registry, "own/once-platforms", digest) for digest in platforms_of(names_in(ran.stdout)["app"][0]).values()]
    assert len({one["layers"][-1]["digest"] for one in found}) == 1
    assert len({one["layers"][1]["digest"] for one in found}) == 2, "the bases differ"


def test_werf_yaml_names_platforms(project: Project, lw: CommandLine, base: str, registry: RegistryServer) -> None:
    listed = ", ".join(BOTH.split(","))
    werf = (
        DECLARED.format(base=base)
        .replace("\nimage: app", f"\nimage: app\nplatform: [{listed}]", 1)
        .replace("\nimage: web", f"\nimage: web\nplatform: [linux/{HOST}]")
    )
    commit(project, werf)
    built = names_in(lw("build", "--repo", registry.reference("own/listed")).stdout)
    assert sorted(platforms_of(built["app"][0])) == sorted(BOTH.split(","))
    web = manifest(registry, "own/listed", built["web"][0].rpartition(":")[2])
    assert "layers" in web, "one platform is an image, whatever others are built for"
    alone = names_in(lw("build", "web", "--repo", registry.reference("own/listed")).stdout)
    assert alone["web"] == built["web"]


def test_the_report_has_one_image_with_the_stages_of_every_platform(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    asked = ("build", "app", "--repo", registry.reference("own/report-platforms"), "--platform", BOTH, "--save-build-report", "--build-report-path")
    report = tmp_path / "report.json"
    built = names_in(shop(*asked, str(report)).stdout)["app"]
    for _ in range(2):
        image = json.loads(report.read_text())["Images"]["app"]
        assert image["TargetPlatform"] == image["ConfigType"] == ""
        assert (image["DockerImageName"], image["DockerImageDigest"]) == built
        names = [stage["Name"] for stage in image["Stages"]]
        assert names == [f"{stage} ({platform})" for platform in BOTH.split(",") for stage in ("from", "gitArchive", "imageSpec")]
        there = tags(registry, "own/report-platforms")
        assert all(stage["DockerTag"] in there for stage in image["Stages"] if not stage["Name"].startswith("imageSpec"))
        shop.with_home(tmp_path / "empty")(*asked, str(report))
    assert {stage["Source"] for stage in image["Stages"]} == {"repo"}


def test_the_final_repository_and_further_tags_have_the_index(shop: CommandLine, registry: RegistryServer) -> None:
    repo, final = registry.reference("own/index-stages"), registry.reference("own/index-final")
    built = names_in(shop("build", "app", "--repo", repo, "--final-repo", final, "--add-custom-tag", "v1", "--platform", BOTH).stdout)["app"]
    assert built[0].startswith(f"{final}:")
    assert platforms_of(f"{final}:v1") == platforms_of(built[0])
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{final}:v1"))["Digest"] == built[1]
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{final}:v1", f"oci:{shop.home.parent / 'copied'}:v1")


def test_without_a_repository(shop: CommandLine) -> None:
    first = shop("build", "--platform", BOTH)
    assert "app (linux/amd64)/gitArchive" in first.stdout
    named = re.findall(r"^Image (\S+)  (\S+)$", first.stdout, re.MULTILINE)
    again = shop("build", "--platform", BOTH)
    assert "0 stages built" in again.stdout
    assert re.findall(r"^Image (\S+)  (\S+)$", again.stdout, re.MULTILINE) == named
    assert shop("stage", "image", "app", "--platform", BOTH).stdout.strip() == dict(named)["app"]
    ran = shop("build", "-Z", "app", "--platform", f"linux/{HOST},linux/s390x", code=1)
    assert "app (linux/s390x)" in ran.stderr
    assert f"layerwright build app --platform linux/{HOST},linux/s390x" in ran.stderr


def test_run_takes_the_image_of_this_machine(shop: CommandLine, registry: RegistryServer, no_s390x: None, tmp_path: Path) -> None:
    repo = registry.reference("own/run-platforms")
    reverse = f"linux/{OTHER},linux/{HOST}"
    for command in (shop, shop.with_home(tmp_path / "empty")):
        assert command("run", "app", "--repo", repo, "--platform", reverse, "--", "cat", "/arch").stdout == f"{HOST}\n"
    ran = shop("run", "app", "--repo", repo, "--platform", f"linux/{OTHER},linux/s390x", code=2)
    assert f"and not for {host_platform()}, as this machine is" in ran.stderr
    assert f"--platform linux/{OTHER}" in ran.stderr
    ran = shop("run", "app", "--repo", repo, "--platform", "linux/s390x", "--", "cat", "/arch", code=3)
    assert f"cannot run on this machine ({host_platform()})" in ran.stderr


def test_export_sends_every_platform_where_that_can_be(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    pushed = registry.reference("own/exported-platforms:1")
    to = (f"docker://{pushed}", f"oci:{tmp_path / 'layout'}:1", f"oci-archive:{tmp_path / 'archive.tar'}:1")
    ran = shop("export", "app", "--platform", BOTH, *(word for one in to for word in ("--to", one)))
    (digest,) = set(ran.stdout.split())
    assert sorted(platforms_of(pushed)) == sorted(BOTH.split(","))
    for place in (f"docker://{pushed}", *to[1:]):
        copied = tmp_path / f"copied-{place.partition(':')[0]}"
        skopeo("copy", "--all", "--src-tls-verify=false", "--preserve-digests", place, f"dir:{copied}")
        said = json.loads((copied / "manifest.json").read_bytes())
        assert sorted(one["platform"]["architecture"] for one in said["manifests"]) == sorted((HOST, OTHER))
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{pushed}"))["Digest"] == digest
    ran = shop("export", "app", "--platform", BOTH, "--to", f"docker-archive:{tmp_path / 'docker.tar'}", code=2)
    assert f"name one: --platform linux/{HOST}" in ran.stderr
    assert "Building stage" not in ran.stderr


# Commands of another architecture.


def test_commands_that_cannot_run_here_are_refused_before_anything_is_pulled(
    project: Project, lw: CommandLine, base: str, registry: RegistryServer, no_s390x: None
) -> None:
    commit(project, COMMANDS.format(base=base))
    requests = Requests(registry, base.partition("/")[2].rpartition(":")[0])
    for asked in (("--platform", "linux/s390x"), ("--platform", "linux/s390x", "--repo", registry.reference("own/foreign"))):
        ran = lw("build", *asked, code=3)
        assert f"image 'app', stage install: commands for linux/s390x cannot run on this machine ({host_platform()})" in ran.stderr
        assert "qemu-user-static" in ran.stderr
    assert requests.all == []


def test_declared_stages_of_another_architecture_need_no_emulator(shop: CommandLine, registry: RegistryServer) -> None:
    built = names_in(shop("build", "web", "--repo", registry.reference("own/declared"), "--platform", "linux/s390x").stdout)
    assert manifest(registry, "own/declared", built["web"][0].rpartition(":")[2])["layers"]
    assert not list(shop.home.glob("trees.*/*"))


def test_commands_run_in_an_emulator(
    project: Project, lw: CommandLine, registry: RegistryServer, emulation: Emulation, tmp_path: Path, files_of: Callable[[str, str], Path]
) -> None:
    layout = Layout(tmp_path / "emulated")
    foreign = emulation.platform.architecture
    images = [layout.image([Layer(make_busybox_tar())], SETTINGS, arch=HOST), layout.image([Layer(emulation.base_tar())], SETTINGS, arch=foreign)]
    commit(project, COMMANDS.format(base=layout.push(registry, layout.index(images), "base/emulated:1")))
    ran = lw("build", "--repo", registry.reference("own/emulated"), "--platform", BOTH)
    full, _ = names_in(ran.stdout)["app"]
    here = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout
    assert (files_of(full, HOST) / "machine").read_text() == here
    assert (files_of(full, foreign) / "machine").read_text() == f"{emulation.machine}\n"
    machine = lw("run", "app", "--repo", registry.reference("own/emulated"), "--platform", f"linux/{foreign}", "--", "cat", "/machine").stdout
    assert machine == f"{emulation.machine}\n"


def test_a_secondary_repository_has_what_several_platforms_need(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    theirs, ours = registry.reference("own/their-platforms"), registry.reference("own/our-platforms")
    first = names_in(shop("build", "--repo", theirs, "--platform", BOTH).stdout)
    secondary = Requests(registry, "own/their-platforms")
    ran = shop.with_home(tmp_path / "another")("build", "--repo", ours, "--secondary-repo", theirs, "--platform", BOTH)
    assert "0 stages built" in ran.stdout
    assert {name: digest for name, (_, digest) in names_in(ran.stdout).items()} == {name: digest for name, (_, digest) in first.items()}
    assert platforms_of(names_in(ran.stdout)["web"][0]) == platforms_of(first["web"][0])
    assert {one.method for one in secondary.all} <= {"GET", "HEAD"}
