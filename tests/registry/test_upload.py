from __future__ import annotations

import io
from typing import BinaryIO

import pytest

from layerwright.limits import MANIFEST_BYTES
from layerwright.oci.digest import digest_of
from layerwright.oci.manifest import OCI_MANIFEST
from layerwright.registry.client import Registry
from layerwright.registry.errors import RegistryError, Unauthorized, Unreachable, WrongBytes
from layerwright.registry.options import Transfer
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import LARGE, Connect, at, of, quick

BLOB = of(LARGE)
HEAD = f"HEAD /v2/a/b/blobs/{BLOB.digest}"
POST = "POST /v2/a/b/blobs/uploads/"
PUT = "PUT /v2/a/b/blobs/uploads/one"
STARTED = Say(status=202, headers={"Location": "/v2/a/b/blobs/uploads/one?_state=x"})
QUERY = f"?_state=x&digest={BLOB.digest.replace(':', '%3A')}"


class Source:
    """Gives the blob anew each time, and knows how often it was asked and that all it gave is closed."""

    def __init__(self, content: bytes = LARGE) -> None:
        self.given: list[io.BytesIO] = []
        self._content = content

    def __call__(self) -> BinaryIO:
        self.given.append(io.BytesIO(self._content))
        return self.given[-1]

    def closed(self) -> bool:
        return all(one.closed for one in self.given)


def put(client: Registry, faulty: FaultyServer, source: Source | None = None) -> None:
    client.put_blob(at(faulty.address, "a/b:1"), BLOB, source or Source())


def test_a_login_that_ends_during_an_upload_is_renewed(faulty: FaultyServer, storage: FaultyServer, client: Registry) -> None:
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{storage.address}/token"'}), Say(status=201))
    storage.on("GET /token", Say(body=b'{"token": "t1"}'))
    source = Source()
    put(client, faulty, source)
    assert faulty.lines == [HEAD, POST, PUT + QUERY, PUT + QUERY]
    assert faulty.asked[-1].headers["authorization"] == "Bearer t1"
    assert faulty.asked[-1].body == LARGE
    assert source.closed()


def test_a_blob_that_is_there_is_not_sent(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(HEAD, Say())
    source = Source()
    put(client, faulty, source)
    assert faulty.lines == [HEAD]
    assert source.given == []


def test_a_blob_is_sent_in_one_piece(faulty: FaultyServer, connect: Connect) -> None:
    told: list[Transfer] = []
    client = connect(quick(on_bytes=told.append))
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(status=201))
    source = Source()
    put(client, faulty, source)
    assert faulty.lines == [HEAD, POST, PUT + QUERY]
    assert faulty.asked[2].body == LARGE
    assert faulty.asked[2].headers["content-length"] == str(len(LARGE))
    assert faulty.asked[1].headers["content-length"] == "0"
    assert client.bytes_out == len(LARGE)
    assert told[-1].done_bytes == told[-1].total_bytes == len(LARGE)
    assert told[-1].direction == "push"
    assert source.closed()


@pytest.mark.parametrize(
    "failed", [Say(status=503), Say(status=404, body=b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}'), Say(status=500, before_body=True), Say(silent=True)]
)
def test_an_upload_that_fails_starts_again_with_a_fresh_source(faulty: FaultyServer, client: Registry, failed: Say) -> None:
    faulty.on(POST, STARTED)
    faulty.on(PUT, failed, Say(status=201))
    source = Source()
    put(client, faulty, source)
    assert faulty.lines == [HEAD, POST, PUT + QUERY] * 2
    assert faulty.asked[-1].body == LARGE
    assert len(source.given) == 2
    assert source.closed()


def test_an_upload_whose_answer_was_lost_is_not_sent_again(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(HEAD, Say(status=404), Say())
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(silent=True))
    put(client, faulty)
    assert faulty.lines == [HEAD, POST, PUT + QUERY, HEAD]


def test_an_upload_is_not_tried_for_ever(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(status=502))
    with pytest.raises(Unreachable, match=rf"cannot upload blob {BLOB.digest}: .* answers 502 Bad Gateway \(tried 3 times in \d+ s\)") as caught:
        put(client, faulty)
    assert "_state" not in str(caught.value)
    assert len(faulty.asked) == 9


def test_a_blob_damaged_on_the_way_is_sent_once_more(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(status=400, body=b'{"errors": [{"code": "DIGEST_INVALID", "message": "provided digest did not match uploaded content"}]}'))
    with pytest.raises(RegistryError, match="did not match"):
        put(client, faulty)
    assert len(faulty.asked) == 6


def test_a_denied_push_is_told(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, Say(status=403, body=b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}'))
    with pytest.raises(Unauthorized, match="DENIED: requested access"):
        put(client, faulty)
    assert len(faulty.asked) == 2


def test_a_registry_that_says_not_where_to_is_told(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, Say(status=202))
    with pytest.raises(RegistryError, match="says not where to"):
        put(client, faulty)


def test_a_blob_goes_to_another_server_without_the_login(faulty: FaultyServer, storage: FaultyServer, client: Registry) -> None:
    faulty.on(POST, Say(status=202, headers={"Location": f"http://{storage.address}/up?Signature=abc"}))
    storage.on("PUT /up", Say(status=201))
    put(client, faulty)
    assert storage.asked[0].body == LARGE
    assert storage.asked[0].path == f"/up?Signature=abc&digest={BLOB.digest.replace(':', '%3A')}"


@pytest.mark.parametrize(("content", "said"), [(LARGE[:-1], f"{len(LARGE) - 1} were there"), (LARGE + b"!", "more were there"), (b"", "0 were there")])
def test_a_source_of_another_size_is_told(faulty: FaultyServer, client: Registry, content: bytes, said: str) -> None:
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(status=201))
    source = Source(content)
    with pytest.raises(WrongBytes, match=said):
        put(client, faulty, source)
    assert source.closed()
    assert len(source.given) == 1


def test_a_source_that_cannot_be_read_is_the_sources_error(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, STARTED)

    def missing() -> BinaryIO:
        raise FileNotFoundError(2, "No such file", "/store/blob")

    with pytest.raises(FileNotFoundError, match="/store/blob"):
        client.put_blob(at(faulty.address, "a/b:1"), BLOB, missing)


def test_a_mount_that_is_done(faulty: FaultyServer, client: Registry) -> None:
    line = f"{POST}?mount={BLOB.digest.replace(':', '%3A')}&from=c%2Fd"
    faulty.on(line, Say(status=201))
    assert client.mount_blob(at(faulty.address, "a/b:1"), BLOB.digest, "c/d")
    assert faulty.lines == [line]


def test_a_mount_that_became_an_upload_is_ended(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, STARTED)
    faulty.on("DELETE /v2/a/b/blobs/uploads/one", Say(status=204))
    assert not client.mount_blob(at(faulty.address, "a/b:1"), BLOB.digest, "c/d")
    assert faulty.lines[-1] == "DELETE /v2/a/b/blobs/uploads/one?_state=x"


@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_a_mount_that_is_refused_is_no_error(faulty: FaultyServer, client: Registry, status: int) -> None:
    faulty.on(POST, Say(status=status))
    assert not client.mount_blob(at(faulty.address, "a/b:1"), BLOB.digest, "c/d")


def test_a_registry_that_is_down_is_told_when_mounting(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, Say(status=503))
    with pytest.raises(Unreachable):
        client.mount_blob(at(faulty.address, "a/b:1"), BLOB.digest, "c/d")


def test_a_manifest_is_named_by_tag_or_digest(faulty: FaultyServer, client: Registry) -> None:
    content = b'{"schemaVersion": 2}'
    digest = digest_of(content)
    for name, path in (("a/b:1", "1"), (f"a/b:1@{digest}", "1"), (f"a/b@{digest}", digest)):
        faulty.on(f"PUT /v2/a/b/manifests/{path}", Say(status=503), Say(status=201, headers={"Docker-Content-Digest": digest}))
        assert client.put_manifest(at(faulty.address, name), content, OCI_MANIFEST) == digest
        assert faulty.asked[-1].body == content
        assert faulty.asked[-1].headers["content-type"] == OCI_MANIFEST


def test_a_manifest_that_cannot_be_is_not_pushed(faulty: FaultyServer, client: Registry) -> None:
    with pytest.raises(RegistryError, match="over the limit"):
        client.put_manifest(at(faulty.address, "a/b:1"), b" " * (MANIFEST_BYTES + 1), OCI_MANIFEST)
    with pytest.raises(WrongBytes):
        client.put_manifest(at(faulty.address, f"a/b@{digest_of(b'x')}"), b"y", OCI_MANIFEST)
    assert faulty.asked == []


def test_a_registry_that_changes_manifests_is_told(faulty: FaultyServer, client: Registry) -> None:
    faulty.on("PUT /v2/a/b/manifests/1", Say(status=201, headers={"Docker-Content-Digest": digest_of(b"other")}))
    with pytest.raises(WrongBytes, match="the registry keeps the manifest as"):
        client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST)


def test_a_manifest_that_misses_a_blob_is_told_in_the_registrys_words(faulty: FaultyServer, client: Registry) -> None:
    body = b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry"}, {"code": "MANIFEST_INVALID"}, 7]}'
    faulty.on("PUT /v2/a/b/manifests/1", Say(status=400, body=body))
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN: blob unknown to registry; MANIFEST_INVALID; 7"):
        client.put_manifest(at(faulty.address, "a/b:1"), b"{}", OCI_MANIFEST)
