from __future__ import annotations

import io

import pytest

from layerwright.registry import upload
from layerwright.registry.client import Registry
from layerwright.registry.errors import Unauthorized, WrongBytes
from tests.registry.faulty import Asked, FaultyServer, Say
from tests.registry.images import LARGE, at, of

BLOB = of(LARGE)
POST, PUT, PATCH = "POST /v2/a/b/blobs/uploads/", "PUT /v2/a/b/blobs/uploads/one", "PATCH /v2/a/b/blobs/uploads/one"
STATUS = "GET /v2/a/b/blobs/uploads/one"
HERE = "/v2/a/b/blobs/uploads/one"
CHUNK_BYTES = 2_000_000


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "CHUNK_BYTES", CHUNK_BYTES)


@pytest.fixture
def received(faulty: FaultyServer) -> bytearray:
    """What a registry that takes chunks has. The first attempt to send the blob whole fails."""
    got = bytearray()
    faulty.on(POST, Say(status=202, headers={"Location": HERE}))
    faulty.on(PUT, Say(status=503), Say(status=201))
    faulty.on(PATCH, lambda asked: take(got, asked))
    faulty.on(STATUS, lambda asked: Say(status=204, headers=state(got)))
    return got


def state(got: bytearray) -> dict[str, str]:
    return {"Location": HERE, "Range": f"0-{max(len(got) - 1, 0)}", "Content-Length": ""}


def take(got: bytearray, asked: Asked, *, keep: int | None = None) -> Say:
    start, _, end = asked.headers["content-range"].partition("-")
    if int(start) != len(got):
        return Say(status=416, headers={"Range": state(got)["Range"]})
    assert int(end) - int(start) + 1 == len(asked.body)
    got += asked.body[:keep]
    return Say(status=202, headers={"Location": HERE, "Range": state(got)["Range"]}) if keep is None else Say(silent=True)


def put(client: Registry, faulty: FaultyServer, content: bytes = LARGE) -> None:
    client.put_blob(at(faulty.address, "a/b:1"), BLOB, lambda: io.BytesIO(content))


def test_a_large_blob_is_sent_in_chunks_once_the_whole_has_failed(faulty: FaultyServer, client: Registry, received: bytearray) -> None:
    put(client, faulty)
    assert bytes(received) == LARGE
    sent = [one.headers["content-range"] for one in faulty.asked if one.method == "PATCH"]
    assert sent == ["0-1999999", "2000000-3999999", f"4000000-{len(LARGE) - 1}"]
    assert faulty.asked[-1].body == b""
    assert faulty.lines[-1] == f"{PUT}?digest={BLOB.digest.replace(':', '%3A')}"


def test_a_chunk_that_was_cut_is_gone_on_with_from_where_the_registry_is(faulty: FaultyServer, client: Registry, received: bytearray) -> None:
    whole = lambda asked: take(received, asked)  # noqa: E731
    faulty.on(PATCH, whole, lambda asked: take(received, asked, keep=700_000), whole)
    put(client, faulty)
    assert bytes(received) == LARGE
    sent = [one.headers["content-range"].partition("-")[0] for one in faulty.asked if one.method == "PATCH"]
    assert sent == ["0", "2000000", "2700000", "4700000"]


def test_an_upload_that_is_lost_is_begun_anew_and_whole(faulty: FaultyServer, client: Registry, received: bytearray) -> None:
    faulty.on(PATCH, Say(silent=True))
    faulty.on(STATUS, Say(status=404, body=b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}'))
    put(client, faulty)
    assert faulty.asked[-1].body == LARGE


def test_a_registry_that_wants_larger_chunks_gets_them(faulty: FaultyServer, client: Registry, received: bytearray) -> None:
    faulty.on(POST, Say(status=202, headers={"Location": HERE, "OCI-Chunk-Min-Length": "3000000"}))
    put(client, faulty)
    assert [len(one.body) for one in faulty.asked if one.method == "PATCH"] == [3_000_000, len(LARGE) - 3_000_000]


def test_a_registry_that_claims_more_than_there_is_gets_it_whole(faulty: FaultyServer, client: Registry, received: bytearray) -> None:
    faulty.on(PATCH, Say(status=202, headers={"Location": HERE, "Range": "0-99999999"}))
    put(client, faulty)
    assert faulty.asked[-1].body == LARGE


def test_a_refused_login_is_told_though_chunks_give_way(faulty: FaultyServer, client: Registry, received: bytearray) -> None:
    faulty.on(PUT, Say(status=503), Say(status=403))
    faulty.on(PATCH, Say(status=403))
    with pytest.raises(Unauthorized):
        put(client, faulty)


def test_a_source_of_another_size_is_told(faulty: FaultyServer, client: Registry, received: bytearray) -> None:
    faulty.on(PUT, Say(status=503, before_body=True), Say(status=201))
    with pytest.raises(WrongBytes, match="were there to upload"):
        put(client, faulty, LARGE[:-1])


@pytest.mark.parametrize("said", ["0-0", "0-5", "nothing"])
def test_a_registry_that_takes_chunks_and_gets_no_further_gets_it_whole(faulty: FaultyServer, client: Registry, received: bytearray, said: str) -> None:
    """Without an end to it this would go on for ever: each answer says that all is well."""
    steps = [Say(status=202, headers={"Location": HERE, "Range": "0-1999999"}), Say(status=202, headers={"Location": HERE, "Range": "0-0"})]
    faulty.on(PATCH, *(steps * 50 if said == "nothing" else [Say(status=202, headers={"Location": HERE, "Range": said})]))
    put(client, faulty)
    assert faulty.asked[-1].body == LARGE
    assert faulty.lines.count(PATCH) <= 8
