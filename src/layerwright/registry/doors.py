"""Where each registry of a run answers, and the login there: found once, and kept."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from layerwright.registry.endpoint import Endpoint, endpoint_of, may_lack_tls, may_speak_tls, with_scheme
from layerwright.registry.errors import NoTls, RegistryError, Unreachable
from layerwright.registry.hosts import Hosts, Route
from layerwright.registry.http import Http
from layerwright.registry.login import Login
from layerwright.registry.options import RegistryOptions

# What servers that speak TLS tell a client that does not: those written in Go, nginx, Apache.
_WANTS_TLS = re.compile(r"answers 400 .*(HTTP request to an HTTPS server|plain HTTP request was sent to HTTPS|plain HTTP to an SSL)")


@dataclass(slots=True)
class Door:
    """One registry, as this run speaks to it. `settled`: that `endpoint` is right is known."""

    endpoint: Endpoint
    login: Login
    settled: bool


class Doors:
    """Thread-safe. Only what is needed is asked: of a registry that may lack TLS, whether it does."""

    def __init__(self, options: RegistryOptions, http: Http, hosts: Hosts) -> None:
        self._options = options
        self._http = http
        self._hosts = hosts
        self._guard = threading.Lock()
        self._doors: dict[tuple[str, str, bool], Door] = {}

    def door(self, route: Route) -> Door:
        """The door of the registry that `route` leads to; one that an address names by a scheme has a door of its own."""
        key = (route.host, route.scheme, route.insecure)
        with self._guard:
            if (known := self._doors.get(key)) is not None:
                return known
        endpoint = self._find(route)
        is_sure = bool(route.scheme) or not endpoint.is_plain or not may_speak_tls(route.host, self._options)
        login = Login(endpoint, self._http, self._options, is_insecure=self._hosts.is_insecure)
        with self._guard:
            return self._doors.setdefault(key, Door(endpoint, login, is_sure))

    def _find(self, route: Route) -> Endpoint:
        """Where the registry answers; asked from the server itself if that is not decided."""
        options = self._options
        endpoint = endpoint_of(route.host, options, scheme=route.scheme, insecure=route.insecure)
        if route.scheme:
            return endpoint
        if endpoint.is_plain and may_speak_tls(route.host, options) and self._http.has_certificates(route.host):
            return with_scheme(endpoint, "https")
        if may_lack_tls(route.host, options, insecure=route.insecure):
            try:
                self._http.exchange("GET", f"{endpoint.base}/v2/", where=route.host, headers={}, verify=endpoint.verify).close()
            except (NoTls, Unreachable):
                return with_scheme(endpoint, "http")
            except RegistryError:
                pass  # a certificate that cannot be trusted is told where it matters
        return endpoint

    def turns_to_tls(self, door: Door, refused: RegistryError) -> bool:
        """Whether the first answer of a registry on loopback says that it wants TLS; then the door leads there from now on."""
        with self._guard:
            if door.settled or not _WANTS_TLS.search(refused.what):
                return False
            door.settled = True
            door.endpoint = with_scheme(door.endpoint, "https")
            door.login = Login(door.endpoint, self._http, self._options, is_insecure=self._hosts.is_insecure)
            return True
