"""A server in front of the tests' registry that is slow, or fails as it is told. On loopback, in threads of the test."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from tests.support.registry_server import RegistryServer

_PIECE = 16384


class Front:
    """Hands every request on, and the answer back. The path of a request is asked for `fault` with how often it came, from 1:

    "" answers as the registry does, "503" refuses, "cut" ends the connection in the middle of the body, "stale" hands on no login, as if it had run out,
    "damage" changes a byte.
    """

    def __init__(self, registry: RegistryServer, *, bytes_per_s: int = 0, fault: Callable[[str, int], str] = lambda path, count: "") -> None:
        self._upstream = registry.address
        self._bytes_per_s = bytes_per_s
        self._fault = fault
        self._guard = threading.Lock()
        self.asked: Counter[str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def reference(self, name: str) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}/{name}"

    def __enter__(self) -> Front:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _count(self, path: str) -> int:
        with self._guard:
            self.asked[path] += 1
            return self.asked[path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                fault = front._fault(self.path, front._count(self.path))
                if fault == "503":
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(front._upstream)
                headers = {key: value for key, value in self.headers.items() if fault != "stale" or key.lower() != "authorization"}
                body = self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else None
                upstream.request(self.command, self.path, body=body, headers=headers)
                self._hand_back(upstream.getresponse(), cut=fault == "cut", damage=fault == "damage")
                upstream.close()

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

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True  # the client was killed, as some tests want

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
