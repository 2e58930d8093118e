from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from layerwright.errors import UsageError
from layerwright.oci.reference import parse_reference
from layerwright.registry.hosts import Blocked, Hosts, check_mirrors
from tests.registry.images import quick

CONF = """
[[registry]]
prefix = "example.com/team"
location = "inner.example:5000/t"
insecure = true
[[registry.mirror]]
location = "localhost:5001/m"
insecure = true
pull-from-mirror = "digest-only"

[[registry]]
prefix = "*.corp.example"
blocked = true

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "conf.example/hub"
"""


@pytest.fixture
def system(tmp_path: Path) -> Path:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/registries.conf").write_text(CONF)
    (tmp_path / "docker").mkdir()
    daemon = '{"registry-mirrors": ["http://daemon", "https://b.example/x/"], "insecure-registries": ["plain.example:80", "any.example", "10.0.0.0/8"]}'
    (tmp_path / "docker/daemon.json").write_text(daemon)
    return tmp_path


def sources(system: Path, name: str, **options: Any) -> list[str]:
    found = Hosts(quick(system_dir=str(system), **options)).sources(parse_reference(name))
    shown = [
        f"{one.scheme}{'://' if one.scheme else ''}{one.reference}{' insecure' if one.insecure else ''}{'' if one.is_mirror else ' last'}" for one in found
    ]
    return [f"{text} {one.only}" if one.only != "all" else text for text, one in zip(shown, found, strict=True)]


def test_mirrors_come_before_the_place_that_the_settings_name(system: Path) -> None:
    assert sources(system, "example.com/team/app:1") == ["localhost:5001/m/app:1 insecure digest-only", "inner.example:5000/t/app:1 insecure last"]
    assert sources(system, "example.com/other/app:1") == ["example.com/other/app:1 last"]


def test_docker_hub_has_the_runs_mirrors_then_those_of_podman_and_docker(system: Path) -> None:
    assert sources(system, "alpine", mirrors=("https://run.example/", "docker.io")) == [
        "https://run.example/library/alpine:latest",
        "conf.example/hub/library/alpine:latest",
        "http://daemon/library/alpine:latest",
        "https://b.example/x/library/alpine:latest",
        "docker.io/library/alpine:latest last",
    ]
    assert sources(system, "ghcr.io/a/b:1", mirrors=("https://run.example",)) == ["ghcr.io/a/b:1 last"]


def test_what_is_pushed_goes_where_its_name_says(system: Path) -> None:
    hosts = Hosts(quick(system_dir=str(system)))
    route = hosts.origin(parse_reference("example.com/team/app:1"))
    assert (str(route.reference), route.insecure, route.is_mirror) == ("example.com/team/app:1", True, False)


def test_what_is_blocked_is_neither_read_nor_written(system: Path) -> None:
    hosts = Hosts(quick(system_dir=str(system)))
    for ask in (hosts.sources, hosts.origin):
        with pytest.raises(Blocked, match=r"\*\.corp\.example is blocked by .*registries\.conf"):
            ask(parse_reference("a.corp.example/x:1"))  # type: ignore[operator]  # both take a reference


@pytest.mark.parametrize(
    ("registry", "insecure"), [("plain.example:80", True), ("plain.example", False), ("any.example:1", True), ("10.1.2.3:5000", True), ("11.1.2.3", False)]
)
def test_what_dockers_daemon_calls_insecure(system: Path, registry: str, *, insecure: bool) -> None:
    assert Hosts(quick(system_dir=str(system))).is_insecure(registry) is insecure


def test_a_place_that_is_no_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/registries.conf").write_text("[[registry]]\nprefix = 'r.example'\nlocation = 'Not A Host'\n")
    with pytest.raises(UsageError, match="not an image name"):
        Hosts(quick(system_dir=str(tmp_path))).sources(parse_reference("r.example/a:1"))


@pytest.mark.parametrize("wrong", ["", "ftp://a.example", "https://ann:secret@a.example", "a b"])
def test_a_mirror_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_mirrors([wrong], where="--container-registry-mirror")
    assert "secret" not in str(caught.value)
    check_mirrors(["a.example", "http://mirror", "https://a.example:5000/path"], where="x")
