"""Every fault of the table at every kind of request it is for: the right image or one clear error, never anything else; and then all goes well again."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerwright.oci.digest import digest_of
from layerwright.oci.manifest import OCI_MANIFEST, Descriptor
from layerwright.registry import upload
from layerwright.registry.client import Registry
from layerwright.registry.errors import NotFound, RegistryError
from layerwright.registry.options import RegistryOptions
from tests.registry.fault_rows import CHUNK, CONFIG, DIGEST, LAYER, LOOK, NAME, ROWS, SEND, START, TAG, TOKEN, Row, table
from tests.registry.images import AMD64, at, config_bytes, image_of, of, push_image, quick
from tests.support import faults
from tests.support.faulty_proxy import FaultyProxy
from tests.support.registry_server import RegistryServer

REPOSITORY = "faults/base"
PAGE = Path(__file__).parent.parent.parent / "docs" / "registry-faults.md"
STREAMED = bytes(range(253)) * 6000  # so large that it is not held in memory, and pushed in several chunks
CHUNK_BYTES = 600_000
HANGS_S = 120
MATCHES = {
    TOKEN: ("GET", "^/token"),
    TAG: ("GET", "{case}/.*manifests/1"),
    DIGEST: ("GET", "{case}/.*manifests/sha256"),
    CONFIG: ("GET", "{case}/.*blobs/sha256"),
    LAYER: ("GET", "{case}/.*blobs/sha256"),
    LOOK: ("HEAD", "{case}/.*blobs/sha256"),
    START: ("POST", "{case}/.*uploads"),
    SEND: ("PUT", "{case}/.*uploads"),
    CHUNK: ("PATCH", "{case}/.*uploads"),
    NAME: ("PUT", "{case}/.*manifests"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault at one kind of request, once or always. It has a name of its own in all its paths."""

    row: Row
    request: str
    always: bool

    @property
    def label(self) -> str:
        return f"case-{self.request.replace(' ', '-')}-{'always' if self.always else 'once'}"

    @property
    def error(self) -> str:
        return self.row.always if self.always else self.row.once


@pytest.fixture(scope="module")
def server(registry: RegistryServer) -> RegistryServer:
    """The registry with what the cases read."""
    direct = Registry(RegistryOptions(config_dir="/nonexistent"))
    push_image(direct, at(registry.address, f"{REPOSITORY}:1"))
    direct.put_blob(at(registry.address, f"{REPOSITORY}:1"), of(STREAMED), lambda: io.BytesIO(STREAMED))
    direct.close()
    return registry


@pytest.fixture
def proxy(server: RegistryServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(server.address, wants_token=True) as made:
        yield made


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "CHUNK_BYTES", CHUNK_BYTES)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_fault_ends_well_or_in_one_clear_error(row: Row, proxy: FaultyProxy, server: RegistryServer) -> None:
    options = quick(read_timeout_s=1.0, connect_timeout_s=5.0, commit_timeout_s=1.0, attempts=2) if row.is_slow else quick(read_timeout_s=20.0)
    if TOKEN in row.requests:
        for always in (False, True):  # tokens have no case in their path: one after the other
            run(Case(row=row, request=TOKEN, always=always), proxy, server, options)
    cases = [Case(row=row, request=request, always=always) for request in row.requests if request != TOKEN for always in (False, True)]
    with ThreadPoolExecutor(len(cases) or 1) as pool:
        for done in [pool.submit(run, case, proxy, server, options) for case in cases]:
            done.result(HANGS_S)


def run(case: Case, proxy: FaultyProxy, server: RegistryServer, options: RegistryOptions) -> None:
    method, path = MATCHES[case.request]
    pattern = path.format(case=case.label)
    if case.request == CHUNK:  # a blob is sent in chunks once sending it whole has failed
        proxy.fail("PUT", MATCHES[SEND][1].format(case=case.label), faults.status(503))
    proxy.fail(method, pattern, *case.row.faults, always=case.always)
    if case.error:
        with pytest.raises(RegistryError) as caught:
            act(case, proxy, server, options)
        check_error(caught.value, case, proxy)
    else:
        act(case, proxy, server, options)
    proxy.heal_only(pattern)
    if case.error:
        act(case, proxy, server, quick(read_timeout_s=20.0))


def check_error(error: RegistryError, case: Case, proxy: FaultyProxy) -> None:
    text = str(error)
    label = f"{case.row.name}, {case.label}: {text}"
    assert re.search(".*".join(map(re.escape, case.error.split("…"))), text), label
    assert proxy.address in error.where, label
    assert "faults" in error.where or case.request == TOKEN, label
    assert error.mend, label
    assert "secret" not in text, label
    assert "hidden-" not in text, label
    assert "\n" not in error.what, label


def act(case: Case, proxy: FaultyProxy, server: RegistryServer, options: RegistryOptions) -> None:
    """Make the request of the case as a build or a push does, and see that what comes of it is right."""
    client = Registry(options)
    try:
        ACTS[case.request](client, proxy.address, case.label, server)
    finally:
        client.close()


def read_manifest(client: Registry, address: str, label: str, server: RegistryServer) -> None:
    assert client.manifest(at(address, f"{label}/{REPOSITORY}:1")).content == image_of(AMD64).encode()


def read_manifest_by_digest(client: Registry, address: str, label: str, server: RegistryServer) -> None:
    wanted = image_of(AMD64).encode()
    assert client.manifest(at(address, f"{label}/{REPOSITORY}@{digest_of(wanted)}")).content == wanted


def read_config(client: Registry, address: str, label: str, server: RegistryServer) -> None:
    wanted = config_bytes(AMD64)
    assert client.blob_bytes(at(address, f"{label}/{REPOSITORY}:1"), of(wanted)) == wanted


def read_layer(client: Registry, address: str, label: str, server: RegistryServer) -> None:
    assert (
        client.read_blob(at(address, f"{label}/{REPOSITORY}:1"), of(STREAMED), lambda stream: hashlib.sha256(stream.read()).hexdigest())
        == of(STREAMED).digest[7:]
    )


def push_blob(client: Registry, address: str, label: str, server: RegistryServer) -> None:
    """To a repository of the test's own, so that the blob is not there before."""
    content = label.encode() + STREAMED
    reference = at(address, f"faults/{client_number(client)}/{label}:1")
    client.put_blob(reference, of(content), lambda: io.BytesIO(content))
    assert held(server, reference.repository, of(content)) == content


def push_manifest(client: Registry, address: str, label: str, server: RegistryServer) -> None:
    wanted = image_of(AMD64).encode()
    digest = client.put_manifest(at(address, f"{label}/{REPOSITORY}:{client_number(client)}"), wanted, OCI_MANIFEST)
    assert digest == digest_of(wanted)
    direct = Registry(RegistryOptions(config_dir="/nonexistent"))
    try:
        assert direct.manifest(at(server.address, f"{REPOSITORY}:{client_number(client)}")).content == wanted
    finally:
        direct.close()


def client_number(client: Registry) -> str:
    return f"n{id(client):x}"


def held(server: RegistryServer, repository: str, descriptor: Descriptor) -> bytes:
    direct = Registry(RegistryOptions(config_dir="/nonexistent"))
    try:
        return direct.read_blob(at(server.address, f"{repository}:1"), descriptor, lambda stream: stream.read())
    except NotFound:
        return b""
    finally:
        direct.close()


ACTS: dict[str, Callable[[Registry, str, str, RegistryServer], None]] = {
    TOKEN: read_manifest,
    TAG: read_manifest,
    DIGEST: read_manifest_by_digest,
    CONFIG: read_config,
    LAYER: read_layer,
    LOOK: push_blob,
    START: push_blob,
    SEND: push_blob,
    CHUNK: push_blob,
    NAME: push_manifest,
}


def test_the_page_has_this_table() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "write it there: python -m tests.registry.fault_rows"


def test_every_kind_of_request_meets_every_kind_of_end() -> None:
    for request in MATCHES:
        rows = [row for row in ROWS if request in row.requests]
        assert len(rows) >= 5, request
