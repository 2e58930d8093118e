"""The pools of kept-alive connections: one for each way there is to a host, by proxy and by the certificates that count there."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import urlsplit

import urllib3

from layerwright.registry.certs import Trust
from layerwright.registry.options import RegistryOptions
from layerwright.registry.proxies import Proxy, proxy_for

_CONNECTIONS = 16  # kept for each host


class Pools:
    """Thread-safe. `prepare` is done to each new pool before it is used."""

    def __init__(self, options: RegistryOptions, prepare: Callable[[urllib3.PoolManager], urllib3.PoolManager]) -> None:
        self._options = options
        self._prepare = prepare
        self._trust = Trust(options.env, options.system_dir)
        self._guard = threading.Lock()
        self._pools: dict[tuple[str, str, str, bool], urllib3.PoolManager] = {}

    def pool(self, url: str, *, verify: bool) -> urllib3.PoolManager:
        """The pool for requests to `url`; `verify`: whether its certificate must be trusted. Raises UsageError for certificates or a proxy of no use."""
        parts = urlsplit(url)
        verify = verify and not self._options.skip_tls_verify
        proxy = proxy_for(url, self._options.env)
        host = parts.netloc.rpartition("@")[2] if parts.scheme == "https" else ""
        key = (parts.scheme, proxy.url if proxy else "", self._trust.directory(host) if host else "", verify or not host)
        with self._guard:
            if (pool := self._pools.get(key)) is None:
                pool = self._pools[key] = self._prepare(self._new(host, proxy, verify=verify))
            return pool

    def _new(self, host: str, proxy: Proxy | None, *, verify: bool) -> urllib3.PoolManager:
        context = self._trust.context(host, verify=verify) if host else None  # 19 ms: once, and only where it is needed
        if proxy is None:
            return urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=context)
        headers = {"proxy-authorization": f"Basic {b64encode(proxy.login.encode()).decode()}"} if proxy.login else {}
        to_proxy = self._trust.context(proxy.host, verify=True) if proxy.url.startswith("https:") else None
        return urllib3.ProxyManager(proxy.url, maxsize=_CONNECTIONS, ssl_context=context, proxy_ssl_context=to_proxy, proxy_headers=headers)

    def has_certificates(self, host: str) -> bool:
        """Whether a directory with certificates is there for "host" or "host:port"."""
        return bool(self._trust.directory(host))

    def all(self) -> list[urllib3.PoolManager]:
        with self._guard:
            return list(self._pools.values())

    def close(self) -> None:
        with self._guard:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()
