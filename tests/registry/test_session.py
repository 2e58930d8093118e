from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from layerwright.errors import Cancelled
from layerwright.oci.manifest import OCI_MANIFEST
from layerwright.oci.reference import Reference
from layerwright.registry.client import Registry
from layerwright.registry.endpoint import Endpoint, endpoint_of
from layerwright.registry.errors import RegistryError, Unauthorized
from layerwright.registry.hosts import Route
from layerwright.registry.login import Login
from layerwright.registry.session import Call, Session, same_origin
from tests.registry.faulty import Asked, FaultyServer, Say
from tests.registry.images import AMD64, LAYER, Connect, at, image_of, of, quick
from tests.registry.test_auth import basic, write

BLOB = f"GET /v2/a/b/blobs/{of(LAYER).digest}"


@pytest.fixture
def known(tmp_path_factory: pytest.TempPathFactory, faulty: FaultyServer, connect: Connect) -> Registry:
    """A client with a login for `faulty`, which asks for it."""
    refused = Say(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
    directory = write(tmp_path_factory.mktemp("docker"), {"auths": {faulty.address: {"auth": basic("ann:hunter2")}}})
    faulty.on("HEAD /v2/a/b/manifests/1", refused)
    client = connect(quick(config_dir=str(directory)))
    with pytest.raises(Unauthorized):
        client.head(at(faulty.address, "a/b:1"))
    faulty.asked.clear()
    return client


def test_the_login_does_not_follow_a_redirect_to_another_server(known: Registry, faulty: FaultyServer, storage: FaultyServer) -> None:
    faulty.on(BLOB, Say(status=307, headers={"Location": f"http://{storage.address}/store/x?Signature=abc"}))
    storage.on("GET /store/x", Say(body=LAYER))
    with known.blob(at(faulty.address, "a/b:1"), of(LAYER)) as stream:
        assert stream.read() == LAYER
    assert "authorization" in faulty.asked[0].headers
    assert "authorization" not in storage.asked[0].headers
    assert storage.lines == ["GET /store/x?Signature=abc"]


def test_the_login_follows_a_redirect_inside_the_registry(known: Registry, faulty: FaultyServer) -> None:
    faulty.on(BLOB, Say(status=301, headers={"Location": "/elsewhere"}))
    faulty.on("GET /elsewhere", Say(body=LAYER))
    with known.blob(at(faulty.address, "a/b:1"), of(LAYER)) as stream:
        assert stream.read() == LAYER
    assert faulty.asked[1].headers["authorization"] == f"Basic {basic('ann:hunter2')}"


def test_a_storage_that_refuses_is_not_given_the_login(known: Registry, faulty: FaultyServer, storage: FaultyServer) -> None:
    faulty.on(BLOB, Say(status=307, headers={"Location": f"http://{storage.address}/store/x?Signature=abc"}))
    storage.on("GET /store/x", Say(status=401, headers={"WWW-Authenticate": "Basic realm=x"}))
    with pytest.raises(Unauthorized) as caught, known.blob(at(faulty.address, "a/b:1"), of(LAYER)):
        pass
    assert "Signature" not in str(caught.value)
    assert all("authorization" not in one.headers for one in storage.asked)


def test_redirects_without_end_are_told(client: Registry, faulty: FaultyServer) -> None:
    faulty.on(BLOB, Say(status=302, headers={"Location": BLOB.partition(" ")[2]}))
    with pytest.raises(RegistryError, match="redirects without end"), client.blob(at(faulty.address, "a/b:1"), of(LAYER)):
        pass
    assert len(faulty.asked) == 6


def test_a_redirect_to_nowhere_is_told(client: Registry, faulty: FaultyServer) -> None:
    faulty.on(BLOB, Say(status=302, headers={"Location": "ftp://elsewhere.example/x?secret"}))
    with (
        pytest.raises(RegistryError, match=r"sends us from HTTPS to ftp://elsewhere\.example|not HTTP") as caught,
        client.blob(at(faulty.address, "a/b:1"), of(LAYER)),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_a_registry_with_tls_may_not_send_us_to_one_without() -> None:
    session = Session(quick())
    with pytest.raises(RegistryError, match=r"from HTTPS to http://store\.example"):
        session._check_plain("http://store.example/x?secret", Endpoint("r.example", "https://r.example"), "r.example/a:1")
    session._check_plain("http://store.example/x", Endpoint("r.example", "http://r.example"), "r.example/a:1")


def test_an_address_by_the_registrys_own_host_keeps_our_scheme() -> None:
    session = Session(quick())

    def url(path: str, reference: Reference = at("r.example", "a/b:1")) -> str:  # noqa: B008 - it is a value
        route = Route(reference=reference)
        return session.url(Call(reference=reference, doing="x", path=path), route, endpoint_of(route.host, session.options))

    assert url("manifests/sha256:abc") == "https://r.example/v2/a/b/manifests/sha256:abc"
    assert url("http://r.example/v2/up?_state=x%3D") == "https://r.example/v2/up?_state=x%3D"
    assert url("/v2/up?a=b") == "https://r.example/v2/up?a=b"
    assert url("https://storage.example/up") == "https://storage.example/up"
    assert url("manifests/1", at("docker.io", "alpine")) == "https://registry-1.docker.io/v2/library/alpine/manifests/1"


def test_an_origin_is_scheme_host_and_port() -> None:
    assert same_origin("https://r.example/x", "https://R.example:443")
    assert not same_origin("https://r.example/x", "http://r.example:443")
    assert not same_origin("https://r.example:444", "https://r.example")


def test_nothing_is_asked_once_cancelled(faulty: FaultyServer, connect: Connect) -> None:
    client = connect(quick(cancelled=lambda: True))
    with pytest.raises(Cancelled):
        client.put_blob(at(faulty.address, "a/b:1"), of(LAYER), lambda: io.BytesIO(LAYER))
    assert faulty.asked == []


def test_a_login_reads_nothing_until_it_is_asked_for(faulty: FaultyServer) -> None:
    options = quick(config_dir="/proc/1/mem/unreadable")
    session = Session(options)
    login = Login(Endpoint(faulty.address, f"http://{faulty.address}"), session.http, options)
    assert login.authorization(at(faulty.address, "a"), ("repository:a:pull",), "a") is None


def test_a_registry_that_asks_for_time_is_not_asked_twice_at_once(faulty: FaultyServer, connect: Connect) -> None:
    """The words of a refused HEAD are those of the same GET, but not while the registry counts requests."""
    busy = Say(status=429, headers={"Retry-After": "0"})
    faulty.on("HEAD /v2/a/b/manifests/1", busy)
    faulty.on("GET /v2/a/b/manifests/1", busy)
    with pytest.raises(RegistryError, match="answers 429"):
        connect(quick()).head(at(faulty.address, "a/b:1"))
    assert faulty.lines == ["HEAD /v2/a/b/manifests/1"] * quick().attempts


def test_many_reads_go_at_once_over_connections_that_are_kept(faulty: FaultyServer, client: Registry) -> None:
    """No answer comes before all requests of a round are there; the next round opens no connection."""
    manifest, blob = image_of(AMD64).encode(), of(LAYER)
    together = threading.Barrier(16, timeout=20)

    def all_at_once(answer: Say) -> Callable[[Asked], Say]:
        def wait(asked: Asked) -> Say:
            together.wait()
            return answer

        return wait

    found = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": of(manifest).digest}
    faulty.on("HEAD /v2/a/b/manifests/1", all_at_once(Say(body=manifest, headers=found)))
    faulty.on("GET /v2/a/b/manifests/1", all_at_once(Say(body=manifest, headers=found)))
    faulty.on(f"GET /v2/a/b/blobs/{blob.digest}", all_at_once(Say(body=LAYER)))
    reference = at(faulty.address, "a/b:1")
    reads: list[Callable[[], object]] = [lambda: client.head(reference), lambda: client.manifest(reference), lambda: client.blob_bytes(reference, blob)]
    client.has_blob(reference, of(b"").digest)  # what is loaded once, is loaded
    for _ in range(3):
        with ThreadPoolExecutor(16) as pool:
            for done in [pool.submit(reads[number % 3]) for number in range(16)]:
                assert done.result(30) is not None
    assert len({one.peer for one in faulty.asked}) <= 16
    assert len(faulty.asked) == 1 + 3 * 16
