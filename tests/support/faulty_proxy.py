"""A proxy in front of a real registry that goes wrong on order: one fault for the Nth request of a kind, once or always. On loopback, in threads of the test.

    with FaultyProxy(registry.address) as proxy:
        proxy.fail("GET", "/blobs/", faults.cut)               # the first one only
        proxy.fail("PUT", "/manifests/", faults.status(503), always=True)

A path `/v2/case-NAME/REST` is `/v2/REST` of the registry, so that many cases can read one repository and still be told apart.
The faults themselves are in `tests.support.faults`.
"""

from __future__ import annotations

import http.client
import re
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_CASE = re.compile(r"^/v2/case-[^/]+/")
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")
_LOOK_S = 0.05
_TOGETHER_S = 30.0


@dataclass(slots=True)
class Given:
    """What the registry answered, to be spoiled."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exchange:
    """One request and what can be done with it. A fault is a function of this."""

    def __init__(self, handler: BaseHTTPRequestHandler, proxy: FaultyProxy) -> None:
        self._handler = handler
        self._proxy = proxy
        self._body: bytes | None = None

    @property
    def method(self) -> str:
        return self._handler.command

    @property
    def path(self) -> str:
        return self._handler.path

    @property
    def proxy(self) -> FaultyProxy:
        return self._proxy

    def header(self, name: str) -> str:
        return self._handler.headers.get(name, "")

    def body(self) -> bytes:
        """All that the client sends."""
        if self._body is None:
            self._body = self._handler.rfile.read(int(self.header("Content-Length") or 0))
        return self._body

    def ask(self, **more: str) -> Given:
        """Let the registry answer. `more` are headers; an empty one is taken out."""
        headers = {name: value for name, value in self._handler.headers.items() if name.lower() not in (*_HOP_BY_HOP, "authorization")} | more
        upstream = http.client.HTTPConnection(self._proxy.upstream)
        try:
            upstream.request(self.method, _CASE.sub("/v2/", self.path), self.body() or None, {name: value for name, value in headers.items() if value})
            answer = upstream.getresponse()
            return Given(answer.status, {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}, answer.read())
        finally:
            upstream.close()

    def say(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", *, announced: int | None = None, sent: int | None = None) -> None:
        """Answer. `announced`: another Content-Length, -1 for none; `sent`: only so many bytes of the body."""
        all_headers = {"Content-Length": str(len(body) if announced is None else announced)} | (headers or {})
        if announced is not None:
            all_headers["Content-Length"] = str(announced)
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Said')}"]
        lines += [f"{name}: {value}" for name, value in all_headers.items() if (name, value) != ("Content-Length", "-1")]
        self.raw("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if self.method == "HEAD" else body[:sent]))
        if announced is not None or sent is not None:
            self.end()

    def hand_back(self, given: Given) -> None:
        length = {"Content-Length": given.headers["Content-Length"]} if self.method == "HEAD" and "Content-Length" in given.headers else {}
        self.say(given.status, {**{name: value for name, value in given.headers.items() if name != "Content-Length"}, **length}, given.body)

    def raw(self, content: bytes) -> None:
        self._handler.wfile.write(content)

    def end(self) -> None:
        """Close the connection in good order."""
        self._handler.close_connection = True

    def reset(self) -> None:
        """Close it the hard way, once the client has what was sent."""
        self.end()
        if not self._client_left_within(_LOOK_S):
            connection = self._handler.connection
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.socket(fileno=connection.detach()).close()  # not its own `close`: the handler's files hold it open, too

    def hang(self) -> None:
        """Say nothing more for as long as the client waits."""
        while not self._client_left_within(_LOOK_S):
            pass
        self.end()

    def pause(self, seconds: float) -> bool:
        """Wait; False once the client has left."""
        return not self._client_left_within(seconds)

    def _client_left_within(self, seconds: float) -> bool:
        if self._proxy.stopping:
            return True
        readable, _, _ = select.select([self._handler.connection], [], [], seconds)
        try:
            return bool(readable) and not self._handler.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


Fault = Callable[[Exchange], None]


@dataclass(slots=True)
class _Rule:
    method: str
    path: re.Pattern[str]
    faults: tuple[Fault, ...]
    first: int
    always: bool
    seen: int = 0

    def fault(self, exchange: Exchange) -> Fault | None:
        """The fault for this request if it is one of those meant; counts it."""
        if self.method not in (exchange.method, "*") or not self.path.search(exchange.path):
            return None
        self.seen += 1
        nth = self.seen - self.first
        if nth < 0 or (nth >= len(self.faults) and not self.always):
            return None
        return self.faults[min(nth, len(self.faults) - 1)]


@dataclass(slots=True)
class _Login:
    """With this the proxy wants a bearer token, and gives tokens at /token."""

    tokens: set[str] = field(default_factory=set)
    given: int = 0


class FaultyProxy:
    """A context manager. `upstream` is the registry's "host:port"; `wants_token`: requests need a token, which anybody gets."""

    def __init__(self, upstream: str, *, wants_token: bool = False) -> None:
        self.upstream = upstream
        self.stopping = False
        self.asked: list[str] = []  # "METHOD path" as they came
        self.fault_count = 0  # requests that went wrong so far
        self._rules: list[_Rule] = []
        self._login = _Login() if wants_token else None
        self._guard = threading.Lock()
        self._faulted = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def reference(self, name: str) -> str:
        return f"{self.address}/{name}"

    def fail(self, method: str, path: str, *faults: Fault, first: int = 1, always: bool = False) -> None:
        """From the `first` request on whose path matches the regular expression: the faults one after the other; `always`: the last one again and again."""
        with self._guard:
            self._rules.append(_Rule(method, re.compile(path), faults, first, always))

    def all_at_once(self, count: int) -> tuple[Fault, ...]:
        """Faults that are none: so many requests are each answered when all of them are here."""
        barrier = threading.Barrier(count)

        def answer(exchange: Exchange) -> None:
            barrier.wait(_TOGETHER_S)
            exchange.hand_back(exchange.ask())

        return (answer,) * count

    def heal(self) -> None:
        """No faults from now on."""
        with self._guard:
            self._rules.clear()

    def heal_only(self, path: str) -> None:
        """No more of the faults that were asked for with just this expression."""
        with self._guard:
            self._rules = [rule for rule in self._rules if rule.path.pattern != path]

    def await_fault(self, seconds: float) -> None:
        """Return once a request has met a fault; fails after so many seconds."""
        with self._faulted:
            assert self._faulted.wait_for(lambda: self.fault_count > 0, seconds), f"no fault was met: {self.asked}"

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopping = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _fault(self, exchange: Exchange) -> Fault | None:
        with self._guard:
            self.asked.append(f"{exchange.method} {exchange.path}")
            return next((found for rule in self._rules if (found := rule.fault(exchange)) is not None), None)

    def _answer(self, exchange: Exchange) -> None:
        if fault := self._fault(exchange):
            with self._faulted:
                self.fault_count += 1
                self._faulted.notify_all()
            fault(exchange)
        elif exchange.path.startswith("/token"):
            exchange.body()
            self._give_token(exchange)
        elif self._wants_token(exchange):
            exchange.body()
            self.challenge(exchange)
        else:
            exchange.hand_back(exchange.ask())

    def _wants_token(self, exchange: Exchange) -> bool:
        """Not at `localhost`, which stands for another server: a blob storage, say."""
        if self._login is None or exchange.header("Host").startswith("localhost"):
            return False
        return exchange.header("Authorization").removeprefix("Bearer ") not in self._login.tokens

    def challenge(self, exchange: Exchange) -> None:
        exchange.say(401, {"WWW-Authenticate": f'Bearer realm="http://{self.address}/token",service="test"'})

    def _give_token(self, exchange: Exchange) -> None:
        assert self._login is not None
        with self._guard:
            self._login.given += 1
            token = f"hidden-{self._login.given}-for-tests"
            self._login.tokens.add(token)
        exchange.say(200, {"Content-Type": "application/json"}, f'{{"token": "{token}", "expires_in": 300}}'.encode())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 0
            disable_nagle_algorithm = True

            def answer(self) -> None:
                proxy._answer(Exchange(self, proxy))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, ValueError, OSError):
                    self.close_connection = True  # the client left, as it may

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
