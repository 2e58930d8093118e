"""Where a registry is, given its name in a reference. Source: Docker's rules for docker.io and for loopback registries."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from layerwright.registry.options import RegistryOptions

_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|::1")
_HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"  # Docker Hub in config.json and for credential helpers


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`registry` as references name it, and where it answers: "https://registry-1.docker.io"."""

    registry: str
    base: str

    @property
    def is_plain(self) -> bool:
        return self.base.startswith("http://")

    @property
    def login_name(self) -> str:
        """What `docker login` takes to mean this registry."""
        return "" if self.registry == _HUB else self.registry


def endpoint_of(registry: str, options: RegistryOptions) -> Endpoint:
    host = "registry-1.docker.io" if registry == _HUB else registry
    return Endpoint(registry, f"{'http' if speaks_plain(registry, options) else 'https'}://{host}")


def without_tls(endpoint: Endpoint) -> Endpoint:
    return Endpoint(endpoint.registry, endpoint.base.replace("https://", "http://", 1))


def may_lack_tls(registry: str, options: RegistryOptions) -> bool:
    """Whether only the server can tell if plain HTTP is right."""
    return "*" in options.insecure and not speaks_plain(registry, options) and not is_listed(registry, options.tls)


def speaks_plain(registry: str, options: RegistryOptions) -> bool:
    """Whether plain HTTP is right for "host" or "host:port": asked for, or a loopback address nothing else was asked for."""
    if is_listed(registry, options.insecure):
        return True
    return is_loopback(registry) and not is_listed(registry, options.tls)


def is_loopback(registry: str) -> bool:
    return _LOOPBACK.fullmatch(host_of(registry).lower()) is not None


def is_listed(registry: str, hosts: Collection[str]) -> bool:
    return any(one == registry or one.strip("[]") == host_of(registry) for one in hosts)


def host_of(registry: str) -> str:
    """ "host" of "host", "host:port" and "[address]:port"."""
    if registry.startswith("["):
        return registry[1:].partition("]")[0]
    return registry.partition(":")[0]


def auth_keys(registry: str) -> tuple[str, ...]:
    """The names a registry's login may have in config.json, the usual one first."""
    return (HUB_KEY, "index.docker.io", _HUB, "registry-1.docker.io") if registry == _HUB else (registry,)
