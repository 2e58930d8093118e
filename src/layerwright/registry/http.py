"""HTTP: a pool of kept-alive connections, TLS, proxies, and one exchange at a time. Importing this loads urllib3, so it is done late."""

from __future__ import annotations

import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from http.client import BadStatusLine, HTTPException, IncompleteRead
from typing import TypeVar

import urllib3
from urllib3 import exceptions as faults

from layerwright.errors import LayerwrightError
from layerwright.registry.errors import NoTls, RegistryError, Unreachable
from layerwright.registry.options import RegistryOptions
from layerwright.registry.patience import Patience, Waits
from layerwright.registry.pools import Pools
from layerwright.registry.proxies import proxy_failure, proxy_for
from layerwright.registry.sockets import made_patient

_DRAINED_BYTES = 64 << 10  # what is left of an answer is read up to this, and for so long, to keep its connection
_DRAINED_S = 0.5
_BROKEN = (faults.HTTPError, HTTPException, OSError, ValueError)  # ValueError: what urllib3 makes of some garbage


class Answer:
    """One response: status and headers are here, the body is still to be read. Close it, or read it to its end."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, url: str, where: str, options: RegistryOptions, waits: Waits, patience: Patience, doing: str
    ) -> None:
        self.status = response.status
        self.reason = response.reason or ""
        self.url = url
        self.mirror = ""  # the one that gave it, "" for the registry itself
        self._response = response
        self._where = where
        self._options = options
        self._waits = waits
        self._patience = patience
        self._doing = doing
        patience.begin("body")

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    def headers(self, name: str) -> list[str]:
        return self._response.headers.getlist(name)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end. Raises Unreachable when the connection breaks or stands still, Cancelled."""
        return self._reading(lambda: self._response.read(size, decode_content=False))

    def read_some(self, size: int) -> bytes:
        """What is here of the next `size` bytes, b"" only at the end: nothing that came before a cut is lost. Raises Unreachable, Cancelled."""
        return self._reading(lambda: self._response.read1(size, decode_content=False))

    def _reading(self, read: Callable[[], bytes]) -> bytes:
        try:
            with self._waits.going_by(self._patience):
                return read()
        except _BROKEN as error:
            self._response.close()
            raise _told(failure(error, self.url, self._where, self._options), self._doing) from error
        except LayerwrightError as error:
            self._response.close()
            raise _told(error, self._doing) from None

    def body(self, limit_bytes: int) -> bytes:
        """All of the body, or its first `limit_bytes` + 1 bytes; then the answer is done with. Raises Unreachable, Cancelled."""
        try:
            content = self.read(limit_bytes + 1)
            if len(content) <= limit_bytes and self._response.length_remaining:
                cut = faults.IncompleteRead(len(content), self._response.length_remaining)
                raise _told(failure(cut, self.url, self._where, self._options), self._doing)
            return content
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back for the next request if that costs little, else close it."""
        left = self._response.length_remaining
        self._patience.hurry(_DRAINED_S)
        try:
            if left is None or left <= _DRAINED_BYTES:
                self._reading(lambda: self._response.read(_DRAINED_BYTES, decode_content=False))
        except LayerwrightError:
            pass  # nobody waits for it
        finally:
            self._response.close()


def _public(url: str) -> str:
    """An address without what may be secret in it: who logs in, and the query, which signs addresses of blob storages."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Http:
    """Thread-safe. Follows no redirect and tries nothing twice: who asks decides."""

    def __init__(self, options: RegistryOptions) -> None:
        self.requests = 0
        self._options = options
        self._guard = threading.Lock()
        self._waits = Waits()
        self._pools = Pools(options, lambda pool: made_patient(pool, self._waits))

    def exchange(
        self,
        method: str,
        url: str,
        *,
        where: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        is_upload: bool = False,
        doing: str = "",
        verify: bool = True,
        options: RegistryOptions | None = None,
    ) -> Answer:
        """Send one request and return when the headers of the answer are here. `body`, if it is not bytes, needs a Content-Length among the headers.
        `options`: those of the caller, who may be stopped at another time than others.

        Raises Unreachable, Cancelled, and RegistryError for a certificate that cannot be trusted or an address that is none.
        """
        options = options or self._options
        answer_timeout_s = options.commit_timeout_s if is_upload else options.read_timeout_s
        patience = Patience(url, where, options, answer_timeout_s=answer_timeout_s)
        sent = {"User-Agent": self._options.user_agent, "Accept-Encoding": "identity", **headers}
        with self._guard:
            self.requests += 1
        try:
            pool = self._pools.pool(url, verify=verify)
            with self._waits.going_by(patience):
                response = pool.request(
                    method, url, body=body, headers=sent, timeout=None, retries=False, redirect=False, preload_content=False, decode_content=False
                )
        except _BROKEN as error:
            raise _told(failure(error, url, where, options, sending=body is not None), doing) from error
        except Unreachable as error:
            raise _told(error, doing) from None
        if self._options.on_request is not None:
            self._options.on_request(method, _public(url), response.status)
        return Answer(response, url, where, options, self._waits, patience, doing)

    def has_certificates(self, host: str) -> bool:
        """Whether a directory with certificates is there for "host" or "host:port"."""
        return self._pools.has_certificates(host)

    def close(self) -> None:
        self._pools.close()


E = TypeVar("E", bound=LayerwrightError)


def _told(error: E, doing: str) -> E:
    """`error` with what was being done: "read the manifest"."""
    if doing and isinstance(error, RegistryError):
        error.what = f"cannot {doing}: {error.what}"
    return error


def failure(error: Exception, url: str, where: str, options: RegistryOptions, *, sending: bool = False) -> RegistryError:
    """What a broken exchange means to the user. Names the host only: addresses of blob storages carry secrets in their query."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if isinstance(error, faults.ProxyError):
        return proxy_failure(_reason(error), host, proxy_for(url, options.env), where)
    if isinstance(error, faults.NameResolutionError):
        return Unreachable(
            f"no address is known for {host}: {_reason(error)}",
            where=where,
            mend="check the name, and that this machine has a network and a DNS server",
            tries=2,
        )
    if isinstance(error, faults.NewConnectionError):
        return Unreachable(
            f"cannot connect to {host}: {_reason(error)}", where=where, mend="check that the registry runs there, and that this machine may reach it", tries=2
        )
    if isinstance(error, faults.SSLError | ssl.SSLError):
        return _tls_failure(error, host, where)
    if isinstance(error, faults.LocationParseError | faults.LocationValueError | faults.URLSchemeUnknown):
        return RegistryError(f"the registry sent us to an address that is none, at {host!r}", where=where, mend="ask who runs the registry")
    mend = "build again; if it stays so, ask who runs the registry"
    return Unreachable(f"the connection to {host} broke{' while sending' if sending else ''}: {_reason(error)}", where=where, mend=mend, tries=options.attempts)


def _tls_failure(error: Exception, host: str, where: str) -> RegistryError:
    reason = _reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        mend = f"put its authority's certificate into /etc/docker/certs.d/{host}/ca.crt or among the system's (ca-certificates); SSL_CERT_FILE names another bundle"
        return RegistryError(f"the certificate of {host} cannot be trusted: {reason}", where=where, mend=mend)
    if "WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error):
        return NoTls(f"{host} does not speak TLS", where=where, mend="if it is a registry without TLS, speak plain HTTP to it: --insecure-registry")
    if _wants_certificate(str(error)):
        mend = f"put it into /etc/docker/certs.d/{host}/ as client.cert, and its key as client.key"
        return RegistryError(f"{host} wants a client certificate that it trusts: {reason}", where=where, mend=mend)
    mend = "run it again; if it stays so, ask who runs the registry"
    if "HANDSHAKE_FAILURE" in str(error):  # what TLS 1.2 says to a client without a certificate, among others
        mend = f"if it wants a client certificate, put one into /etc/docker/certs.d/{host}/ as client.cert, and its key as client.key"
    return Unreachable(f"TLS with {host} failed: {reason}", where=where, mend=mend, tries=2)


def _wants_certificate(said: str) -> bool:
    """Whether the other side ended TLS for want of a certificate: TLS 1.3 says so, TLS 1.2 calls it a bad one."""
    return any(alert in said for alert in ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE_UNKNOWN"))


def _reason(error: BaseException) -> str:
    """The innermost thing the system or the TLS library said."""
    said = type(error).__name__
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message
        if isinstance(seen, OSError) and (seen.strerror or seen.args):
            said = str(seen.strerror or seen.args[0])
        elif isinstance(seen, faults.IncompleteRead | IncompleteRead):
            return "it ended too early"
        elif isinstance(seen, BadStatusLine) and not isinstance(seen, OSError):
            return "the answer is not HTTP"
        elif isinstance(seen, faults.InvalidHeader | HTTPException):
            said = "the answer is not right HTTP"
        # Not __context__: what was being handled when we were called has nothing to do with it.
        seen = next((one for one in (*seen.args[::-1], getattr(seen, "original_error", None), seen.__cause__) if isinstance(one, BaseException)), None)
    return said
