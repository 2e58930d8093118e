"""Which proxy stands between us and an address. Source: Go's golang.org/x/net/http/httpproxy, whose rules other container tools follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from layerwright.errors import UsageError
from layerwright.registry.endpoint import is_loopback
from layerwright.registry.errors import Unreachable


@dataclass(frozen=True, slots=True)
class Proxy:
    """`url` is without a login; `login` is "user:password" or ""; `variable` named it."""

    url: str
    login: str = field(repr=False)
    variable: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


def proxy_for(url: str, env: Mapping[str, str]) -> Proxy | None:
    """The proxy the environment names for `url`; loopback is never asked through one. Raises UsageError for a variable that names none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    names = (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    variable = next((name for name in names if env.get(name)), "")
    exceptions = (env.get("no_proxy") or env.get("NO_PROXY") or "").split(",")
    if (
        not variable
        or is_loopback(f"[{host}]" if ":" in host else host)
        or any(_is_exception(host, _port(parts.port, parts.scheme), one) for one in exceptions)
    ):
        return None
    return parse_proxy(env[variable], variable)


def parse_proxy(text: str, variable: str) -> Proxy:
    """What a proxy variable says; a bare "host:port" is http. Raises UsageError, which shows nothing of a login."""
    said = text.strip()
    said = said if "://" in said else f"http://{said}"
    try:
        parts = urlsplit(said)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise UsageError("it is not the address of a proxy", where=variable, mend="write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT")
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"a proxy that is spoken to by {parts.scheme} cannot be used", where=variable, mend="name a proxy with http:// or https://")
    named = f"[{host}]" if ":" in host else host
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return Proxy(f"{parts.scheme}://{named}" + (f":{port}" if port else ""), login, variable)


def _port(port: int | None, scheme: str) -> int:
    return port or (443 if scheme == "https" else 80)


def _is_exception(host: str, port: int, entry: str) -> bool:
    """Whether an entry of NO_PROXY means this host: "*", a name and all below it, "name:port", an address, a network."""
    entry = entry.strip()
    if entry == "*":
        return True
    if "/" in entry:
        return _is_in_network(host, entry)
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):
        return int(wanted) == port and _is_exception(host, port, name)
    name = entry.strip("[]").removeprefix("*.").strip(".").lower()
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _is_in_network(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def proxy_failure(reason: str, host: str, proxy: Proxy | None, where: str) -> Unreachable:
    """The error for a proxy that is down or refuses. Shows nothing of its login."""
    named = f"{proxy.host} ({proxy.variable})" if proxy else "of the environment"
    mend = "check the proxy variables of the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)"
    if "407" in reason:
        mend = f"the proxy wants a login: write http://USER:PASSWORD@{proxy.host if proxy else 'HOST:PORT'} in {proxy.variable if proxy else 'its variable'}"
    return Unreachable(f"cannot reach {host} through the proxy {named}: {reason}", where=where, mend=mend, tries=2)
