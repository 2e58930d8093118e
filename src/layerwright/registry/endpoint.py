"""Where a registry is, given its name in a reference. Source: Docker's rules for docker.io and for loopback registries."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from layerwright.registry.options import RegistryOptions

_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|::1")
HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"  # Docker Hub in config.json and for credential helpers


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`registry` as references name it, and where it answers: "https://registry-1.docker.io"; `verify`: whether its certificate must be trusted."""

    registry: str
    base: str
    verify: bool = True

    @property
    def is_plain(self) -> bool:
        return self.base.startswith("http://")

    @property
    def login_name(self) -> str:
        """What `cr login` takes to mean this registry."""
        return "" if self.registry == HUB else self.registry


def endpoint_of(registry: str, options: RegistryOptions, *, scheme: str = "", insecure: bool = False) -> Endpoint:
    """`scheme`: what an address of it said, "" if none did; `insecure`: any certificate will do."""
    host = "registry-1.docker.io" if registry == HUB else registry
    scheme = scheme or ("http" if speaks_plain(registry, options) else "https")
    return Endpoint(registry, f"{scheme}://{host}", verify=not insecure)


def with_scheme(endpoint: Endpoint, scheme: str) -> Endpoint:
    return replace(endpoint, base=f"{scheme}://{endpoint.base.partition('://')[2]}")


def may_lack_tls(registry: str, options: RegistryOptions, *, insecure: bool = False) -> bool:
    """Whether only the server can tell if plain HTTP is right."""
    return (insecure or "*" in options.insecure) and not speaks_plain(registry, options) and not is_listed(registry, options.tls)


def may_speak_tls(registry: str, options: RegistryOptions) -> bool:
    """Whether plain HTTP is only supposed, since the registry is on loopback."""
    return is_loopback(registry) and not is_listed(registry, options.insecure)


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
    return (HUB_KEY, "index.docker.io", HUB, "registry-1.docker.io") if registry == HUB else (registry,)
