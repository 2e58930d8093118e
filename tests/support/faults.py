"""What a network, a proxy or a registry can do wrong, for `FaultyProxy`."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from urllib.parse import quote

from tests.support.faulty_proxy import Exchange, Fault, Given

_PAGE = b"<html><head><title>Please log in</title></head><body>to this network</body></html>"
_TRICKLE_S = 0.05
_ZEROS = "sha256:" + "0" * 64


def status(code: int, text: str = "", *, body: bytes = b"", **headers: str) -> Fault:
    """An answer of this status, in the words of a registry: `text` is "CODE: message"."""
    name, _, message = text.partition(": ")
    said = f'{{"errors": [{{"code": "{name}", "message": "{message}"}}]}}'.encode() if text else body

    def answer(exchange: Exchange) -> None:
        exchange.body()
        exchange.say(code, {name.replace("_", "-"): value for name, value in headers.items()}, said)

    return answer


def reset(exchange: Exchange) -> None:
    """The request is read, and the connection reset."""
    exchange.body()
    exchange.reset()


def close(exchange: Exchange) -> None:
    """The request is read, and the connection closed without a word."""
    exchange.body()
    exchange.end()


def expired_token(exchange: Exchange) -> None:
    """A login that was good until now."""
    exchange.body()
    exchange.proxy.challenge(exchange)


def lost(exchange: Exchange) -> None:
    """The registry does what was asked, and its answer gets lost."""
    exchange.ask()
    exchange.reset()


def silence(exchange: Exchange) -> None:
    exchange.body()
    exchange.hang()


def deaf(exchange: Exchange) -> None:
    """Not even the request's body is read."""
    exchange.hang()


def slow_headers(exchange: Exchange) -> None:
    """The status line comes letter by letter, and never ends."""
    exchange.body()
    exchange.raw(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _trickle(exchange, b"x" * 100_000)


def trickle(exchange: Exchange) -> None:
    """The right answer, its body byte by byte."""
    given = exchange.ask()
    exchange.say(given.status, _without_length(given), given.body, announced=len(given.body), sent=0)
    _trickle(exchange, given.body)


def stall(exchange: Exchange) -> None:
    """Half of the body, then nothing."""
    _half(exchange)
    exchange.hang()


def cut(exchange: Exchange) -> None:
    """Half of the body, then a reset."""
    _half(exchange)
    exchange.reset()


def short(exchange: Exchange) -> None:
    """Half of the body, then an end in good order."""
    _half(exchange)


def short_chunks(exchange: Exchange) -> None:
    """Half of the body in HTTP chunks, and no last chunk."""
    given = exchange.ask()
    half = given.body[: len(given.body) // 2]
    exchange.say(given.status, {**_without_length(given), "Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n" % (len(half), half), announced=-1)


def short_without_length(exchange: Exchange) -> None:
    """Half of the body, which only its end delimits."""
    given = exchange.ask()
    exchange.say(given.status, _without_length(given), given.body[: len(given.body) // 2], announced=-1)


def spoiled(change: Callable[[Given], None]) -> Fault:
    """The registry's answer with `change` done to it."""

    def answer(exchange: Exchange) -> None:
        given = exchange.ask()
        change(given)
        exchange.hand_back(given)

    return answer


def _flip(given: Given) -> None:
    middle = len(given.body) // 2
    given.body = given.body[:middle] + bytes([given.body[middle] ^ 1]) + given.body[middle + 1 :] if given.body else b""


def _lie(given: Given) -> None:
    given.headers["Docker-Content-Digest"] = _ZEROS


def _mistype(given: Given) -> None:
    given.headers["Content-Type"] = "text/plain; charset=utf-8"


def _misplace(given: Given) -> None:
    if given.status == 206:
        given.headers["Content-Range"] = f"bytes 0-{len(given.body) - 1}/{len(given.body)}"


def _pack(given: Given) -> None:
    given.body = gzip.compress(given.body, mtime=0)
    given.headers["Content-Encoding"] = "gzip"


wrong_bytes = spoiled(_flip)
lying_digest = spoiled(_lie)
wrong_type = spoiled(_mistype)
wrong_range = spoiled(_misplace)
packed = spoiled(_pack)


def too_many(exchange: Exchange) -> None:
    """More bytes than belong there, and no word about how many."""
    given = exchange.ask()
    exchange.say(given.status, _without_length(given), given.body + b"!", announced=-1)


def no_range(exchange: Exchange) -> None:
    """All of the blob, whatever part was asked for."""
    exchange.hand_back(exchange.ask(Range=""))


def garbage(exchange: Exchange) -> None:
    exchange.body()
    exchange.raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    exchange.end()


def garbage_headers(exchange: Exchange) -> None:
    """A status line, and header lines that are none; two lengths that differ."""
    exchange.body()
    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 12\r\n\xff\xfe: \x00\r\n\r\n0123456789")
    exchange.end()


def endless_headers(exchange: Exchange) -> None:
    exchange.body()
    exchange.raw(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(5000)))
    exchange.end()


html_page = status(200, body=_PAGE, Content_Type="text/html")
empty = status(200)


def redirect_loop(code: int) -> Fault:
    def answer(exchange: Exchange) -> None:
        exchange.body()
        exchange.say(code, {"Location": exchange.path})

    return answer


def redirect(code: int) -> Fault:
    """To the same place by another address of it, `localhost`."""

    def answer(exchange: Exchange) -> None:
        if exchange.header("Host").startswith("localhost"):
            exchange.hand_back(exchange.ask())
            return
        exchange.body()
        exchange.say(code, {"Location": f"http://localhost:{exchange.proxy.address.partition(':')[2]}{exchange.path}"})

    return answer


def expired_storage(code: int) -> Fault:
    """To a storage that refuses: what an address signed for a few minutes becomes."""
    said = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"

    def answer(exchange: Exchange) -> None:
        exchange.body()
        path = f"/storage/{quote(exchange.path, safe='')}?Signature=secret-signature"
        exchange.proxy.fail("*", rf"^/storage/{quote(exchange.path, safe='').replace('.', '[.]')}", status(code, body=said), always=True)
        exchange.say(307, {"Location": f"http://localhost:{exchange.proxy.address.partition(':')[2]}{path}"})

    return answer


def redirect_to_nowhere(exchange: Exchange) -> None:
    exchange.body()
    exchange.say(307, {"Location": "http://[::1:bad/x?secret"})


def _half(exchange: Exchange) -> None:
    given = exchange.ask()
    exchange.say(given.status, _without_length(given), given.body, announced=max(len(given.body), 2), sent=len(given.body) // 2)


def _without_length(given: Given) -> dict[str, str]:
    return {name: value for name, value in given.headers.items() if name.lower() != "content-length"}


def _trickle(exchange: Exchange, content: bytes) -> None:
    exchange.end()
    for byte in content:
        exchange.raw(bytes([byte]))
        if not exchange.pause(_TRICKLE_S):
            return
