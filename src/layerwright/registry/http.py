"""HTTP: a pool of kept-alive connections, TLS, proxies, and one exchange at a time. Importing this loads urllib3, so it is done late."""

from __future__ import annotations

import ssl
import threading
import urllib.parse
from collections.abc import Iterable, Mapping

import urllib3
from urllib3 import exceptions as faults

from layerwright.registry.endpoint import is_loopback
from layerwright.registry.errors import NoTls, RegistryError, Unreachable
from layerwright.registry.options import RegistryOptions

_CONNECTIONS = 16  # kept for each host
_DRAINED_BYTES = 64 << 10  # what is left of an answer is read up to this, to keep its connection


class Answer:
    """One response: status and headers are here, the body is still to be read. Close it, or read it to its end."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str, where: str, options: RegistryOptions) -> None:
        self.status = response.status
        self.reason = response.reason or ""
        self.url = url
        self._response = response
        self._where = where
        self._options = options

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    def headers(self, name: str) -> list[str]:
        return self._response.headers.getlist(name)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end. Raises Unreachable when the connection breaks."""
        try:
            return self._response.read(size, decode_content=False)
        except (faults.HTTPError, OSError) as error:
            self._response.close()
            raise failure(error, self.url, self._where, self._options) from error

    def read_some(self, size: int) -> bytes:
        """What is here of the next `size` bytes, b"" only at the end: nothing that came before a cut is lost. Raises Unreachable."""
        try:
            return self._response.read1(size, decode_content=False)
        except (faults.HTTPError, OSError) as error:
            self._response.close()
            raise failure(error, self.url, self._where, self._options) from error

    def body(self, limit_bytes: int) -> bytes:
        """All of the body, or its first `limit_bytes` + 1 bytes; then the answer is done with."""
        try:
            return self.read(limit_bytes + 1)
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back for the next request if that costs little, else close it."""
        left = self._response.length_remaining
        try:
            if left is None or left <= _DRAINED_BYTES:
                self._response.read(_DRAINED_BYTES, decode_content=False)
        except (faults.HTTPError, OSError):
            pass
        finally:
            self._response.close()


class Http:
    """Thread-safe. Follows no redirect and tries nothing twice: who asks decides."""

    def __init__(self, options: RegistryOptions) -> None:
        self.requests = 0
        self._options = options
        self._guard = threading.Lock()
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}

    def exchange(
        self,
        method: str,
        url: str,
        *,
        where: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        is_upload: bool = False,
    ) -> Answer:
        """Send one request and return when the headers of the answer are here. `body`, if it is not bytes, needs a Content-Length among the headers.

        Raises Unreachable, and RegistryError for a certificate that cannot be trusted or an address that is none.
        """
        sent = {"User-Agent": self._options.user_agent, "Accept-Encoding": "identity", **headers}
        with self._guard:
            self.requests += 1
        try:
            pool = self._pool(url)
            response = pool.request(
                method,
                url,
                body=body,
                headers=sent,
                timeout=self._timeout(is_upload=is_upload),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (faults.HTTPError, OSError) as error:
            raise failure(error, url, where, self._options, sending=body is not None) from error
        return Answer(response, url, where, self._options)

    def _timeout(self, *, is_upload: bool) -> urllib3.Timeout:
        options = self._options
        if is_upload:  # urllib3 lets the time to connect stand for each piece that is sent, too
            return urllib3.Timeout(connect=options.read_timeout_s, read=options.commit_timeout_s)
        return urllib3.Timeout(connect=options.connect_timeout_s, read=options.read_timeout_s)

    def _pool(self, url: str) -> urllib3.PoolManager:
        scheme = url.partition(":")[0]
        proxy = proxy_for(url, self._options.env)
        with self._guard:
            if (pool := self._pools.get((scheme, proxy))) is None:
                pool = self._pools[scheme, proxy] = self._new_pool(scheme, proxy)
            return pool

    def _new_pool(self, scheme: str, proxy: str) -> urllib3.PoolManager:
        context = self._tls() if scheme == "https" else None  # 19 ms: once, and only where it is needed
        if not proxy:
            return urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=context)
        parts = urllib.parse.urlsplit(proxy)
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}" if parts.username else None
        return urllib3.ProxyManager(
            _without_login(proxy), maxsize=_CONNECTIONS, ssl_context=context, proxy_headers=urllib3.make_headers(proxy_basic_auth=login)
        )

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._options.skip_tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            urllib3.disable_warnings(faults.InsecureRequestWarning)  # it was asked for: no warning at each request
        return context

    def close(self) -> None:
        with self._guard:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()


def proxy_for(url: str, env: Mapping[str, str]) -> str:
    """The proxy the environment names for `url`, "" for none; loopback is never asked through one."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    names = (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    proxy = next((env[name] for name in names if env.get(name)), "")
    exceptions = (env.get("no_proxy") or env.get("NO_PROXY") or "").split(",")
    if not proxy or is_loopback(f"[{host}]" if ":" in host else host) or any(_is_exception(host, parts.port, one.strip()) for one in exceptions):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_exception(host: str, port: int | None, entry: str) -> bool:
    """Whether an entry of NO_PROXY means this host: "*", a name and all below it, "name:port", an address, a network."""
    if "/" in entry:
        import ipaddress

        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and ":" not in name:
        return str(port) == wanted and _is_exception(host, port, name)
    name = entry.strip("[]").removeprefix("*.").lstrip(".").lower()
    return entry == "*" or (bool(name) and (host == name or host.endswith(f".{name}")))


def failure(error: Exception, url: str, where: str, options: RegistryOptions, *, sending: bool = False) -> RegistryError:
    """What a broken exchange means to the user. Names the host only: addresses of blob storages carry secrets in their query."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if isinstance(error, faults.ProxyError):
        proxy = urllib.parse.urlsplit(proxy_for(url, options.env))
        mend = "check the proxy variables of the environment (HTTPS_PROXY, NO_PROXY)"
        return Unreachable(f"cannot reach {host} through the proxy {proxy.netloc.rpartition('@')[2]}: {_reason(error)}", where=where, mend=mend, tries=2)
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
    if isinstance(error, faults.ConnectTimeoutError):
        return Unreachable(
            f"no connection to {host} within {options.connect_timeout_s:g} s",
            where=where,
            mend="check that this machine may reach it, or name a proxy (HTTPS_PROXY)",
            tries=2,
        )
    if isinstance(error, faults.SSLError | ssl.SSLError):
        return _tls_failure(error, host, where)
    if isinstance(error, faults.LocationParseError | faults.LocationValueError | faults.URLSchemeUnknown):
        return RegistryError(f"the registry sent us to an address that is none, at {host!r}", where=where, mend="ask who runs the registry")
    mend = "build again; if it stays so, ask who runs the registry"
    if isinstance(error, faults.TimeoutError):
        return Unreachable(f"{host} said nothing for {options.read_timeout_s:g} s", where=where, mend=mend, tries=options.attempts)
    return Unreachable(f"the connection to {host} broke{' while sending' if sending else ''}: {_reason(error)}", where=where, mend=mend, tries=options.attempts)


def _tls_failure(error: Exception, host: str, where: str) -> RegistryError:
    reason = _reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        mend = "install its authority's certificate (ca-certificates; SSL_CERT_FILE names another bundle), or skip the check if you trust the network"
        return RegistryError(f"the certificate of {host} cannot be trusted: {reason}", where=where, mend=mend)
    if "WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error):
        return NoTls(f"{host} does not speak TLS", where=where, mend="if it is a registry without TLS, speak plain HTTP to it: --insecure-registry")
    return Unreachable(f"TLS with {host} failed: {reason}", where=where, mend="build again; if it stays so, ask who runs the registry", tries=2)


def _reason(error: BaseException) -> str:
    """The innermost thing the system or the TLS library said."""
    said = type(error).__name__
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message
        if isinstance(seen, OSError) and (seen.strerror or seen.args):
            said = str(seen.strerror or seen.args[0])
        elif isinstance(seen, faults.IncompleteRead):
            return "it ended too early"
        seen = next(
            (one for one in (*seen.args[::-1], getattr(seen, "original_error", None), seen.__cause__, seen.__context__) if isinstance(one, BaseException)), None
        )
    return said


def _without_login(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
