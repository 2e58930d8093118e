"""Messages between the main process and a request's own process: pickled values over a unix socket of whole packets.

Both ends are ours and of one version, so pickle is safe. A value longer than one packet is cut; a packet is never cut.
"""

from __future__ import annotations

import pickle
import socket
from typing import Any, Literal

Kind = Literal["call", "event", "result", "error", "died"]

MOST_FDS = 64  # that go along with one call, its own socket included
_PACKET_BYTES = 64 * 1024
_TAGS: dict[Kind, bytes] = {"call": b"C", "event": b"E", "result": b"R", "error": b"X", "died": b"D"}
_KINDS: dict[bytes, Kind] = {tag: kind for kind, tag in _TAGS.items()}


def socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def send(to: socket.socket, kind: Kind, value: object) -> None:
    """Send one value, waiting while the other end is slow to read. Raises BrokenPipeError if it is gone; nothing is sent if `value` cannot be pickled."""
    content = memoryview(pickled(value))
    tag = _TAGS[kind]
    while len(content) > _PACKET_BYTES:
        to.send(tag + b"+" + content[:_PACKET_BYTES])
        content = content[_PACKET_BYTES:]
    to.send(tag + b"." + content)


class Inbox:
    """Puts the packets that arrive on one socket together again."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._tag = b""
        self._parts: list[bytes] = []

    def receive(self) -> tuple[Kind, Any] | Literal["more"] | None:
        """Read one packet: a whole message, "more" if the message goes on in the next packet, None at the end."""
        try:
            packet = self._source.recv(_PACKET_BYTES + 2)
        except ConnectionResetError:  # the other end closed with a packet of ours unread; what it sent before comes after this
            packet = self._source.recv(_PACKET_BYTES + 2)
        if not packet:
            return None
        tag, last = packet[:1], packet[1:2] == b"."
        if tag != self._tag:  # a sender that died in the middle of a message: what it began is worth nothing
            self._tag, self._parts = tag, []
        self._parts.append(packet[2:])
        if not last:
            return "more"
        content, self._parts = b"".join(self._parts), []
        return _KINDS[tag], pickle.loads(content)

    def message(self) -> tuple[Kind, Any] | None:
        """Wait for one whole message; None at the end."""
        while (received := self.receive()) == "more":
            pass
        return received
