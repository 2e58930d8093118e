from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import pytest

from layerwright.registry.errors import RegistryError, Unreachable
from layerwright.registry.http import proxy_for
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import Connect, at, quick
from tests.support.machine import find_program


@pytest.mark.parametrize(
    ("url", "env", "proxy"),
    [
        ("https://r.example/v2/", {}, ""),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ("https://r.example/v2/", {"https_proxy": "p:3128", "HTTPS_PROXY": "http://q"}, "http://p:3128"),
        ("https://r.example/v2/", {"HTTP_PROXY": "http://p"}, ""),
        ("http://r.example/v2/", {"http_proxy": "http://p"}, "http://p"),
        ("http://r.example/v2/", {"ALL_PROXY": "http://p"}, "http://p"),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p", "NO_PROXY": "other.example, .example"}, ""),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "*"}, ""),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "*.example"}, ""),
        ("https://r.example/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "ample,r.example:5000"}, "http://p"),
        ("https://r.example:5000/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "r.example:5000"}, ""),
        ("https://10.1.2.3/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "10.0.0.0/8"}, ""),
        ("https://11.1.2.3/v2/", {"HTTPS_PROXY": "http://p", "no_proxy": "10.0.0.0/8,nonsense/x"}, "http://p"),
        ("http://127.0.0.1:5000/v2/", {"HTTP_PROXY": "http://p"}, ""),
        ("http://[::1]:5000/v2/", {"HTTP_PROXY": "http://p"}, ""),
        ("http://localhost/v2/", {"ALL_PROXY": "http://p"}, ""),
    ],
)
def test_the_environment_names_the_proxy(url: str, env: Mapping[str, str], proxy: str) -> None:
    assert proxy_for(url, env) == proxy


def test_a_proxy_gets_its_login_and_the_whole_address(faulty: FaultyServer, connect: Connect) -> None:
    client = connect(quick(env={"http_proxy": f"http://ann:s%40crt@{faulty.address}"}, insecure=("r.example",)))
    assert client.head(at("r.example", "a/b:1")) is None
    assert faulty.lines == ["HEAD http://r.example/v2/a/b/manifests/1"]
    assert faulty.asked[0].headers["proxy-authorization"] == f"Basic {b64encode(b'ann:s@crt').decode()}"


def test_a_broken_proxy_is_told_without_its_login(connect: Connect) -> None:
    client = connect(quick(env={"http_proxy": f"http://ann:hunter2@127.0.0.1:{unused_port()}"}, insecure=("r.example",)))
    with pytest.raises(Unreachable, match=r"cannot reach r\.example through the proxy 127\.0\.0\.1:\d+: Connection refused") as caught:
        client.head(at("r.example", "a/b:1"))
    assert "hunter2" not in str(caught.value)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_refused_connection_is_told_soon(connect: Connect) -> None:
    address = f"127.0.0.1:{unused_port()}"
    started = time.monotonic()
    with pytest.raises(Unreachable, match=rf"{address}/a/b:1: cannot connect to {address}: Connection refused \(tried 2 times\)"):
        connect(quick(attempts=9)).manifest(at(address, "a/b:1"))
    assert time.monotonic() - started < 3


def test_a_name_without_address_is_told_soon(connect: Connect) -> None:
    with pytest.raises(Unreachable, match=r"no address is known for nowhere\.invalid"):
        connect(quick()).manifest(at("nowhere.invalid", "a/b:1"))


def test_a_silent_server_is_given_up(faulty: FaultyServer, connect: Connect) -> None:
    faulty.on("HEAD /v2/a/b/manifests/1", Say(wait_s=1.0))
    with pytest.raises(Unreachable, match=r"said nothing for 0\.2 s \(tried 2 times\)"):
        connect(quick(read_timeout_s=0.2, attempts=2)).head(at(faulty.address, "a/b:1"))


def test_a_connection_that_is_cut_is_tried_again(faulty: FaultyServer, connect: Connect) -> None:
    content = b"{}" * 100
    faulty.on("GET /v2/a/b/manifests/1", Say(body=content, cut=3), Say(body=content, cut=0), Say(body=content))
    assert connect(quick()).manifest(at(faulty.address, "a/b:1")).content == content
    faulty.on("GET /v2/a/b/manifests/1", Say(body=content, cut=3))
    with pytest.raises(Unreachable, match=r"the connection to .* broke: .*\(tried 3 times\)"):
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
    (pool,) = session.http._pools.values()
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
        assert connect(quick(tls=(server.address,), skip_tls_verify=True)).head(at(server.address, "a/b:1")) is None


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
