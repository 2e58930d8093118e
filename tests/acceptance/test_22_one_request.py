"""A built commit on an empty machine: one request for each image, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.faulty_proxy import FaultyProxy
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import Requests, names_in

IMAGES = 5
WERF = """
image: app{number}
from: {base}
git:
- add: /src
  to: /app{number}
docker:
  ENV:
    NUMBER: "{number}"
"""


@pytest.fixture
def shop(project: Project, lw: CommandLine, base_images: BaseImages) -> CommandLine:
    project.werf("---".join(WERF.format(number=number, base=base_images.busybox) for number in range(IMAGES)))
    project.write("src/hello.txt", "hello\n")
    project.commit()
    return lw


def test_an_empty_machine_asks_for_each_image_once_and_takes_nothing(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    built = names_in(shop("build", "--repo", registry.reference("own/asked")).stdout)
    assert len(built) == IMAGES
    requests, everything = Requests(registry, "own/asked"), Requests(registry)
    empty = shop.with_home(tmp_path / "empty")
    ran = empty("build", "--repo", registry.reference("own/asked"))
    assert names_in(ran.stdout) == built
    assert len(requests.all) == IMAGES == len(everything.all), requests.all
    assert sorted(one.path.rpartition("/")[2] for one in requests.of("HEAD", "/manifests/")) == sorted(full.rpartition(":")[2] for full, _ in built.values())
    assert f"{IMAGES} images, {IMAGES} found in the repository, 0 stages built, 0 reused, {IMAGES} requests" in ran.stdout
    again = Requests(registry)
    assert names_in(empty("build", "--repo", registry.reference("own/asked")).stdout) == built
    assert len(again.all) == IMAGES, "the same where the commit is remembered"


def test_the_requests_go_out_together(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    """None of them is answered before all have come: one after the other would wait for ever."""
    shop("build", "--repo", registry.reference("own/together"))
    with FaultyProxy(registry.address) as proxy:
        proxy.fail("HEAD", "/manifests/", *proxy.all_at_once(IMAGES))
        ran = shop.with_home(tmp_path / "empty")("build", "--repo", proxy.reference("own/together"), env={"LAYERWRIGHT_REGISTRY_TIMEOUT": "60"})
        assert len(names_in(ran.stdout)) == IMAGES
        assert len(proxy.asked) == IMAGES


def test_only_what_is_missing_is_looked_into(shop: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    shop("build", "--repo", registry.reference("own/missing"))
    text = (project.path / "werf.yaml").read_text()
    project.write("werf.yaml", text.replace('NUMBER: "3"', 'NUMBER: "three"'))
    project.commit()
    ran = shop.with_home(tmp_path / "empty")("build", "--repo", registry.reference("own/missing"))
    assert sorted(re.findall(r"^Building stage (\S+)", ran.stdout, re.MULTILINE)) == ["app3/dockerInstructions"]
    assert len(re.findall(r"^Use previously built image for (\S+)  \(\d", ran.stdout, re.MULTILINE)) == IMAGES - 1


def test_an_image_that_others_stand_on_is_not_read_either(
    project: Project, lw: CommandLine, base_images: BaseImages, registry: RegistryServer, tmp_path: Path
) -> None:
    project.werf(f"""
        image: base
        from: {base_images.busybox}
        git:
        - add: /src
          to: /base
        ---
        image: app
        fromImage: base
        docker:
          CMD: [ls]
        """)
    project.write("src/hello.txt", "hello\n")
    project.commit()
    built = names_in(lw("build", "--repo", registry.reference("own/stack")).stdout)
    requests = Requests(registry)
    assert names_in(lw.with_home(tmp_path / "empty")("build", "app", "--repo", registry.reference("own/stack")).stdout) == built
    assert [one.method for one in requests.all] == ["HEAD", "HEAD"]
