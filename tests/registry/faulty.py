"""A small HTTP server that answers as it is told: cut, wrong, late, or elsewhere. On loopback, in a thread of the test."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.loopback import LoopbackServer, QuietHandler


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    peer: tuple[str, int] = ("", 0)  # the client's end of the connection

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """One answer. `cut` bytes of the body are sent, then the connection is reset; `length` is announced instead of the true one."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: int | None = None
    wait_s: float = 0
    before_body: bool = False  # answer without reading what is sent
    silent: bool = False  # no answer at all: the connection is closed once the request is here


Answer = Say | Callable[[Asked], Say]


class FaultyServer(LoopbackServer):
    """Answers of one "METHOD path" come in the order they were given, the last one again and again; a path may leave out its query. Else 404."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self._answers: dict[str, list[Answer]] = {}
        self._guard = threading.Lock()
        super().__init__(self._handler(), tls=tls)

    @property
    def lines(self) -> list[str]:
        return [one.line for one in self.asked]

    def on(self, line: str, *answers: Answer) -> None:
        self._answers[line] = list(answers)

    def next(self, asked: Asked) -> Say:
        with self._guard:
            self.asked.append(asked)
            answers = self._queue(asked)
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer(asked) if callable(answer) else answer

    def _queue(self, asked: Asked) -> list[Answer]:
        return self._answers.get(asked.line) or self._answers.get(asked.line.partition("?")[0]) or [Say(status=404)]

    def peek(self, line: str) -> Answer | None:
        answers = self._answers.get(line) or self._answers.get(line.partition("?")[0])
        return answers[0] if answers else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(QuietHandler):
            wbufsize = 0

            def answer(self) -> None:
                waiting = server.peek(f"{self.command} {self.path}")
                early = isinstance(waiting, Say) and waiting.before_body
                length = int(self.headers.get("Content-Length") or 0)
                body = b"" if early else self.rfile.read(length)
                headers_in = {key.lower(): value for key, value in self.headers.items()}
                say = server.next(Asked(method=self.command, path=self.path, headers=headers_in, body=body, peer=self.client_address))
                time.sleep(say.wait_s)
                if say.silent:
                    self.close_connection = True
                    return
                self.send_response(say.status)
                headers = {"Content-Length": str(len(say.body) if say.length is None else say.length)} | dict(say.headers)
                for key, value in headers.items():
                    if value:
                        self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(say.body if say.cut is None else say.body[: say.cut])
                if say.cut is not None:
                    # Wait until the bytes are read, then reset instead of an orderly end.
                    time.sleep(0.05)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                if say.cut is not None or early or not headers["Content-Length"] or say.length is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        return Handler
