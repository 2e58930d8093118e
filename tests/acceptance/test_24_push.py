"""Pushing to a repository: in one pass and in chunks, nothing twice, again after failures; and refused before the work, not after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.faulty_proxy import Exchange, FaultyProxy
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import Requests, manifest, names_in

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

MIB = 1 << 20
WERF = """
image: app
from: {base}
shell:
  install:
  - echo COMMANDS RUN; head -c {size} /dev/urandom > /large
"""
QUICK = {"LAYERWRIGHT_REGISTRY_TIMEOUT": "10", "LAYERWRIGHT_REGISTRY_RETRIES": "4", "LAYERWRIGHT_REGISTRY_LONGEST_WAIT": "2"}


@pytest.fixture
def large(project: Project, lw: CommandLine, base_images: BaseImages) -> CommandLine:
    project.werf(WERF.format(base=base_images.busybox, size=20 * MIB))
    project.commit()
    return lw


@pytest.fixture
def proxy(registry: RegistryServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(registry.address, wants_token=True) as made:
        yield made


def test_a_layer_is_sent_in_chunks_while_it_is_made_and_leaves_no_packed_blob(large: CommandLine, registry: RegistryServer) -> None:
    requests = Requests(registry, "own/chunks")
    built = names_in(large("build", "--repo", registry.reference("own/chunks")).stdout)["app"]
    patches = requests.of("PATCH", "/blobs/uploads/")
    assert len(patches) >= 2
    assert len({one.path.partition("?")[0] for one in patches}) == 1, "one upload"
    packed = manifest(registry, "own/chunks", built[0].rpartition(":")[2])["layers"][-1]
    assert packed["size"] > 20 * MIB
    name = packed["digest"][7:]
    assert not (large.home / "blobs/sha256" / name[:2] / name).exists()


def test_what_the_registry_has_is_not_sent_again(large: CommandLine, project: Project, base_images: BaseImages, registry: RegistryServer) -> None:
    large("build", "--repo", registry.reference("own/twice"))
    text = (project.path / "werf.yaml").read_text()
    project.write("werf.yaml", text + "docker:\n  ENV:\n    MORE: one\n")
    project.commit()
    requests = Requests(registry, "own/twice")
    large("build", "--repo", registry.reference("own/twice"))
    assert requests.of("PATCH") == []
    sent = requests.of("POST", "/blobs/uploads/")
    assert len(sent) < 12, "small blobs only: the config, the record, the trial"


FAILS = {
    "reset": (faults.reset,),
    "503": (faults.status(503),),
    "429": (faults.status(429, Retry_After="1"),),
    "lost-answer": (faults.lost,),
    "expired-token": (faults.expired_token,),
    "twice": (faults.close, faults.status(500)),
}


@pytest.mark.parametrize("name", FAILS)
@pytest.mark.parametrize("where", [("POST", "/blobs/uploads/"), ("PATCH", "/blobs/uploads/"), ("PUT", "/blobs/uploads/"), ("PUT", "/manifests/")])
def test_what_fails_for_a_moment_is_tried_again(
    name: str, where: tuple[str, str], large: CommandLine, project: Project, base_images: BaseImages, proxy: FaultyProxy, tmp_path: Path
) -> None:
    if where[0] != "PATCH":
        project.werf(WERF.format(base=base_images.busybox, size=1000))
        project.commit()
    repository = f"own/{where[0].lower()}-{'blob' if 'blobs' in where[1] else 'name'}-{name}"
    proxy.fail(*where, *FAILS[name])
    ran = large("build", "--repo", proxy.reference(repository), env=QUICK)
    assert proxy.fault_count == len(FAILS[name])
    assert len(re.findall("COMMANDS RUN", ran.stdout)) == 1
    proxy.heal()
    again = large.with_home(tmp_path / "empty")("build", "--repo", proxy.reference(repository), env=QUICK)
    assert names_in(again.stdout) == names_in(ran.stdout)
    assert "0 stages built" in again.stdout


def test_who_may_not_push_is_told_before_the_commands_run(large: CommandLine, proxy: FaultyProxy) -> None:
    proxy.fail("POST", "/blobs/uploads/", faults.status(403, "DENIED: you may only read"), always=True)
    ran = large("build", "--repo", proxy.reference("own/refused"), env=QUICK, code=1)
    assert "DENIED: you may only read" in ran.stderr
    assert "own/refused" in ran.stderr
    assert "layerwright cr login" in ran.stderr
    assert "COMMANDS RUN" not in ran.stdout
    assert "Building stage" not in ran.stdout
    assert len([one for one in proxy.asked if one.startswith("POST") and "uploads" in one]) == 1


def test_a_registry_that_takes_no_chunks_gets_the_layer_whole(large: CommandLine, registry: RegistryServer, proxy: FaultyProxy, tmp_path: Path) -> None:
    proxy.fail("PATCH", "/blobs/uploads/", faults.status(405, "UNSUPPORTED: no chunks here"), always=True)
    ran = large("build", "--repo", proxy.reference("own/whole"), env=QUICK)
    full, digest = names_in(ran.stdout)["app"]
    assert manifest(registry, "own/whole", full.rpartition(":")[2])["layers"][-1]["size"] > 20 * MIB
    checked = large.with_home(tmp_path / "empty")("run", "app", "--repo", registry.reference("own/whole"), "--", "wc", "-c", "/large")
    assert checked.stdout.split()[0] == str(20 * MIB)
    assert digest


def test_what_was_built_and_could_not_be_pushed_is_pushed_by_the_next_build(large: CommandLine, proxy: FaultyProxy) -> None:
    proxy.fail("PATCH", "/blobs/uploads/", faults.status(403, "DENIED: the quota is used up"), always=True)
    ran = large("build", "--repo", proxy.reference("own/later"), env=QUICK, code=1)
    assert "DENIED: the quota is used up" in ran.stderr
    assert "COMMANDS RUN" in ran.stdout
    proxy.heal()
    ran = large("build", "--repo", proxy.reference("own/later"), env=QUICK)
    assert "COMMANDS RUN" not in ran.stdout
    assert "app" in names_in(ran.stdout)


def test_a_registry_that_hides_what_does_not_exist_yet_is_pushed_to(large: CommandLine, registry: RegistryServer) -> None:
    """Of a repository that is not there some registries say 403, and not 404."""

    def hide(exchange: Exchange) -> None:
        given = exchange.ask()
        if given.status == 404:
            exchange.say(403, {}, b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}')
        else:
            exchange.hand_back(given)

    with FaultyProxy(registry.address) as hiding:
        hiding.fail("HEAD", "/manifests/", hide, always=True)
        hiding.fail("GET", "/manifests/", hide, always=True)
        first = large("build", "--repo", hiding.reference("own/hidden"), env=QUICK)
        again = large("build", "--repo", hiding.reference("own/hidden"), env=QUICK)
        assert names_in(again.stdout) == names_in(first.stdout)
        hiding.fail("POST", "/blobs/uploads/", faults.status(403, "DENIED: you may only read"), always=True)
        refused = large("build", "--repo", hiding.reference("own/hidden-and-refused"), env=QUICK, code=1)
        assert "requested access to the resource is denied" in refused.stderr


def test_an_image_of_a_repository_is_exported_from_an_empty_machine(large: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    full, _ = names_in(large("build", "--repo", registry.reference("own/exported")).stdout)["app"]
    layers = [layer["digest"] for layer in manifest(registry, "own/exported", full.rpartition(":")[2])["layers"]]
    requests = Requests(registry, "own/elsewhere")
    empty = large.with_home(tmp_path / "empty")
    empty("export", "app", "--repo", registry.reference("own/exported"), "--to", f"docker://{registry.reference('own/elsewhere:1')}")
    assert [layer["digest"] for layer in manifest(registry, "own/elsewhere", "1")["layers"]] == layers
    assert {one.status for one in requests.of("POST", "mount=")} == {201}
    archive = large.with_home(tmp_path / "another")("export", "app", "--repo", registry.reference("own/exported"), "--to", f"oci-archive:{tmp_path / 'a.tar'}")
    assert archive.code == 0
    again = large("export", "app", "--to", f"oci-archive:{tmp_path / 'b.tar'}")  # what was built with a repository is in the store, too
    assert "0 stages built" in again.stderr
