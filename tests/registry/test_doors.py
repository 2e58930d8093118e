from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwright.registry.errors import RegistryError
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import AMD64, Connect, at, image_of, quick
from tests.registry.test_certs import served
from tests.support.registry_server import RegistryServer
from tests.support.tls import Authority

HEAD = "HEAD /v2/a/b/manifests/1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A real registry that speaks TLS on loopback."""
    with RegistryServer(tmp_path_factory.mktemp("secure"), certificate=authority.certificate("secure", "IP:127.0.0.1")) as server:
        yield server


def test_a_registry_on_loopback_may_want_tls(secure: RegistryServer, authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RegistryError, match=f"the certificate of {secure.address} cannot be trusted"):
        connect(quick()).head(at(secure.address, "a/b:1"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    client = connect(quick())
    assert client.head(at(secure.address, "a/b:1")) is None
    asked = client.requests
    client.head(at(secure.address, "a/b:1"))
    assert client.requests == asked + 1, "plain HTTP is not tried again"


def test_a_refusal_on_loopback_keeps_its_words(faulty: FaultyServer, connect: Connect) -> None:
    faulty.on("GET /v2/a/b/manifests/1", Say(status=400, body=b'{"errors": [{"code": "NAME_INVALID", "message": "use HTTPS"}]}'))
    with pytest.raises(RegistryError, match="NAME_INVALID: use HTTPS"):
        connect(quick()).manifest(at(faulty.address, "a/b:1"))


def test_certificates_for_a_host_on_loopback_mean_tls(tmp_path: Path, secure: RegistryServer, authority: Authority, connect: Connect) -> None:
    directory = tmp_path / "docker/certs.d" / secure.address
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(authority.path.read_bytes())
    client = connect(quick(system_dir=str(tmp_path)))
    assert client.head(at(secure.address, "a/b:1")) is None
    assert client.requests == 1


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where settings are; the loopback is let look like any other host."""
    monkeypatch.setattr("layerwright.registry.endpoint.is_loopback", lambda registry: False)
    (tmp_path / "docker").mkdir()
    return tmp_path


def test_an_insecure_registry_needs_no_trusted_certificate(conf: Path, authority: Authority, connect: Connect) -> None:
    with served(authority, "self") as server:
        with pytest.raises(RegistryError, match="cannot be trusted"):
            connect(quick(system_dir=str(conf))).head(at(server.address, "a/b:1"))
        (conf / "docker/daemon.json").write_text('{"insecure-registries": ["127.0.0.0/8"]}')
        assert connect(quick(system_dir=str(conf))).head(at(server.address, "a/b:1")) is None


def test_an_insecure_registry_needs_no_tls(conf: Path, faulty: FaultyServer, connect: Connect) -> None:
    with pytest.raises(RegistryError, match="does not speak TLS"):
        connect(quick(system_dir=str(conf))).head(at(faulty.address, "a/b:1"))
    (conf / "docker/daemon.json").write_text(f'{{"insecure-registries": ["{faulty.address}"]}}')
    assert connect(quick(system_dir=str(conf))).head(at(faulty.address, "a/b:1")) is None
    assert faulty.lines == [HEAD]


def test_an_address_with_a_scheme_decides(conf: Path, faulty: FaultyServer, connect: Connect) -> None:
    content = image_of(AMD64).encode()
    faulty.on("GET /v2/library/alpine/manifests/3", Say(body=content))
    assert connect(quick(system_dir=str(conf), mirrors=(f"http://{faulty.address}",))).manifest(at("docker.io", "alpine:3")).content == content
