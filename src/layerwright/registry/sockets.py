"""Sockets that wait in slices, so that a blocked transfer notices at once that it is cancelled or that its time is over; and urllib3's connections over them.

Names are looked up in a thread of their own, because nothing else can end getaddrinfo(3).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import urllib3
from urllib3 import exceptions as faults
from urllib3.connection import HTTPConnection, HTTPSConnection

from layerwright.registry.patience import SLICE_S, Waits

T = TypeVar("T")
Address = tuple[int, int, int, str, Any]  # as getaddrinfo gives them
_LEAST_S = 0.5  # that one address of several is tried, at least
_WITHOUT_SLICES_S = 60.0


def _patiently(waits: Waits, act: Callable[[], T]) -> T:
    """What `act` returns, called again after each slice in which nothing moved, as long as there is patience."""
    patience = waits.current
    started = time.monotonic()
    while True:
        try:
            done = act()
        except TimeoutError as slice_over:
            if slice_over.errno is not None:
                raise  # the kernel has given up
            if patience is not None:
                patience.check(time.monotonic() - started)
            continue
        if patience is not None:
            patience.moved(done if isinstance(done, int) else 0, time.monotonic() - started)
        return done


class PatientSocket(socket.socket):
    """A TCP connection. Its timeout is always one slice, whatever it is told; how long to wait is the patience's to say."""

    waits: Waits

    def settimeout(self, value: float | None) -> None:
        super().settimeout(SLICE_S)

    def gettimeout(self) -> float:
        """What a TLS socket over it takes for its own: one that is not of ours does not know slices."""
        return _WITHOUT_SLICES_S

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        if (patience := self.waits.current) is not None:
            patience.begin_answer()
        return _patiently(self.waits, lambda: super(PatientSocket, self).recv_into(buffer, nbytes, flags))

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if (patience := self.waits.current) is not None:
            patience.begin_answer()
        return _patiently(self.waits, lambda: super(PatientSocket, self).recv(bufsize, flags))

    def send(self, data: Any, flags: int = 0) -> int:
        if (patience := self.waits.current) is not None:
            patience.begin("send")
        return _patiently(self.waits, lambda: super(PatientSocket, self).send(data, flags))

    def sendall(self, data: Any, flags: int = 0) -> None:
        with memoryview(data) as view, view.cast("B") as left:
            sent = 0
            while sent < len(left):
                sent += self.send(left[sent:], flags)


class PatientTlsSocket(ssl.SSLSocket):
    """The same with TLS. `sendall` of the standard library goes through `send`."""

    waits: ClassVar[Waits]

    def settimeout(self, value: float | None) -> None:
        super().settimeout(SLICE_S)

    def do_handshake(self, block: bool = False) -> None:
        _patiently(self.waits, lambda: super(PatientTlsSocket, self).do_handshake(block))

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if (patience := self.waits.current) is not None:
            patience.begin_answer()
        return _patiently(self.waits, lambda: super(PatientTlsSocket, self).recv_into(buffer, nbytes, flags))

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        if (patience := self.waits.current) is not None:
            patience.begin_answer()
        return _patiently(self.waits, lambda: super(PatientTlsSocket, self).recv(buflen, flags))

    def send(self, data: Any, flags: int = 0) -> int:
        if (patience := self.waits.current) is not None:
            patience.begin("send")
        try:
            return _patiently(self.waits, lambda: super(PatientTlsSocket, self).send(data, flags))
        except ssl.SSLEOFError as error:  # without TLS this is EPIPE: urllib3 then reads why the other side has closed
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error


def addresses_of(host: str, port: int, waits: Waits) -> list[Address]:
    """What getaddrinfo says, as long as there is patience for it. Raises socket.gaierror, Unreachable, Cancelled."""
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except socket.gaierror:
        pass  # a name, not an address
    answered = threading.Event()
    found: list[Address] = []
    failed: list[OSError | UnicodeError] = []

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failed.append(error)
        finally:
            answered.set()

    threading.Thread(target=ask, name="getaddrinfo", daemon=True).start()
    started = time.monotonic()
    while not answered.wait(SLICE_S):
        if (patience := waits.current) is not None:
            patience.check(time.monotonic() - started)
    if failed:
        raise failed[0]
    return found


def connected(host: str, port: int, waits: Waits, options: list[tuple[int, int, int | bytes]]) -> PatientSocket:
    """A connection to the first address that takes one; each gets its share of the time that is left. Raises OSError, Unreachable, Cancelled."""
    if (patience := waits.current) is not None:
        patience.begin("connect")
    addresses = addresses_of(host.strip("[]"), port, waits)
    refused: OSError = OSError(errno.EADDRNOTAVAIL, "no address")
    for tried, address in enumerate(addresses):
        others = len(addresses) - tried - 1
        share_s = max(_LEAST_S, patience.left_s / (others + 1)) if patience is not None and others else float("inf")
        try:
            return _connected_to(address, waits, options, share_s)
        except OSError as error:
            refused = error
    raise refused


def _connected_to(address: Address, waits: Waits, options: list[tuple[int, int, int | bytes]], share_s: float) -> PatientSocket:
    family, kind, protocol, _, place = address
    made = PatientSocket(family, kind, protocol)
    made.waits = waits
    try:
        for option in options:
            made.setsockopt(*option)
        made.setblocking(False)
        code = made.connect_ex(place)
        if code in (errno.EINPROGRESS, errno.EINTR):
            _await_connection(made, waits, share_s)
            code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        made.settimeout(None)
    except BaseException:
        made.close()
        raise
    return made


def _await_connection(made: socket.socket, waits: Waits, share_s: float) -> None:
    ready = select.poll()
    ready.register(made, select.POLLOUT)
    started = time.monotonic()
    while not ready.poll(SLICE_S * 1000):
        waited_s = time.monotonic() - started
        if (patience := waits.current) is not None:
            patience.check(waited_s)
        if waited_s > share_s:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


class _PatientConnection(HTTPConnection):
    waits: ClassVar[Waits]

    def _new_conn(self) -> socket.socket:
        return _new_socket(self, self.waits)


class _PatientTlsConnection(HTTPSConnection):
    waits: ClassVar[Waits]
    tls_socket: ClassVar[type[ssl.SSLSocket]]

    def _new_conn(self) -> socket.socket:
        return _new_socket(self, self.waits)

    def connect(self) -> None:
        to_proxy = self.proxy_config.ssl_context if self.proxy_config is not None else None
        for context in (self.ssl_context, to_proxy):
            if context is not None:
                context.sslsocket_class = self.tls_socket
        super().connect()


class _QuietTlsPool(urllib3.HTTPSConnectionPool):
    def _validate_conn(self, conn: Any) -> None:
        """Without urllib3's warning at each request to a host whose certificate is not checked: it was asked for, and switching
        warnings off would do so for the whole process, which is not ours."""
        if conn.is_closed:
            conn.connect()


def _new_socket(connection: HTTPConnection, waits: Waits) -> socket.socket:
    """In place of urllib3's own way to connect; fails with the same errors."""
    options: list[Any] = list(connection.socket_options or [])
    assert connection.port is not None
    try:
        return connected(connection._dns_host, connection.port, waits, options)
    except UnicodeError:
        raise faults.LocationParseError(f"'{connection.host}', label empty or too long") from None
    except socket.gaierror as error:
        raise faults.NameResolutionError(connection.host, connection, error) from error
    except OSError as error:
        raise faults.NewConnectionError(connection, f"Failed to establish a new connection: {error}") from error


def made_patient(manager: urllib3.PoolManager, waits: Waits) -> urllib3.PoolManager:
    """Let every connection of `manager` go by `waits`."""
    tls_socket = type("TlsSocket", (PatientTlsSocket,), {"waits": waits})
    plain = type("Connection", (_PatientConnection,), {"waits": waits})
    tls = type("TlsConnection", (_PatientTlsConnection,), {"waits": waits, "tls_socket": tls_socket})
    manager.pool_classes_by_scheme = {
        "http": type("Pool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("TlsPool", (_QuietTlsPool,), {"ConnectionCls": tls}),
    }
    return manager
