from __future__ import annotations

import ssl
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from layerwright.registry.errors import RegistryError, Unreachable
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import Connect, at, quick
from tests.support.machine import find_program, unused_port


def test_a_refused_connection_is_told_soon(connect: Connect) -> None:
    address = f"127.0.0.1:{unused_port()}"
    started = time.monotonic()
    with pytest.raises(Unreachable, match=rf"{address}/a/b:1: .*cannot connect to {address}: Connection refused \(tried 2 times in \d+ s\)"):
        connect(quick(attempts=9)).manifest(at(address, "a/b:1"))
    assert time.monotonic() - started < 3


def test_a_name_without_address_is_told_soon(connect: Connect) -> None:
    with pytest.raises(Unreachable, match=r"no address is known for nowhere\.invalid"):
        connect(quick()).manifest(at("nowhere.invalid", "a/b:1"))


def test_a_silent_server_is_given_up(faulty: FaultyServer, connect: Connect) -> None:
    faulty.on("HEAD /v2/a/b/manifests/1", Say(wait_s=1.0))
    with pytest.raises(Unreachable, match=r"said nothing for 0\.2 s \(tried 2 times in \d+ s\)"):
        connect(quick(read_timeout_s=0.2, attempts=2)).head(at(faulty.address, "a/b:1"))


def test_a_connection_that_is_cut_is_tried_again(faulty: FaultyServer, connect: Connect) -> None:
    content = b"{}" + b" " * 200
    faulty.on("GET /v2/a/b/manifests/1", Say(body=content, cut=3), Say(body=content, cut=0), Say(body=content))
    assert connect(quick()).manifest(at(faulty.address, "a/b:1")).content == content
    faulty.on("GET /v2/a/b/manifests/1", Say(body=content, cut=3))
    with pytest.raises(Unreachable, match=r"the connection to .* broke: .*\(tried 3 times in \d+ s\)"):
        connect(quick()).manifest(at(faulty.address, "a/b:1"))


def test_connections_are_kept(faulty: FaultyServer, connect: Connect) -> None:
    ports = []
    plain = faulty.next

    def next_answer(asked):  # type: ignore[no-untyped-def]
        ports.append(asked.headers["host"])
        return plain(asked)

    faulty.next = next_answer  # type: ignore[method-assign]
    client = connect(quick())
    faulty.on("HEAD /v2/a/b/blobs/sha256:" + "0" * 64, Say(length=10 << 20))
    for _ in range(4):
        client.head(at(faulty.address, "a/b:1"))
    assert len(ports) == 4
    session = client._session()
    (pool,) = session.http._pools.all()
    inner = pool.connection_from_url(f"http://{faulty.address}")
    assert inner.num_connections == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and its key in one file, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = [
        find_program("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


def served_with(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_of_nobody_is_refused_unless_asked(certificate: Path, connect: Connect) -> None:
    with FaultyServer(tls=served_with(certificate)) as server:
        with pytest.raises(RegistryError, match=r"the certificate of 127\.0\.0\.1:\d+ cannot be trusted: self-signed certificate"):
            connect(quick(tls=(server.address,))).head(at(server.address, "a/b:1"))
        before = list(warnings.filters)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            assert connect(quick(tls=(server.address,), skip_tls_verify=True)).head(at(server.address, "a/b:1")) is None
            assert [str(one.message) for one in warned] == []
            assert len(warnings.filters) == len(before) + 1, "what others in this process are warned of is not for us to say"


def test_a_certificate_of_a_known_authority_is_taken(certificate: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    with FaultyServer(tls=served_with(certificate)) as server:
        assert connect(quick(tls=(server.address,))).head(at(server.address, "a/b:1")) is None


def test_a_server_without_tls_is_told(faulty: FaultyServer, connect: Connect) -> None:
    with pytest.raises(RegistryError, match="does not speak TLS") as caught:
        connect(quick(tls=(faulty.address,))).head(at(faulty.address, "a/b:1"))
    assert "insecure" in caught.value.mend


def test_with_a_star_a_server_without_tls_is_spoken_to_without(
    faulty: FaultyServer, certificate: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loopback is never in doubt: the test lets it look like any other host."""
    monkeypatch.setattr("layerwright.registry.endpoint.is_loopback", lambda registry: False)
    client = connect(quick(insecure=("*",)))
    assert client.head(at(faulty.address, "a/b:1")) is None
    assert faulty.lines == ["HEAD /v2/a/b/manifests/1"]
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    with FaultyServer(tls=served_with(certificate)) as server:
        client = connect(quick(insecure=("*",)))
        assert client.head(at(server.address, "a/b:1")) is None
        assert server.lines == ["GET /v2/", "HEAD /v2/a/b/manifests/1"]
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(RegistryError, match="cannot be trusted"):
            connect(quick(insecure=("*",))).head(at(server.address, "a/b:1"))


def test_no_http_library_is_loaded_before_a_registry_is_asked() -> None:
    program = "import sys; from layerwright.registry.client import Registry; import layerwright.registry.pull; Registry(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert not {"urllib3", "ssl", "http.client", "random"} & set(found.stdout.split())
