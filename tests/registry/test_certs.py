from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from layerwright.errors import UsageError
from layerwright.registry.certs import HostCertificates, Trust, host_directory, read_directory
from layerwright.registry.errors import RegistryError
from tests.registry.faulty import FaultyServer
from tests.registry.images import Connect, at, quick
from tests.support.tls import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_where_a_hosts_directory_may_lie(tmp_path: Path) -> None:
    env, system = {"HOME": str(tmp_path / "home")}, tmp_path / "etc"
    assert host_directory("r.example:5000", env, str(system)) == ""
    order = ("etc/docker/certs.d", "etc/containers/certs.d", "home/.config/docker/certs.d", "home/.config/containers/certs.d")
    for place in order:
        (tmp_path / place / "r.example:5000").mkdir(parents=True)
        assert host_directory("r.example:5000", env, str(system)) == str(tmp_path / place / "r.example:5000"), "the later one goes before"
    assert host_directory("r.example", env, str(system)) == ""


def test_the_port_of_https_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "docker/certs.d/a.example").mkdir(parents=True)
    (tmp_path / "docker/certs.d/b.example:443").mkdir(parents=True)
    for host in ("a.example", "a.example:443", "b.example", "b.example:443"):
        assert host_directory(host, {}, str(tmp_path)).rpartition("/")[2].startswith(host[:9])
    assert host_directory("a.example:5000", {}, str(tmp_path)) == ""


def test_what_the_files_are_for(tmp_path: Path) -> None:
    for name in ("b.crt", "a.crt", "me.cert", "me.key", "notes.txt"):
        (tmp_path / name).touch()
    clients = ((f"{tmp_path}/me.cert", f"{tmp_path}/me.key"),)
    assert read_directory(str(tmp_path)) == HostCertificates(authorities=(f"{tmp_path}/a.crt", f"{tmp_path}/b.crt"), clients=clients)


@pytest.mark.parametrize(("name", "said"), [("me.cert", r"me\.cert has no key"), ("me.key", r"me\.key has no client certificate")])
def test_half_a_pair_is_told(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=said):
        read_directory(str(tmp_path))


def test_a_file_that_is_no_certificate_is_told(tmp_path: Path, authority: Authority) -> None:
    directory = tmp_path / "docker/certs.d/r.example"
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_text("nonsense")
    with pytest.raises(UsageError, match="cannot use the certificate") as caught:
        Trust({}, str(tmp_path)).context("r.example", verify=True)
    assert caught.value.where == str(directory / "ca.crt")
    (directory / "ca.crt").write_bytes(authority.path.read_bytes())
    (directory / "me.cert").write_bytes(authority.path.read_bytes())
    (directory / "me.key").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIG\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="cannot use the certificate") as caught:
        Trust({}, str(tmp_path)).context("r.example", verify=True)
    assert "passphrase" in caught.value.mend


def test_hosts_without_a_directory_share_what_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "docker/certs.d/own.example").mkdir(parents=True)
    trust = Trust({}, str(tmp_path))
    assert trust.context("a.example", verify=True) is trust.context("b.example", verify=True)
    assert trust.context("own.example", verify=True) is not trust.context("a.example", verify=True)
    assert trust.context("a.example", verify=False).verify_mode == ssl.CERT_NONE


def served(authority: Authority, name: str, *, client: bool = False, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> FaultyServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    made = authority.certificate(name, "IP:127.0.0.1")
    context.load_cert_chain(made.path, made.key)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.path)
    return FaultyServer(tls=context)


def test_an_authority_is_trusted_for_its_host_only(tmp_path: Path, authority: Authority, connect: Connect) -> None:
    with served(authority, "one") as one, served(authority, "two") as two:
        directory = tmp_path / "docker/certs.d" / one.address
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(authority.path.read_bytes())
        client = connect(quick(system_dir=str(tmp_path), tls=(two.address,)))
        assert client.head(at(one.address, "a/b:1")) is None
        with pytest.raises(RegistryError, match=rf"the certificate of {two.address} cannot be trusted") as caught:
            client.head(at(two.address, "a/b:1"))
        assert f"/etc/docker/certs.d/{two.address}/ca.crt" in caught.value.mend


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_is_shown_where_there_is_one(tmp_path: Path, authority: Authority, connect: Connect, version: ssl.TLSVersion) -> None:
    with served(authority, "guarded", client=True, version=version) as server:
        directory = tmp_path / "containers/certs.d" / server.address
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(authority.path.read_bytes())
        with pytest.raises(RegistryError, match=r"wants a client certificate|TLS with .* failed") as caught:
            connect(quick(system_dir=str(tmp_path))).head(at(server.address, "a/b:1"))
        assert "client.cert" in caught.value.mend
        made = authority.certificate("client")
        (directory / "client.cert").write_bytes(made.path.read_bytes())
        (directory / "client.key").write_bytes(made.key.read_bytes())
        assert connect(quick(system_dir=str(tmp_path))).head(at(server.address, "a/b:1")) is None
