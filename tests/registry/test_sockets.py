"""Peers that accept and then do nothing, at every point where a transfer can wait."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from layerwright.errors import Cancelled
from layerwright.registry import sockets
from layerwright.registry.errors import Unreachable
from layerwright.registry.patience import Waits
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import LARGE, Connect, at, of, quick

BLOB = of(LARGE * 4)


class Mute:
    """Listens, and never reads or says a thing."""

    def __init__(self, backlog: int = 5) -> None:
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(backlog)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.others: list[socket.socket] = []

    def fill(self) -> None:
        """Take all the places of the queue, so that nobody else gets a connection."""
        for _ in range(8):
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(self.listener.getsockname())
            self.others.append(other)

    def close(self) -> None:
        for one in (*self.others, self.listener):
            one.close()


@pytest.fixture
def mute() -> Iterator[Mute]:
    made = Mute()
    yield made
    made.close()


@pytest.fixture
def full() -> Iterator[Mute]:
    made = Mute(backlog=0)
    made.fill()
    yield made
    made.close()


class CancelledSoon:
    """True from a moment after it was first asked."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._timer = threading.Timer(0.3, self._set.set)
        self._timer.daemon = True
        self._started = False

    def __call__(self) -> bool:
        if not self._started:
            self._started = True
            self._timer.start()
        return self._set.is_set()


def test_no_connection(full: Mute, connect: Connect) -> None:
    with pytest.raises(Unreachable, match=r"cannot look for the manifest: 127\.0\.0\.1:\d+: no connection within 0\.3 s \(tried 2 times in"):
        connect(quick(connect_timeout_s=0.3)).head(at(full.address, "a/b:1"))


def test_no_tls(mute: Mute, connect: Connect) -> None:
    with pytest.raises(Unreachable, match=r"no connection within 0\.3 s"):
        connect(quick(connect_timeout_s=0.3, tls=(mute.address,))).head(at(mute.address, "a/b:1"))


def test_no_answer(mute: Mute, connect: Connect) -> None:
    with pytest.raises(Unreachable, match=r"it said nothing for 0\.3 s"):
        connect(quick(read_timeout_s=0.3)).head(at(mute.address, "a/b:1"))


def test_an_upload_that_nobody_reads(faulty: FaultyServer, mute: Mute, connect: Connect) -> None:
    faulty.on("POST /v2/a/b/blobs/uploads/", Say(status=202, headers={"Location": f"http://{mute.address}/up"}))
    with pytest.raises(Unreachable, match=r"it took nothing for 0\.3 s while we sent"):
        connect(quick(read_timeout_s=0.3, attempts=1)).put_blob(at(faulty.address, "a/b:1"), BLOB, lambda: io.BytesIO(LARGE * 4))


@pytest.mark.parametrize("where", ["connection", "tls", "answer", "upload", "body", "pause"])
def test_a_transfer_that_hangs_is_cancelled(where: str, faulty: FaultyServer, mute: Mute, full: Mute, connect: Connect) -> None:
    address = {"connection": full.address, "tls": mute.address, "answer": mute.address}.get(where, faulty.address)
    client = connect(
        quick(
            cancelled=CancelledSoon(),
            tls=(mute.address,) if where == "tls" else (),
            connect_timeout_s=500.0,
            read_timeout_s=500.0,
            commit_timeout_s=500.0,
            first_wait_s=500.0,
            longest_wait_s=5000.0,
        )
    )
    faulty.on("HEAD /v2/a/b/manifests/1", Say(status=503, headers={"Retry-After": "400"}))
    faulty.on(f"GET /v2/a/b/blobs/{BLOB.digest}", Say(status=307, headers={"Location": f"http://{mute.address}/x"}))
    faulty.on("POST /v2/a/b/blobs/uploads/", Say(status=202, headers={"Location": f"http://{mute.address}/up"}))
    reference = at(address, "a/b:1")
    act: Callable[[], object] = lambda: client.head(reference)  # noqa: E731
    if where == "upload":
        act = lambda: client.put_blob(reference, BLOB, lambda: io.BytesIO(LARGE * 4))  # noqa: E731
    elif where == "body":
        act = lambda: client.read_blob(reference, BLOB, lambda stream: stream.read())  # noqa: E731
    with pytest.raises(Cancelled):
        act()


def test_a_name_server_that_says_nothing(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def stuck(host: str, *arguments: object, flags: int = 0, **more: object) -> list[sockets.Address]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        released.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    try:
        with pytest.raises(Unreachable, match=r"no connection within 0\.3 s"):
            connect(quick(connect_timeout_s=0.3)).head(at("r.example", "a/b:1"))
        with pytest.raises(Cancelled):
            connect(quick(connect_timeout_s=500.0, cancelled=CancelledSoon())).head(at("r.example", "a/b:1"))
    finally:
        released.set()


def test_the_next_address_is_tried(faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch, mute: Mute) -> None:
    port = int(faulty.address.partition(":")[2])
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    places = [closed.getsockname(), ("127.0.0.1", port)]
    monkeypatch.setattr(sockets, "addresses_of", lambda *_: [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places])
    with closed, sockets.connected("r.example", port, Waits(), []) as made:
        assert made.getpeername() == ("127.0.0.1", port)


def test_bytes_go_through_whole(faulty: FaultyServer, connect: Connect) -> None:
    faulty.on("POST /v2/a/b/blobs/uploads/", Say(status=202, headers={"Location": "/v2/a/b/blobs/uploads/one"}))
    faulty.on("PUT /v2/a/b/blobs/uploads/one", Say(status=201))
    connect(quick()).put_blob(at(faulty.address, "a/b:1"), BLOB, lambda: io.BytesIO(LARGE * 4))
    assert faulty.asked[-1].body == LARGE * 4
