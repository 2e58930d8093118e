from __future__ import annotations

import io
from typing import BinaryIO

import pytest

from layerwright.registry.client import Registry
from layerwright.registry.errors import NotFound, RegistryError, Unauthorized, Unreachable, WrongBytes
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


def test_a_blob_known_to_be_new_is_not_looked_for(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(status=201))
    client.put_blob(at(faulty.address, "a/b:1"), BLOB, Source(), may_exist=False)
    assert faulty.lines == [POST, PUT + QUERY]


def test_a_new_blob_whose_answer_was_lost_is_looked_for_before_it_is_sent_again(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(HEAD, Say())
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(silent=True))
    client.put_blob(at(faulty.address, "a/b:1"), BLOB, Source(), may_exist=False)
    assert faulty.lines == [POST, PUT + QUERY, HEAD]


def test_small_blobs_go_over_one_connection(faulty: FaultyServer, client: Registry) -> None:
    for number in range(5):
        content = b"small %d" % number
        faulty.on(POST, STARTED)
        faulty.on(PUT, Say(status=201))
        client.put_blob(at(faulty.address, "a/b:1"), of(content), lambda content=content: io.BytesIO(content), may_exist=number % 2 > 0)  # type: ignore[misc]
    assert len({one.peer for one in faulty.asked}) == 1


def test_what_moves_is_told_as_it_is_counted(faulty: FaultyServer, connect: Connect) -> None:
    moved: list[tuple[str, int]] = []
    client = connect(quick(on_moved=lambda direction, size: moved.append((direction, size))))
    faulty.on(POST, STARTED)
    faulty.on(PUT, Say(status=201))
    put(client, faulty)
    faulty.on(f"GET /v2/a/b/blobs/{BLOB.digest}", Say(body=LARGE))
    assert client.blob_bytes(at(faulty.address, "a/b:1"), BLOB) == LARGE
    assert {direction for direction, _ in moved} == {"in", "out"}
    assert sum(size for direction, size in moved if direction == "out") == client.bytes_out == len(LARGE)
    assert sum(size for direction, size in moved if direction == "in") == client.bytes_in == len(LARGE)


def test_that_pushing_is_allowed_is_seen_by_two_requests(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, STARTED)
    faulty.on("DELETE /v2/a/b/blobs/uploads/one", Say(status=204))
    client.check_push(at(faulty.address, "a/b:1"))
    assert faulty.lines == [POST, "DELETE /v2/a/b/blobs/uploads/one?_state=x"]


def test_a_registry_that_cannot_end_an_upload_allows_pushing_too(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, STARTED)
    faulty.on("DELETE /v2/a/b/blobs/uploads/one", Say(status=405))
    client.check_push(at(faulty.address, "a/b:1"))


def test_a_push_that_is_not_allowed_is_told_with_the_login_to_mend_it(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, Say(status=403, body=b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}'))
    with pytest.raises(Unauthorized, match=r"cannot push to .*/a/b: .*DENIED: requested access") as caught:
        client.check_push(at(faulty.address, "a/b:1"))
    assert f"layerwright cr login {faulty.address}" in caught.value.mend


def test_a_repository_that_has_to_exist_first_is_told(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, Say(status=404, body=b'{"errors": [{"code": "NAME_UNKNOWN", "message": "The repository does not exist in the registry"}]}'))
    with pytest.raises(NotFound, match="NAME_UNKNOWN: The repository does not exist") as caught:
        client.check_push(at(faulty.address, "a/b:1"))
    assert "create the repository a/b" in caught.value.mend
    assert "right to push" in caught.value.mend
    assert len(faulty.asked) == 1


def test_a_busy_registry_is_asked_again_whether_pushing_is_allowed(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(POST, Say(status=503), STARTED)
    client.check_push(at(faulty.address, "a/b:1"))
    assert faulty.lines[:2] == [POST, POST]
