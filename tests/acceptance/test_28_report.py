"""The report of a build in a repository: for each stage where it came from, what was moved for it and how long it took, as JSON and as variables."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.machine import find_program
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import Requests, names_in, tags

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

WERF = """
image: app/web-1.0
from: {base}
git:
- add: /src
  to: /app
  stageDependencies:
    setup: setup.txt
shell:
  install:
  - echo one > /one
  setup:
  - cp /app/setup.txt /two
"""
IMAGE = "app/web-1.0"


@pytest.fixture
def shop(project: Project, lw: CommandLine, base_images: BaseImages) -> CommandLine:
    project.werf(WERF.format(base=base_images.busybox))
    project.write("src/setup.txt", "one\n")
    project.commit()
    return lw


def reported(lw: CommandLine, repo: str, path: Path, *more: str) -> tuple[dict[str, Any], str]:
    ran = lw("build", "--repo", repo, "--save-build-report", "--build-report-path", str(path), *more)
    return json.loads(path.read_text())["Images"][IMAGE], ran.stdout


def sources(image: dict[str, Any]) -> dict[str, str]:
    return {stage["Name"]: stage["Source"] for stage in image["Stages"]}


def test_each_stage_says_where_it_came_from(shop: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    repo = registry.reference("own/report")
    image, _ = reported(shop, repo, tmp_path / "1.json")
    assert set(sources(image).values()) == {"built"}
    assert image["Rebuilt"] is True
    for stage in image["Stages"]:
        assert stage["Rebuilt"] is True
        assert stage["SourceType"] == ""
        assert stage["BytesUp"] > 0
        assert float(stage["BuildTime"]) >= 0
    image, _ = reported(shop.with_home(tmp_path / "empty"), repo, tmp_path / "2.json")
    assert set(sources(image).values()) == {"repo"}
    assert {stage["SourceType"] for stage in image["Stages"]} == {"repo"}
    assert image["Rebuilt"] is False
    project.write("src/setup.txt", "two\n")
    project.commit()
    image, _ = reported(shop.with_home(tmp_path / "empty"), repo, tmp_path / "3.json")
    assert sources(image) == {"from": "repo", "gitArchive": "repo", "install": "repo", "setup": "built"}
    down = {stage["Name"]: stage["BytesDown"] for stage in image["Stages"]}
    assert down["setup"] > 500_000, "the layers that the command stands on"
    image, _ = reported(shop, registry.reference("own/report-of-another"), tmp_path / "4.json", "--secondary-repo", repo)
    assert sources(image) == dict.fromkeys(("from", "gitArchive", "install", "setup"), "secondary")


def test_what_was_built_locally_says_so(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    shop("build")
    image, stdout = reported(shop, registry.reference("own/report-local"), tmp_path / "1.json")
    assert set(sources(image).values()) == {"local"}
    assert "0 stages built" in stdout


def test_names_and_digests_are_those_of_the_registry(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    repo = registry.reference("own/report-names")
    image, stdout = reported(shop, repo, tmp_path / "1.json")
    full, digest = names_in(stdout)[IMAGE]
    assert (image["DockerRepo"], image["DockerImageName"], image["DockerImageDigest"]) == (repo, full, digest)
    assert image["DockerTag"] == image["ContentDigest"] == full.rpartition(":")[2]
    inspect = (find_program("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{repo}@{digest}")
    found = json.loads(subprocess.run(inspect, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout)
    assert image["DockerImageID"] == found["config"]["digest"]
    there = tags(registry, "own/report-names")
    for stage in image["Stages"]:
        assert stage["DockerImageName"] == f"{repo}:{stage['DockerTag']}"
        assert stage["DockerTag"] in there


def test_variables_for_a_shell(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    path = tmp_path / "build.env"
    ran = shop("build", "--repo", registry.reference("own/report-env"), "--save-build-report", "--build-report-path", str(path))
    full, digest = names_in(ran.stdout)[IMAGE]
    names = "$WERF_APP_WEB_1_0_DOCKER_IMAGE_NAME $WERF_APP_WEB_1_0_DOCKER_IMAGE_DIGEST $WERF_APP_WEB_1_0_DOCKER_REPO $WERF_APP_WEB_1_0_DOCKER_TAG"
    said = subprocess.run(["sh", "-c", f". {path} && echo {names}"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    repo, _, tag = full.rpartition(":")
    assert said.split() == [full, digest, repo, tag]


def test_a_report_of_what_was_only_found_reads_the_record_and_nothing_else(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    repo = registry.reference("own/report-found")
    reported(shop, repo, tmp_path / "1.json")
    requests = Requests(registry, "own/report-found")
    reported(shop.with_home(tmp_path / "empty"), repo, tmp_path / "2.json")
    assert [one.method for one in requests.all] == ["HEAD", "GET", "GET"]
