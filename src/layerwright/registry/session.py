"""Requests to a registry as its protocol wants them: logged in, redirects followed, refusals turned into errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from urllib.parse import urljoin, urlsplit, urlunsplit

from layerwright.oci.reference import Reference
from layerwright.registry.doors import Door, Doors
from layerwright.registry.endpoint import Endpoint, host_of, speaks_plain
from layerwright.registry.errors import RegistryError
from layerwright.registry.hosts import Hosts, Route
from layerwright.registry.http import Answer, Http
from layerwright.registry.login import parse_challenges
from layerwright.registry.options import Direction, RegistryOptions, Transfer
from layerwright.registry.redirects import redirect_of, refused_elsewhere
from layerwright.registry.refusal import refusal
from layerwright.registry.retry import check_cancelled, few, is_transient, with_retries
from layerwright.registry.sources import Sources

_LIMIT_REDIRECTS = 5
PULL, PUSH = "pull", "pull,push"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `path` is below /v2/REPOSITORY/, or an address that the registry gave; `doing` completes "cannot ...".

    `expect`: the statuses the caller reads itself. `body`: bytes, or a function that gives the pieces anew for each time they are sent.
    """

    reference: Reference
    doing: str
    path: str
    method: str = "GET"
    actions: str = PULL
    more_scopes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], Iterable[bytes]] | None = None
    expect: Collection[int] = (200,)

    @property
    def is_read(self) -> bool:
        """Whether any place that has the image will do; whether a blob is in one repository, only that repository can say."""
        kinds = ("manifests/", "blobs/") if self.method == "GET" else ("manifests/",) if self.method == "HEAD" else ()
        return self.actions == PULL and self.path.startswith(kinds)

    def scopes_of(self, reference: Reference) -> tuple[str, ...]:
        """What a token must permit at the place where the image is called `reference`."""
        return (f"repository:{reference.repository}:{self.actions}", *self.more_scopes)


class Traffic:
    """Bytes of blobs and manifests moved so far; thread-safe. `tell` is called in the thread that moves them."""

    def __init__(self, tell: Callable[[Direction, int], None] | None = None) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self._tell = tell
        self._guard = threading.Lock()

    def came(self, size: int) -> None:
        with self._guard:
            self.bytes_in += size
        if self._tell is not None:
            self._tell("in", size)

    def went(self, size: int) -> None:
        with self._guard:
            self.bytes_out += size
        if self._tell is not None:
            self._tell("out", size)


class Session:
    """All requests of one run, to any registry. Thread-safe."""

    def __init__(self, options: RegistryOptions) -> None:
        self.options = options
        self.http = Http(options)
        self.traffic = Traffic(options.on_moved)
        self._hosts = Hosts(options)
        self._doors = Doors(options, self.http, self._hosts)
        self._sources = Sources(self._hosts)
        self.refusing_chunks: set[str] = set()  # registries to which blobs go whole for the rest of the run

    def until(self, is_stopped: Callable[[], bool]) -> Session:
        """This session for somebody who may be stopped before the run is; connections, logins and counts stay shared."""
        made, is_cancelled = copy(self), self.options.cancelled or (lambda: False)
        made.options = replace(self.options, cancelled=lambda: is_stopped() or is_cancelled())
        return made

    def ask(self, call: Call) -> Answer:
        """Send until there is an answer of an expected status, or no hope for one. Raises RegistryError."""
        return with_retries(lambda: self.send(call), self.options)

    def send(self, call: Call) -> Answer:
        """Send once; twice if the registry wants another login. Raises RegistryError for any status but the expected ones."""
        check_cancelled(self.options)
        if not call.is_read:
            return self._send_to(self._hosts.origin(call.reference), call)
        return self._sources.first(call.reference, lambda route: self._send_to(route, call))

    def doubt(self, mirror: str, *, wrong: bool = False) -> bool:
        """Note that what a mirror gave (`Answer.mirror`) was cut, or is `wrong`; True if there is a mirror to blame, so that another place is asked next."""
        return self._sources.doubt(mirror, wrong=wrong)

    def _send_to(self, route: Route, call: Call) -> Answer:
        door = self._doors.door(route)
        answer = self._send_through(door, route, call)
        expect = [status for status in call.expect if status < 400] if route.is_mirror else call.expect  # the next one may have it
        if answer.status in expect:
            door.settled = True
            return answer
        answer = self._with_words(answer, door, route, call)
        login, where = door.login, str(call.reference)
        error = refusal(answer, doing=call.doing, where=where, login=login.advice(call.reference.repository), secrets=login.secrets(), options=self.options)
        error.status = answer.status
        if answer.status < 300:
            error.tries = few(self.options)  # a success of another kind than there is: whoever answers may be no registry
        if self._doors.turns_to_tls(door, error):
            return self._send_to(route, call)
        raise error if same_origin(answer.url, door.endpoint.base) else refused_elsewhere(error, self.options)

    def _with_words(self, answer: Answer, door: Door, route: Route, call: Call) -> Answer:
        """The refusal of a HEAD has no words; the same by GET has, if it is refused as well. A registry that wants to be left alone for a while is."""
        asks_for_peace = is_transient(answer.status) and answer.header("Retry-After") != ""
        if call.method != "HEAD" or route.is_mirror or asks_for_peace or not 400 <= answer.status < 500:
            return answer
        answer.close()
        spoken = self._send_through(door, route, replace(call, method="GET"))
        if spoken.status == answer.status:
            return spoken
        spoken.close()
        return answer

    def _send_through(self, door: Door, route: Route, call: Call) -> Answer:
        endpoint, login, where = door.endpoint, door.login, str(call.reference)
        scopes = call.scopes_of(route.reference)
        authorization = login.authorization(route.reference, scopes, where)
        answer = self._follow(call, route, endpoint, authorization, where)
        if answer.status == 401 and same_origin(answer.url, endpoint.base):
            challenges = parse_challenges(answer.headers("WWW-Authenticate"))
            fresh = login.answer(challenges, route.reference, scopes, authorization, where)
            if fresh is not None:
                answer.close()
                answer = self._follow(call, route, endpoint, fresh, where)
        return answer

    def url(self, call: Call, route: Route, endpoint: Endpoint) -> str:
        """Where `call` goes. What the registry names by its own host keeps our scheme: one behind a TLS proxy may not know its own."""
        base = urlsplit(endpoint.base)
        url = urlsplit(urljoin(f"{endpoint.base}/v2/{route.reference.repository}/", call.path))
        return urlunsplit(url._replace(scheme=base.scheme) if url.netloc == base.netloc else url)

    def _follow(self, call: Call, route: Route, endpoint: Endpoint, authorization: str | None, where: str) -> Answer:
        """The answer at the end of all redirects. The login goes to the registry only: a blob storage gets none, and its address needs none."""
        url = self.url(call, route, endpoint)
        for _ in range(_LIMIT_REDIRECTS + 1):
            self._check_plain(url, endpoint, where)
            headers = dict(call.headers)
            if authorization is not None and same_origin(url, endpoint.base):
                headers["Authorization"] = authorization
            body = call.body() if callable(call.body) else call.body
            verify = self._verify(url, endpoint)
            answer = self.http.exchange(
                call.method,
                url,
                where=where,
                headers=headers,
                body=body,
                is_upload=callable(call.body),
                doing=call.doing,
                verify=verify,
                options=self.options,
            )
            target = redirect_of(answer, call.method, url, where)
            if not target:
                return answer
            answer.close()
            url = target
        raise RegistryError(f"cannot {call.doing}: {endpoint.registry} redirects without end", where=where, mend="ask who runs the registry")

    def _verify(self, url: str, endpoint: Endpoint) -> bool:
        """Whether the certificate there must be trusted: a storage on the registry's own host is treated as the registry is."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        is_same = host_of(host) == host_of(urlsplit(endpoint.base).netloc)
        return endpoint.verify if is_same else not self._hosts.is_insecure(host)

    def _check_plain(self, url: str, endpoint: Endpoint, where: str) -> None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme == "https" or (parts.scheme == "http" and (endpoint.is_plain or speaks_plain(host, self.options) or self._hosts.is_insecure(host))):
            return
        mend = f"ask who runs the registry, or name {host} as insecure if you trust the network"
        raise RegistryError(f"{endpoint.registry} sends us from HTTPS to {parts.scheme}://{host}", where=where, mend=mend)

    def tell(self, transfer: Transfer) -> None:
        if self.options.on_bytes is not None:
            self.options.on_bytes(transfer)


def same_origin(one: str, other: str) -> bool:
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
