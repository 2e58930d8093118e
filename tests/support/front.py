"""A server in front of the tests' registry that is slow, or fails as it is told. On loopback, in threads of the test."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.registry_server import RegistryServer

_PIECE = 16384


class Front(LoopbackServer):
    """Hands every request on, and the answer back. The path of a request is asked for `fault` with how often it came, from 1:

    "" answers as the registry does, "503" refuses, "cut" ends the connection in the middle of the body, "stale" hands on no login, as if it had run out,
    "damage" changes a byte. `bytes_per_s`, if it is not 0, is how fast bytes go either way.
    """

    def __init__(self, registry: RegistryServer, *, bytes_per_s: int = 0, fault: Callable[[str, int], str] = lambda path, count: "") -> None:
        self._upstream = registry.address
        self._bytes_per_s = bytes_per_s
        self._fault = fault
        self._guard = threading.Lock()
        self.asked: Counter[str] = Counter()
        super().__init__(self._handler())

    def reference(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _count(self, path: str) -> int:
        with self._guard:
            self.asked[path] += 1
            return self.asked[path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Handler(QuietHandler):
            def answer(self) -> None:
                fault = front._fault(self.path, front._count(self.path))
                if fault == "503":
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(front._upstream)
                headers = {key: value for key, value in self.headers.items() if fault != "stale" or key.lower() != "authorization"}
                length = int(self.headers.get("Content-Length") or 0)
                body = (self._slowly(length) if front._bytes_per_s and length else self.rfile.read(length)) if "Content-Length" in self.headers else None
                upstream.request(self.command, self.path, body=body, headers=headers)
                self._hand_back(upstream.getresponse(), cut=fault == "cut", damage=fault == "damage")
                upstream.close()

            def _slowly(self, length: int) -> Iterator[bytes]:
                """Handed on as it comes: the registry looks at the login when the request begins."""
                while length and (piece := self.rfile.read(min(_PIECE, length))):
                    length -= len(piece)
                    time.sleep(len(piece) / front._bytes_per_s)
                    yield piece

            def _hand_back(self, given: http.client.HTTPResponse, *, cut: bool, damage: bool) -> None:
                self.send_response(given.status)
                for key, value in given.getheaders():
                    self.send_header(key, value)
                self.end_headers()
                left = int(given.headers.get("Content-Length") or 0) // 2 if cut else -1
                while piece := given.read(_PIECE):
                    if damage:
                        piece = bytes([piece[0] ^ 1]) + piece[1:]
                    if 0 <= left < len(piece):
                        self.wfile.write(piece[:left])
                        self.close_connection = True
                        return
                    left -= len(piece) if cut else 0
                    self.wfile.write(piece)
                    if front._bytes_per_s:
                        time.sleep(len(piece) / front._bytes_per_s)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer

        return Handler
