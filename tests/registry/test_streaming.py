from __future__ import annotations

import hashlib
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from layerwright.errors import Cancelled
from layerwright.oci.digest import digest_of
from layerwright.registry import streaming
from layerwright.registry.client import Registry
from layerwright.registry.errors import ChunksRefused, RegistryError, Unauthorized, Unreachable
from layerwright.registry.options import Transfer
from tests.registry.faulty import Asked, FaultyServer, Say
from tests.registry.images import Connect, at, of, quick
from tests.support import faults
from tests.support.faulty_proxy import Exchange, FaultyProxy
from tests.support.registry_server import RegistryServer

CHUNK_BYTES = 100_000
LIMIT_S = 30  # what hangs is noticed
POST, PUT, PATCH = "POST /v2/a/b/blobs/uploads/", "PUT /v2/a/b/blobs/uploads/one", "PATCH /v2/a/b/blobs/uploads/one"
STATUS, DELETE = "GET /v2/a/b/blobs/uploads/one", "DELETE /v2/a/b/blobs/uploads/one"
HERE = "/v2/a/b/blobs/uploads/one"
STARTED = Say(status=202, headers={"Location": HERE})
Write = Callable[[bytes], object]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK_BYTES", CHUNK_BYTES)


@pytest.fixture
def proxy(registry: RegistryServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(registry.address, wants_token=True) as made:
        yield made


def content_of(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(b"%d" % seed).digest(size)


class Producer:
    """Writes `content` in pieces, anew each time it is called."""

    def __init__(self, content: bytes, piece_bytes: int = 7_001) -> None:
        self.content = content
        self.calls = 0
        self._piece_bytes = piece_bytes

    def __call__(self, write: Write) -> None:
        self.calls += 1
        for start in range(0, len(self.content), self._piece_bytes):
            write(self.content[start : start + self._piece_bytes])


def within_limit(act: Callable[[], object]) -> None:
    """`act`, or what it raises, before a hang would be over."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result(LIMIT_S)


def stream(client: Registry, address: str, produce: Callable[[Write], None]) -> tuple[str, int]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(client.stream_blob, at(address, "a/b:1"), produce).result(LIMIT_S)


def senders() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "upload"]


class Kept:
    """What a registry that takes chunks has, behind a server that misbehaves on order."""

    def __init__(self, faulty: FaultyServer) -> None:
        self.got = bytearray()
        faulty.on(POST, self.start)
        faulty.on(PATCH, self.take)
        faulty.on(STATUS, self.state)
        faulty.on(PUT, self.make)
        faulty.on(DELETE, Say(status=204))

    def start(self, asked: Asked) -> Say:
        self.got.clear()
        return STARTED

    def take(self, asked: Asked, *, keep: int | None = None) -> Say:
        start, _, end = asked.headers["content-range"].partition("-")
        if int(start) != len(self.got):
            return Say(status=416, headers=self._range())
        assert int(end) - int(start) + 1 == len(asked.body)
        self.got += asked.body[:keep]
        return Say(status=202, headers={"Location": HERE, **self._range()}) if keep is None else Say(silent=True)

    def state(self, asked: Asked) -> Say:
        return Say(status=204, headers={"Location": HERE, "Content-Length": "", **self._range()})

    def make(self, asked: Asked) -> Say:
        self.got += asked.body
        return Say(status=201 if asked.path.endswith(digest_of(bytes(self.got)).replace(":", "%3A")) else 400)

    def _range(self) -> dict[str, str]:
        return {"Range": f"0-{max(len(self.got) - 1, 0)}"}


@pytest.fixture
def kept(faulty: FaultyServer) -> Kept:
    return Kept(faulty)


def ranges(faulty: FaultyServer) -> list[str]:
    return [one.headers["content-range"] for one in faulty.asked if one.method == "PATCH"]


SIZES = [CHUNK_BYTES + 1, 2 * CHUNK_BYTES - 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, *SIZES])
def test_what_was_written_is_in_the_registry_under_its_digest(registry: RegistryServer, client: Registry, size: int) -> None:
    content = content_of(size, seed=size)
    reference = at(registry.address, "stream/sizes:1")
    assert client.stream_blob(reference, Producer(content)) == (digest_of(content), size)
    assert client.blob_bytes(reference, of(content)) == content
    assert client.bytes_out == size
    assert senders() == []


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES])
def test_what_fits_into_one_chunk_costs_two_requests(faulty: FaultyServer, kept: Kept, client: Registry, size: int) -> None:
    content = content_of(size)
    stream(client, faulty.address, Producer(content))
    assert [one.method for one in faulty.asked] == ["POST", "PUT"]
    assert bytes(kept.got) == content


@pytest.mark.parametrize("size", SIZES)
def test_what_does_not_goes_in_full_chunks_and_one_that_may_be_shorter(faulty: FaultyServer, kept: Kept, client: Registry, size: int) -> None:
    content = content_of(size)
    stream(client, faulty.address, Producer(content))
    assert bytes(kept.got) == content
    assert ranges(faulty) == [f"{start}-{min(start + CHUNK_BYTES, size) - 1}" for start in range(0, size, CHUNK_BYTES)]
    assert faulty.asked[-1].method == "PUT"
    assert faulty.asked[-1].body == b""


@pytest.mark.parametrize("piece_bytes", [1_000, CHUNK_BYTES, CHUNK_BYTES * 2 + 1])
def test_the_size_of_what_is_written_at_once_does_not_matter(faulty: FaultyServer, kept: Kept, client: Registry, piece_bytes: int) -> None:
    content = content_of(CHUNK_BYTES * 4 + 17)
    stream(client, faulty.address, Producer(content, piece_bytes))
    assert bytes(kept.got) == content
    assert len(ranges(faulty)) == 5


def test_what_is_written_may_be_used_for_something_else_at_once(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    content = content_of(CHUNK_BYTES * 3)

    def produce(write: Write) -> None:
        buffer = bytearray(1000)
        for start in range(0, len(content), 1000):
            buffer[:] = content[start : start + 1000]
            write(buffer)  # type: ignore[arg-type]  # as a compressor may do

    stream(client, faulty.address, produce)
    assert bytes(kept.got) == content


def test_it_is_sent_while_it_is_made(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    """The second half is not made before the registry has some of the first."""
    content = content_of(CHUNK_BYTES * 4)
    has_some = threading.Event()

    def take(asked: Asked) -> Say:
        has_some.set()
        return kept.take(asked)

    faulty.on(PATCH, take)

    def produce(write: Write) -> None:
        write(content[: CHUNK_BYTES * 2])
        assert has_some.wait(LIMIT_S)
        write(content[CHUNK_BYTES * 2 :])

    stream(client, faulty.address, produce)
    assert bytes(kept.got) == content


def test_only_some_chunks_are_in_memory(registry: RegistryServer, client: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 2 << 20)
    piece, count = os.urandom(1 << 18), 160

    def produce(write: Write) -> None:
        for _ in range(count):
            write(piece)

    client.stream_blob(at(registry.address, "stream/memory:1"), Producer(bytes(10)))  # what is loaded once is loaded
    tracemalloc.start()
    try:
        client.stream_blob(at(registry.address, "stream/memory:1"), produce)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5 * (2 << 20) < len(piece) * count


def test_the_sender_has_the_context_of_the_caller(faulty: FaultyServer, kept: Kept, connect: Connect) -> None:
    image: ContextVar[str] = ContextVar("image", default="")
    seen: set[tuple[str, str]] = set()
    client = connect(quick(on_moved=lambda direction, size: seen.add((image.get(), direction))))
    image.set("api")
    client.stream_blob(at(faulty.address, "a/b:1"), Producer(content_of(CHUNK_BYTES * 3)))
    assert seen == {("api", "out")}


def test_progress_has_no_total_before_the_end(faulty: FaultyServer, kept: Kept, connect: Connect) -> None:
    told: list[Transfer] = []
    client = connect(quick(on_bytes=told.append))
    size = CHUNK_BYTES * 3 + 5
    for _ in range(2):
        stream(client, faulty.address, Producer(content_of(size)))
    uploads = list(dict.fromkeys(one.digest for one in told))
    assert len(uploads) == 2
    for upload in uploads:
        *before, last = [one for one in told if one.digest == upload]
        assert {one.total_bytes for one in before} == {0}
        assert [one.done_bytes for one in before] == [CHUNK_BYTES, CHUNK_BYTES * 2, CHUNK_BYTES * 3, size]
        assert last.done_bytes == last.total_bytes == size
        assert len(upload[7:19]) == 12
    assert client.bytes_out == 2 * size


def test_a_registry_that_wants_larger_chunks_gets_them(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    content = content_of(CHUNK_BYTES * 5)
    faulty.on(POST, Say(status=202, headers={"Location": HERE, "OCI-Chunk-Min-Length": str(CHUNK_BYTES + 1)}))
    stream(client, faulty.address, Producer(content))
    assert bytes(kept.got) == content
    assert [len(one.body) for one in faulty.asked if one.method == "PATCH"] == [CHUNK_BYTES * 2, CHUNK_BYTES * 2, CHUNK_BYTES]


def test_a_registry_that_wants_chunks_too_large_to_hold_gets_none(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    faulty.on(POST, Say(status=202, headers={"Location": HERE, "OCI-Chunk-Min-Length": str(1 << 30)}))
    with pytest.raises(ChunksRefused, match="wants chunks of 1073741824 bytes"):
        stream(client, faulty.address, Producer(content_of(CHUNK_BYTES * 3)))
    assert ranges(faulty) == []


def test_a_chunk_that_was_cut_is_gone_on_with_from_where_the_registry_is(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    content = content_of(CHUNK_BYTES * 3)
    faulty.on(PATCH, kept.take, lambda asked: kept.take(asked, keep=70_000), kept.take)
    produce = Producer(content)
    assert stream(client, faulty.address, produce) == (digest_of(content), len(content))
    assert bytes(kept.got) == content
    assert ranges(faulty) == ["0-99999", "100000-199999", "170000-199999", "200000-299999"]
    assert produce.calls == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_that_is_busy_gets_the_chunk_again(faulty: FaultyServer, kept: Kept, client: Registry, status: int) -> None:
    content = content_of(CHUNK_BYTES * 3)
    faulty.on(PATCH, kept.take, Say(status=status, headers={"Retry-After": "0"}), kept.take)
    produce = Producer(content)
    stream(client, faulty.address, produce)
    assert bytes(kept.got) == content
    assert produce.calls == 1


def test_a_login_that_ends_between_chunks_is_renewed(proxy: FaultyProxy, registry: RegistryServer, client: Registry) -> None:
    content = content_of(CHUNK_BYTES * 4, seed=1)
    proxy.fail("PATCH", "/stream/login/", faults.expired_token, first=2)
    proxy.fail("PUT", "/stream/login/", faults.expired_token)
    produce = Producer(content)
    reference = at(proxy.address, "stream/login:1")
    assert client.stream_blob(reference, produce) == (digest_of(content), len(content))
    assert client.blob_bytes(reference, of(content)) == content
    assert produce.calls == 1


@pytest.mark.parametrize(
    "fault", [faults.reset, faults.close, faults.lost, faults.garbage, faults.status(503, "UNAVAILABLE: later"), faults.silence, faults.deaf]
)
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_fault_once_in_a_stream_ends_well(proxy: FaultyProxy, connect: Connect, method: str, fault: Callable[[Exchange], None]) -> None:
    client = connect(quick(read_timeout_s=1.0, commit_timeout_s=1.0))
    content = content_of(CHUNK_BYTES * 4 + 3, seed=2)
    name = f"stream/once-{time.monotonic_ns()}"
    proxy.fail(method, f"/{name}/blobs/uploads", fault, first=3 if method == "PATCH" else 1)
    produce = Producer(content)
    within_limit(lambda: client.stream_blob(at(proxy.address, f"{name}:1"), produce))
    assert client.blob_bytes(at(proxy.address, f"{name}:1"), of(content)) == content
    assert produce.calls <= 2
    assert senders() == []


@pytest.mark.parametrize("fault", [faults.reset, faults.status(503, "UNAVAILABLE: later"), faults.silence, faults.deaf])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_fault_that_stays_is_told_and_ends_the_producer(proxy: FaultyProxy, connect: Connect, method: str, fault: Callable[[Exchange], None]) -> None:
    client = connect(quick(read_timeout_s=0.5, commit_timeout_s=0.5, attempts=2))
    proxy.fail(method, "/stream/always/", fault, always=True)
    produce = endless if method != "PUT" else Producer(content_of(CHUNK_BYTES * 2))
    with pytest.raises((Unreachable, ChunksRefused)) as caught:
        within_limit(lambda: client.stream_blob(at(proxy.address, "stream/always:1"), produce))
    assert proxy.address in caught.value.where
    assert senders() == []


def endless(write: Write) -> None:
    piece = content_of(10_000)
    while True:
        write(piece)


def test_an_upload_that_is_lost_is_made_again(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    content = content_of(CHUNK_BYTES * 3)
    gone = Say(status=404, body=b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')
    faulty.on(PATCH, kept.take, gone, kept.take)
    produce = Producer(content)
    assert stream(client, faulty.address, produce) == (digest_of(content), len(content))
    assert bytes(kept.got) == content
    assert produce.calls == 2


def test_a_registry_that_goes_back_behind_what_is_held_gets_it_all_again(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    content = content_of(CHUNK_BYTES * 4)

    def forget(asked: Asked) -> Say:
        del kept.got[5:]
        return Say(status=500)

    faulty.on(PATCH, kept.take, kept.take, forget, kept.take)
    produce = Producer(content)
    stream(client, faulty.address, produce)
    assert bytes(kept.got) == content
    assert produce.calls == 2


def test_an_upload_that_is_lost_at_its_end_is_made_again(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    content = content_of(CHUNK_BYTES * 3)
    faulty.on(PUT, Say(status=404), kept.make)
    produce = Producer(content)
    stream(client, faulty.address, produce)
    assert bytes(kept.got) == content
    assert produce.calls == 2


def test_a_blob_whose_last_answer_was_lost_is_looked_for(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    content = content_of(CHUNK_BYTES * 2)
    faulty.on(PUT, Say(silent=True))
    faulty.on(f"HEAD /v2/a/b/blobs/{digest_of(content)}", Say(headers={"Content-Length": str(len(content))}))
    produce = Producer(content)
    assert stream(client, faulty.address, produce) == (digest_of(content), len(content))
    assert [one.method for one in faulty.asked] == ["POST", "PATCH", "PATCH", "PUT", "HEAD"]


@pytest.mark.parametrize("lost", [PATCH, PUT])
def test_a_registry_that_loses_every_upload_gets_blobs_whole_from_then_on(faulty: FaultyServer, kept: Kept, client: Registry, lost: str) -> None:
    faulty.on(lost, Say(status=404, body=b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}'))
    produce = Producer(content_of(CHUNK_BYTES * 3))
    with pytest.raises(ChunksRefused, match=r"BLOB_UPLOAD_UNKNOWN \(begun 3 times\)"):
        stream(client, faulty.address, produce)
    assert produce.calls == 3


@pytest.mark.parametrize(
    "refusal",
    [
        Say(status=405),
        Say(status=400),
        Say(status=413),
        Say(status=416),
        Say(status=501),
        Say(status=202, headers={"Location": HERE, "Range": "0-0"}),
        Say(status=202, headers={"Location": HERE, "Range": "0-99999999"}),
        Say(status=413, before_body=True),
    ],
)
def test_a_registry_that_refuses_chunks_is_not_asked_again(faulty: FaultyServer, kept: Kept, client: Registry, refusal: Say) -> None:
    faulty.on(PATCH, refusal)
    produce = Producer(content_of(CHUNK_BYTES * 5))
    with pytest.raises(ChunksRefused) as caught:
        stream(client, faulty.address, produce)
    assert caught.value.mend
    assert produce.calls == 1
    assert faulty.lines[-1] == DELETE
    asked = len(faulty.asked)
    with pytest.raises(ChunksRefused, match="takes no blobs in chunks"):
        client.stream_blob(at(faulty.address, "c/d:2"), produce)
    assert produce.calls == 1
    assert len(faulty.asked) == asked


@pytest.mark.parametrize("line", [POST, PATCH, PUT])
def test_a_refused_login_is_told(faulty: FaultyServer, kept: Kept, client: Registry, line: str) -> None:
    faulty.on(line, Say(status=403, body=b'{"errors": [{"code": "DENIED", "message": "not for you"}]}'))
    produce = Producer(content_of(CHUNK_BYTES * 5))
    with pytest.raises(Unauthorized, match="DENIED: not for you"):
        stream(client, faulty.address, produce)
    assert produce.calls == 1


@pytest.mark.parametrize("written", [0, 10, CHUNK_BYTES + 1, CHUNK_BYTES * 6])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("spoilt"), RegistryError("the base is gone", tries=3), KeyboardInterrupt()]
)
def test_what_the_producer_raises_ends_the_upload_and_is_raised(faulty: FaultyServer, kept: Kept, client: Registry, written: int, error: BaseException) -> None:
    calls = []
    is_sent = threading.Event()

    def take(asked: Asked) -> Say:
        is_sent.set()
        return kept.take(asked)

    faulty.on(PATCH, take)

    def produce(write: Write) -> None:
        calls.append(1)
        write(content_of(written))
        assert written <= CHUNK_BYTES or is_sent.wait(LIMIT_S)
        raise error

    with pytest.raises(type(error)) as caught:
        stream(client, faulty.address, produce)
    assert caught.value is error
    assert calls == [1]
    assert PUT not in [one.line.partition("?")[0] for one in faulty.asked]
    assert faulty.lines.count(POST) == faulty.lines.count(DELETE) == (1 if written > CHUNK_BYTES else 0)
    assert senders() == []


def test_what_the_producer_raises_does_not_wait_for_a_registry_that_says_nothing(faulty: FaultyServer, kept: Kept, connect: Connect) -> None:
    """Of the waits here each one is longer than the limit."""
    client = connect(quick(read_timeout_s=LIMIT_S * 2, commit_timeout_s=LIMIT_S * 2, longest_wait_s=LIMIT_S * 2))
    reached = threading.Event()
    held = threading.Event()

    def hang(asked: Asked) -> Say:
        reached.set()
        held.wait(LIMIT_S)
        return Say(silent=True)

    faulty.on(PATCH, hang)

    def produce(write: Write) -> None:
        write(content_of(CHUNK_BYTES * 2))
        reached.wait(LIMIT_S)
        raise ValueError("spoilt")

    try:
        with pytest.raises(ValueError, match="spoilt"):
            client.stream_blob(at(faulty.address, "a/b:1"), produce)
        assert not held.is_set()
        assert faulty.lines[-1] == DELETE
    finally:
        held.set()


def test_a_failure_while_sending_is_told_though_the_producer_makes_another_of_it(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    faulty.on(PATCH, Say(status=403))

    def produce(write: Write) -> None:
        try:
            endless(write)
        except Exception:
            raise ValueError("the compressor is broken") from None

    with pytest.raises(Unauthorized):
        stream(client, faulty.address, produce)


def test_a_failure_while_sending_is_told_though_the_producer_takes_no_notice(faulty: FaultyServer, kept: Kept, client: Registry) -> None:
    faulty.on(PATCH, Say(status=403))

    def produce(write: Write) -> None:
        for _ in range(50):
            try:
                write(content_of(10_000))
            except Exception:
                continue

    with pytest.raises(Unauthorized):
        stream(client, faulty.address, produce)


@pytest.mark.parametrize("line", [POST, PATCH, PUT])
def test_it_can_be_cancelled_whatever_is_waited_for(faulty: FaultyServer, kept: Kept, connect: Connect, line: str) -> None:
    cancelled, held = threading.Event(), threading.Event()

    def hang(asked: Asked) -> Say:
        cancelled.set()
        held.wait(LIMIT_S)
        return Say(silent=True)

    faulty.on(line, hang)
    client = connect(quick(read_timeout_s=LIMIT_S * 2, commit_timeout_s=LIMIT_S * 2, cancelled=cancelled.is_set))
    produce = endless if line != PUT else Producer(content_of(CHUNK_BYTES * 3))
    try:
        with pytest.raises(Cancelled):
            stream(client, faulty.address, produce)
        assert senders() == []
    finally:
        held.set()


def test_many_streams_go_at_once(registry: RegistryServer, client: Registry) -> None:
    contents = [content_of(CHUNK_BYTES * 4 + number, seed=number) for number in range(8)]
    reference = at(registry.address, "stream/many:1")
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(client.stream_blob, reference, Producer(content)) for content in contents]
        assert [one.result(LIMIT_S) for one in made] == [(digest_of(content), len(content)) for content in contents]
    for content in contents:
        assert client.blob_bytes(reference, of(content)) == content
