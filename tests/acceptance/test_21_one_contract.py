"""Stages in a registry repository: the names they have there, that they are written once, and that other tools read every one of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import NAMES, Requests, manifest, names_in, tags

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

WERF = """
image: app
from: {base}
git:
- add: /src
  to: /app
  stageDependencies:
    install: deps.txt
shell:
  install:
  - cp /app/deps.txt /installed
imageSpec:
  config:
    cmd: [cat, /app/hello.txt]
"""


@pytest.fixture
def shop(project: Project, lw: CommandLine, base_images: BaseImages) -> CommandLine:
    project.werf(WERF.format(base=base_images.busybox))
    project.write("src/hello.txt", "hello\n")
    project.write("src/deps.txt", "one\n")
    project.commit()
    return lw


def test_what_a_build_leaves_has_just_these_names_and_nothing_was_listed_or_deleted(shop: CommandLine, project: Project, registry: RegistryServer) -> None:
    requests = Requests(registry, "own/names")
    shop("build", "--repo", registry.reference("own/names"))
    project.write("src/hello.txt", "hello again\n")
    project.commit()
    shop("build", "--repo", registry.reference("own/names"))
    asked = requests.all
    found = tags(registry, "own/names")
    assert [name for name in found if not NAMES.match(name)] == []
    kinds = [name.partition("-")[0] if "-" in name else "image" for name in found]
    # Stages: from, gitArchive and install. What only exists within a finished image has no name: gitLatestPatch, imageSpec.
    assert {kind: kinds.count(kind) for kind in kinds} == {"image": 2, "stage": 3, "record": 5, "index": 4}
    assert [one for one in asked if "tags/list" in one.path or "referrers" in one.path] == []
    assert all("/blobs/uploads/" in one.path for one in asked if one.method == "DELETE")


def test_every_manifest_says_what_it_is(shop: CommandLine, registry: RegistryServer) -> None:
    shop("build", "--repo", registry.reference("own/annotated"))
    for name in tags(registry, "own/annotated"):
        found = manifest(registry, "own/annotated", name)
        said = found["annotations"]
        kind, _, rest = name.rpartition("-")
        assert found["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
        assert {layer["mediaType"].partition("+")[0] for layer in found["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
        match kind:
            case "stage":
                assert said["dev.layerwright.stage-digest"] == rest
            case "":
                assert said["dev.layerwright.content-digest"] == rest
            case "record":
                assert said["dev.layerwright.record-of"] in (rest, f"stage-{rest}")
            case "index":
                assert said["dev.layerwright.index-of"] == f"sha256:{rest}"
    digests = [json.dumps(manifest(registry, "own/annotated", name), sort_keys=True) for name in tags(registry, "own/annotated")]
    assert len(set(digests)) == len(digests), "no two names share a manifest"


def test_names_are_written_once(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    first = names_in(shop("build", "--repo", registry.reference("own/once")).stdout)
    before = {name: manifest(registry, "own/once", name) for name in tags(registry, "own/once")}
    requests = Requests(registry, "own/once")
    second = names_in(shop.with_home(tmp_path / "another")("build", "--repo", registry.reference("own/once")).stdout)
    assert second == first
    assert [one for one in requests.all if one.method not in ("GET", "HEAD")] == []
    assert {name: manifest(registry, "own/once", name) for name in tags(registry, "own/once")} == before


def test_other_tools_read_every_name(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    shop("build", "--repo", registry.reference("own/read"))
    for name in tags(registry, "own/read"):
        source = f"docker://{registry.reference('own/read')}:{name}"
        copy = (find_program("skopeo"), "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", source, f"oci:{tmp_path / 'layout'}:{name}")
        done = subprocess.run(copy, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_podman_pulls_a_stage_and_a_finished_image_and_sees_their_files_and_labels(
    shop: CommandLine, registry: RegistryServer, request: pytest.FixtureRequest
) -> None:
    (full, _) = names_in(shop("build", "--repo", registry.reference("own/pulled")).stdout)["app"]
    place = tempfile.mkdtemp(prefix="lw-")  # podman takes no long paths
    request.addfinalizer(lambda: shutil.rmtree(place, ignore_errors=True))
    podman = (find_program("podman"), f"--root={place}/r", f"--runroot={place}/n", "--storage-driver=vfs")
    stages = [name for name in tags(registry, "own/pulled") if name.startswith("stage-")]
    for name in (full, *(f"{registry.reference('own/pulled')}:{one}" for one in stages)):
        done = subprocess.run((*podman, "pull", "--quiet", "--tls-verify=false", name), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said = subprocess.run((*podman, "image", "inspect", name), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
        labels = json.loads(said)[0]["Labels"]
        assert labels["werf"] == "test"
        assert labels["werf-stage-content-digest"] == name.rpartition(":")[2].removeprefix("stage-")
    mounted = subprocess.run((*podman, "image", "mount", full), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout.strip()
    try:
        assert (Path(mounted) / "app/hello.txt").read_text() == "hello\n"
        assert (Path(mounted) / "installed").read_text() == "one\n"
    finally:
        subprocess.run((*podman, "image", "unmount", "--all"), stdin=subprocess.DEVNULL, capture_output=True, check=True)
