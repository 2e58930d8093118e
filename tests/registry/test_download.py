from __future__ import annotations

from typing import BinaryIO

import pytest

from layerwright.errors import Cancelled
from layerwright.registry.client import Registry
from layerwright.registry.errors import NotFound, Unreachable, WrongBytes
from layerwright.registry.options import Transfer
from tests.registry.faulty import Asked, FaultyServer, Say
from tests.registry.images import LARGE, LAYER, Connect, at, of, quick

PATH = f"GET /v2/a/b/blobs/{of(LARGE).digest}"
SMALL = f"GET /v2/a/b/blobs/{of(LAYER).digest}"


def ranged(asked: Asked) -> Say:
    """The answer of a server that resumes."""
    start = int(asked.headers["range"].removeprefix("bytes=").removesuffix("-"))
    return Say(status=206, body=LARGE[start:], headers={"Content-Range": f"bytes {start}-{len(LARGE) - 1}/{len(LARGE)}"})


def cut_again(asked: Asked) -> Say:
    whole = ranged(asked)
    return Say(status=206, body=whole.body, headers=whole.headers, cut=1_500_000)


def read(client: Registry, faulty: FaultyServer, content: bytes = LARGE) -> bytes:
    with client.blob(at(faulty.address, "a/b:1"), of(content)) as stream:
        return stream.read()


def test_a_blob_comes_whole_and_is_counted(faulty: FaultyServer, connect: Connect) -> None:
    told: list[Transfer] = []
    client = connect(quick(on_bytes=told.append))
    faulty.on(PATH, Say(body=LARGE, headers={"Content-Encoding": "gzip"}))  # some registries say so of a compressed layer: it is stored so
    assert read(client, faulty) == LARGE
    assert client.bytes_in == len(LARGE)
    assert told[-1].done_bytes == len(LARGE)
    assert told == sorted(told, key=lambda one: one.done_bytes)
    assert {(one.direction, one.reference, one.digest, one.total_bytes) for one in told} == {("pull", f"{faulty.address}/a/b:1", of(LARGE).digest, len(LARGE))}


def test_small_reads_give_the_same_bytes(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PATH, Say(body=LARGE))
    with client.blob(at(faulty.address, "a/b:1"), of(LARGE)) as stream:
        assert b"".join(iter(lambda: stream.read(70_001), b"")) == LARGE
        assert stream.read(1) == b""


def test_a_cut_blob_is_resumed_where_it_was_cut(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PATH, Say(body=LARGE, cut=1_200_000), cut_again, ranged)
    assert read(client, faulty) == LARGE
    asked = [one.headers.get("range") for one in faulty.asked]
    assert asked[0] is None
    assert len(asked) == 3
    assert client.bytes_in == len(LARGE)


def test_a_server_that_does_not_resume_is_read_again_from_the_start(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PATH, Say(body=LARGE, cut=2_000_000), Say(body=LARGE))
    assert read(client, faulty) == LARGE


def test_an_answer_for_another_range_is_not_used(faulty: FaultyServer, client: Registry) -> None:
    elsewhere = Say(status=206, body=LARGE[5:], headers={"Content-Range": f"bytes 5-{len(LARGE) - 1}/{len(LARGE)}"})
    faulty.on(PATH, Say(body=LARGE, cut=2_000_000), elsewhere, Say(body=LARGE))
    assert read(client, faulty) == LARGE
    assert "range" not in faulty.asked[-1].headers


def test_a_server_that_gives_no_more_is_given_up(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PATH, Say(body=LARGE, cut=1_200_000), Say(silent=True))
    with pytest.raises(Unreachable, match="tried 3 times"):
        read(client, faulty)


def test_an_end_without_length_before_the_blob_is_whole_is_a_cut(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PATH, Say(body=LARGE[:3_000_000], headers={"Content-Length": ""}), ranged)
    assert read(client, faulty) == LARGE


def test_wrong_bytes_are_not_given_whole(faulty: FaultyServer, client: Registry) -> None:
    wrong = LARGE[:-1] + b"!"
    faulty.on(PATH, Say(body=wrong))
    got = bytearray()
    with pytest.raises(WrongBytes, match=f"blob {of(LARGE).digest} came damaged: its bytes have digest {of(wrong).digest}") as caught:
        collect(client, faulty, got)
    assert 0 < len(got) < len(LARGE)
    assert caught.value.where == f"{faulty.address}/a/b:1"


def collect(client: Registry, faulty: FaultyServer, got: bytearray) -> None:
    with client.blob(at(faulty.address, "a/b:1"), of(LARGE)) as stream:
        while piece := stream.read(1 << 16):
            got += piece


@pytest.mark.parametrize("body", [LARGE + b"!", LARGE[:-1]])
def test_a_wrong_size_is_refused_before_any_byte_is_given(faulty: FaultyServer, client: Registry, body: bytes) -> None:
    faulty.on(PATH, Say(body=body))
    with pytest.raises(WrongBytes, match=f"its size is {len(body)} bytes, {len(LARGE)} were announced"):
        read(client, faulty)
    assert len(faulty.asked) == 2


def test_more_bytes_than_announced_are_refused(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PATH, Say(body=LARGE + b"!", headers={"Content-Length": ""}))
    with pytest.raises(WrongBytes, match="more than the"):
        read(client, faulty)


def test_a_small_blob_is_checked_and_fetched_again_before_it_is_given(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(SMALL, Say(body=LAYER[:-1] + b"!"), Say(body=LAYER, cut=100), Say(body=LAYER))
    assert read(client, faulty, LAYER) == LAYER
    assert len(faulty.asked) == 3
    faulty.on(SMALL, Say(body=LAYER[:-1] + b"!"))
    faulty.asked.clear()
    with pytest.raises(WrongBytes, match=r"tried 2 times"):
        client.blob_bytes(at(faulty.address, "a/b:1"), of(LAYER))
    assert len(faulty.asked) == 2


def test_a_reader_is_called_again_after_wrong_bytes_only(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PATH, Say(body=LARGE[:-1] + b"!"), Say(body=LARGE))
    calls = []

    def take(stream: BinaryIO) -> bytes:
        calls.append(1)
        return stream.read()

    assert client.read_blob(at(faulty.address, "a/b:1"), of(LARGE), take) == LARGE
    assert len(calls) == 2
    faulty.on(PATH, Say(status=503))
    faulty.asked.clear()
    with pytest.raises(Unreachable):
        client.read_blob(at(faulty.address, "a/b:1"), of(LARGE), take)
    assert len(faulty.asked) == 3
    assert len(calls) == 2


def test_a_blob_that_is_not_there_is_told_at_once(faulty: FaultyServer, client: Registry) -> None:
    with pytest.raises(NotFound, match=f"cannot read blob {of(LARGE).digest}"), client.blob(at(faulty.address, "a/b:1"), of(LARGE)):
        pytest.fail("there is nothing to read")


def test_a_blob_may_be_left_unread(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(PATH, Say(body=LARGE))
    for _ in range(3):
        with client.blob(at(faulty.address, "a/b:1"), of(LARGE)) as stream:
            assert stream.read(10) == LARGE[:10]


def test_an_empty_blob_is_read(faulty: FaultyServer, client: Registry) -> None:
    faulty.on(f"GET /v2/a/b/blobs/{of(b'').digest}", Say(body=b""))
    assert read(client, faulty, b"") == b""


def test_reading_can_be_cancelled(faulty: FaultyServer, connect: Connect) -> None:
    got = bytearray()
    client = connect(quick(cancelled=lambda: len(got) > 0))
    faulty.on(PATH, Say(body=LARGE))
    with pytest.raises(Cancelled):
        collect(client, faulty, got)
    assert len(got) < len(LARGE)


def test_a_connection_that_is_cut_again_and_again_still_brings_the_blob(faulty: FaultyServer, client: Registry) -> None:
    def cut(asked: Asked) -> Say:
        whole = ranged(asked) if "range" in asked.headers else Say(body=LARGE)
        return Say(status=whole.status, body=whole.body, headers=whole.headers, cut=600_000 if len(whole.body) > 600_000 else None)

    faulty.on(PATH, cut)
    assert read(client, faulty) == LARGE
    assert len(faulty.asked) >= 9
