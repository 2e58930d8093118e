"""What the settings say of each registry: where it and its mirrors answer, what is blocked, and what needs no trusted TLS.

Asked in this order: options of the run, registries.conf, daemon.json. Nothing is read before the first question.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from layerwright.errors import UsageError
from layerwright.oci.reference import Reference, parse_reference
from layerwright.registry import daemon_json, registries_conf
from layerwright.registry.config_files import without_scheme
from layerwright.registry.daemon_json import DaemonSettings
from layerwright.registry.endpoint import HUB, host_of
from layerwright.registry.options import RegistryOptions
from layerwright.registry.registries_conf import Mirror, Rule, rewritten, rule_for


class Blocked(UsageError):
    """The settings of this machine forbid the registry."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One place to ask: `reference` is what the image is called there.

    `scheme`: "http" or "https" where an address said so, else ""; `insecure`: no TLS, or any certificate, will do.
    """

    reference: Reference
    scheme: str = ""
    insecure: bool = False
    is_mirror: bool = False
    only: registries_conf.PullFrom = "all"

    @property
    def host(self) -> str:
        return self.reference.registry


class Hosts:
    """The settings of one run. Thread-safe."""

    def __init__(self, options: RegistryOptions) -> None:
        self._options = options
        self._guard = threading.Lock()
        self._loaded: tuple[tuple[Rule, ...], DaemonSettings] | None = None

    def origin(self, reference: Reference) -> Route:
        """The registry that the name itself means: where images are pushed to. Raises Blocked, UsageError."""
        rule = self._rule(reference)
        return Route(reference=reference, insecure=bool(rule and rule.insecure) or self.is_insecure(reference.registry))

    def sources(self, reference: Reference) -> tuple[Route, ...]:
        """Where the image can be read, in the order to ask: mirrors, then the registry, at the place it is said to have. Raises Blocked, UsageError."""
        rule = self._rule(reference)
        mirrors = [route for one in self._options.mirrors if reference.registry == HUB and (route := self._hub_mirror(reference, one)) is not None]
        if rule is not None:
            mirrors += [self._route(reference, rule, mirror) for mirror in rule.mirrors]
        if reference.registry == HUB:
            mirrors += [route for one in self._settings()[1].mirrors if (route := self._hub_mirror(reference, one)) is not None]
        origin = self.origin(reference)
        if rule is not None and rule.location:
            place = _renamed(reference, rule, rule.location)
            origin = replace(origin, reference=place, insecure=rule.insecure or self.is_insecure(place.registry))
        return (*dict.fromkeys(mirrors), origin)

    def is_insecure(self, registry: str) -> bool:
        """Whether daemon.json says so of "host" or "host:port"."""
        return any(_means(entry, registry) for entry in self._settings()[1].insecure)

    def _rule(self, reference: Reference) -> Rule | None:
        rule = rule_for(self._settings()[0], reference.name)
        if rule is not None and rule.blocked:
            mend = "use another registry, or ask who set up this machine"
            raise Blocked(f"{rule.prefix} is blocked by {rule.source}", where=str(reference), mend=mend)
        return rule

    def _route(self, reference: Reference, rule: Rule, mirror: Mirror) -> Route:
        place = _renamed(reference, rule, mirror.location)
        return Route(reference=place, insecure=mirror.insecure or self.is_insecure(place.registry), is_mirror=True, only=mirror.pull_from)

    def _hub_mirror(self, reference: Reference, address: str) -> Route | None:
        """A mirror of Docker Hub named by an address; what follows the host stands before the repository."""
        scheme, location = without_scheme(address)
        place = _parsed(f"{location}/{reference.repository}", reference)
        if place.registry == HUB:
            return None  # that is no mirror of it
        return Route(reference=place, scheme=scheme, insecure=self.is_insecure(place.registry), is_mirror=True)

    def _settings(self) -> tuple[tuple[Rule, ...], DaemonSettings]:
        with self._guard:
            if self._loaded is None:
                env, system = self._options.env, self._options.system_dir
                rules = registries_conf.load_rules(registries_conf.config_files(env, system))
                self._loaded = rules, daemon_json.load_settings(daemon_json.config_files(env, system))
            return self._loaded


def check_mirrors(mirrors: Sequence[str], *, where: str) -> None:
    """Raises UsageError for a mirror that is not an address."""
    for one in mirrors:
        scheme, location = without_scheme(one)
        if scheme not in ("", "http", "https") or "@" in location or _named(f"{location}/x/y") is None:
            raise UsageError("one of the mirrors is not the address of a registry", where=where, mend="write HOST[:PORT], or https://HOST[:PORT][/PATH]")


def _renamed(reference: Reference, rule: Rule, location: str) -> Reference:
    return _parsed(rewritten(reference.name, rule.prefix, location), reference, source=rule.source)


def _parsed(name: str, reference: Reference, *, source: str = "") -> Reference:
    """The image under another name, its tag and digest as they were."""
    found = _named(name)
    if found is None:
        what = f"{reference.name} would be {name!r} at its mirror or location, which is not an image name"
        raise UsageError(what, where=source, mend="name HOST[:PORT][/PATH] there")
    return replace(found, tag=reference.tag, digest=reference.digest)


def _named(name: str) -> Reference | None:
    """The name "host/repository", whose host need not look like one, or None if it is none."""
    host, _, path = name.partition("/")
    plain = "." not in host and ":" not in host and host != "localhost"
    try:
        found = parse_reference(f"{host}:80/{path}" if plain else name)
    except UsageError:
        return None
    return replace(found, registry=host) if plain else found


def _means(entry: str, registry: str) -> bool:
    """Whether an entry of insecure-registries means the registry: its name, with or without the port, or a network with its address."""
    entry = without_scheme(entry)[1]
    if entry in (registry, host_of(registry)):
        return True
    if "/" not in entry:
        return False
    import ipaddress

    try:
        return ipaddress.ip_address(host_of(registry)) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
