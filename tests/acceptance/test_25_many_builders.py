"""Twenty builders on two machines publish one commit, whose commands give other bytes each time: they agree on one image."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.namespaces import HOSTS, TwoMachines
from tests.support.processes import start
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import manifest_digest, names_in, tags

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

BUILDERS = 20
LIMIT_S = 240
WERF = """
image: app
from: {base}
git:
- add: /src
  to: /app
shell:
  install:
  - head -c 1000 /dev/urandom > /r
"""


@pytest.fixture
def machines() -> Iterator[TwoMachines]:
    with TwoMachines() as made:
        yield made


@pytest.fixture
def far(machines: TwoMachines, registry: RegistryServer, tmp_path: Path) -> Iterator[RegistryServer]:
    """The registry once more, on the first machine's address, which this one cannot reach."""
    with RegistryServer(tmp_path / "far", storage=registry.storage, host=HOSTS[0], prefix=machines.prefix(0)) as server:
        yield server


@pytest.mark.slow
def test_twenty_builders_on_two_machines_report_what_the_registry_then_has(
    machines: TwoMachines,
    far: RegistryServer,
    project: Project,
    lw: CommandLine,
    base_images: BaseImages,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    near, repository = base_images.registry, "own/many"
    project.werf(WERF.format(base=far.reference("base/busybox:1")))
    project.write("src/hello.txt", "hello\n")
    project.commit()
    running: list[subprocess.Popen[bytes]] = []
    request.addfinalizer(lambda: [process.kill() for process in running])  # none is left if one fails
    for number in range(BUILDERS):
        one = CommandLine(home=tmp_path / f"home{number}", user_home=lw.user_home, directory=project.path, prefix=machines.prefix(number % 2))
        report = ("--save-build-report", "--build-report-path", str(tmp_path / f"report{number}.json"))
        arguments = ("build", "--repo", far.reference(repository), "--insecure-registry", *report)
        running.append(start(one, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    told = [process.communicate(timeout=LIMIT_S)[0].decode() for process in running]
    assert [text for process, text in zip(running, told, strict=True) if process.returncode != 0] == []
    printed = {names_in(text)["app"] for text in told}
    ((full, digest),) = printed
    reports = [json.loads((tmp_path / f"report{number}.json").read_bytes()) for number in range(BUILDERS)]
    assert {report["Images"]["app"]["DockerImageDigest"] for report in reports} == {digest}
    assert manifest_digest(near, repository, full.rpartition(":")[2]) == digest
    assert len([name for name in tags(near, repository) if "-" not in name]) == 1
