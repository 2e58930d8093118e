"""A proxy on loopback that knows the hosts it is told of, wants a login if told so, and counts."""

from __future__ import annotations

import http.client
import select
import socket
import threading
from base64 import b64encode
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.support.loopback import LoopbackServer, QuietHandler

_PIECE = 65536


class Proxy(LoopbackServer):
    """Forwards plain HTTP and tunnels (CONNECT). `hosts`: "host:port" as clients name it -> the address on loopback; `login`: "user:password"."""

    def __init__(self, hosts: Mapping[str, str], *, login: str = "") -> None:
        self._hosts = dict(hosts)
        self._wanted = f"Basic {b64encode(login.encode()).decode()}" if login else ""
        self.asked: list[str] = []  # "CONNECT host:port", "GET http://host:port/path"
        self._guard = threading.Lock()
        super().__init__(self._handler())

    def _note(self, line: str) -> None:
        with self._guard:
            self.asked.append(line)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(QuietHandler):
            def _place(self, host: str) -> str:
                """Where to go; "" if the request is answered already."""
                proxy._note(f"{self.command} {self.path}")
                if proxy._wanted and self.headers.get("Proxy-Authorization") != proxy._wanted:
                    self._refuse(407)
                elif host not in proxy._hosts:
                    self._refuse(502)
                else:
                    return proxy._hosts[host]
                return ""

            def _refuse(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_CONNECT(self) -> None:
                if place := self._place(self.path):
                    host, _, port = place.rpartition(":")
                    with socket.create_connection((host, int(port))) as upstream:
                        self.send_response(200)
                        self.end_headers()
                        _tunnel(self.connection, upstream)
                self.close_connection = True

            def forward(self) -> None:
                parts = urlsplit(self.path)
                if place := self._place(parts.netloc if parts.port else f"{parts.netloc}:80"):
                    upstream = http.client.HTTPConnection(place)
                    headers = {key: value for key, value in self.headers.items() if not key.lower().startswith("proxy-")}
                    upstream.request(self.command, parts._replace(scheme="", netloc="").geturl(), headers=headers)
                    given = upstream.getresponse()
                    self.send_response(given.status)
                    for key, value in given.getheaders():
                        self.send_header(key, value)
                    self.end_headers()
                    self.wfile.write(given.read())
                    upstream.close()

            do_GET = do_HEAD = forward

        return Handler


def _tunnel(one: socket.socket, other: socket.socket) -> None:
    """Hand bytes to and fro until one side ends."""
    while True:
        for ready in select.select([one, other], [], [])[0]:
            piece = ready.recv(_PIECE)
            if not piece:
                return
            (other if ready is one else one).sendall(piece)
