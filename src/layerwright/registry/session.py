"""Requests to a registry as its protocol wants them: logged in, redirects followed, refusals turned into errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit, urlunsplit

from layerwright.oci.reference import Reference
from layerwright.registry.endpoint import Endpoint, endpoint_of, may_lack_tls, speaks_plain, without_tls
from layerwright.registry.errors import NoTls, RegistryError, Unreachable
from layerwright.registry.http import Answer, Http
from layerwright.registry.login import Login, parse_challenges
from layerwright.registry.options import RegistryOptions, Transfer
from layerwright.registry.refusal import refusal
from layerwright.registry.retry import check_cancelled, with_retries

_REDIRECTS = (301, 302, 303, 307, 308)
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
    def scopes(self) -> tuple[str, ...]:
        return (f"repository:{self.reference.repository}:{self.actions}", *self.more_scopes)


class Traffic:
    """Bytes of blobs and manifests moved so far; thread-safe."""

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self._guard = threading.Lock()

    def came(self, size: int) -> None:
        with self._guard:
            self.bytes_in += size

    def went(self, size: int) -> None:
        with self._guard:
            self.bytes_out += size


class Session:
    """All requests of one run, to any registry. Thread-safe."""

    def __init__(self, options: RegistryOptions) -> None:
        self.options = options
        self.http = Http(options)
        self.traffic = Traffic()
        self._guard = threading.Lock()
        self._logins: dict[str, tuple[Endpoint, Login]] = {}

    def ask(self, call: Call) -> Answer:
        """Send until there is an answer of an expected status, or no hope for one. Raises RegistryError."""
        return with_retries(lambda: self.send(call), self.options)

    def send(self, call: Call) -> Answer:
        """Send once; twice if the registry wants another login. Raises RegistryError for any status but the expected ones."""
        check_cancelled(self.options)
        where = str(call.reference)
        endpoint, login = self._login(call.reference.registry)
        authorization = login.authorization(call.scopes, where)
        answer = self._follow(call, endpoint, authorization, where)
        if answer.status == 401 and same_origin(answer.url, endpoint.base):
            challenges = parse_challenges(answer.headers("WWW-Authenticate"))
            fresh = login.answer(challenges, call.scopes, authorization, where)
            if fresh is not None:
                answer.close()
                answer = self._follow(call, endpoint, fresh, where)
        if answer.status in call.expect:
            return answer
        raise refusal(answer, doing=call.doing, where=where, login=login.advice(), secrets=login.secrets(), options=self.options)

    def url(self, call: Call) -> str:
        """Where `call` goes. What the registry names by its own host keeps our scheme: one behind a TLS proxy may not know its own."""
        endpoint, _ = self._login(call.reference.registry)
        base = urlsplit(endpoint.base)
        url = urlsplit(urljoin(f"{endpoint.base}/v2/{call.reference.repository}/", call.path))
        return urlunsplit(url._replace(scheme=base.scheme) if url.netloc == base.netloc else url)

    def _login(self, registry: str) -> tuple[Endpoint, Login]:
        with self._guard:
            known = self._logins.get(registry)
        if known is not None:
            return known
        endpoint = self._find(registry)
        with self._guard:
            return self._logins.setdefault(registry, (endpoint, Login(endpoint, self.http, self.options)))

    def _find(self, registry: str) -> Endpoint:
        """Where the registry answers; asked from the server itself if that is not decided."""
        endpoint = endpoint_of(registry, self.options)
        if may_lack_tls(registry, self.options):
            try:
                self.http.exchange("GET", f"{endpoint.base}/v2/", where=registry, headers={}).close()
            except (NoTls, Unreachable):
                return without_tls(endpoint)
            except RegistryError:
                pass  # a certificate that cannot be trusted is told where it matters
        return endpoint

    def _follow(self, call: Call, endpoint: Endpoint, authorization: str | None, where: str) -> Answer:
        """The answer at the end of all redirects. The login goes to the registry only: a blob storage gets none, and its address needs none."""
        url = self.url(call)
        for _ in range(_LIMIT_REDIRECTS + 1):
            self._check_plain(url, endpoint, where)
            headers = dict(call.headers)
            if authorization is not None and same_origin(url, endpoint.base):
                headers["Authorization"] = authorization
            body = call.body() if callable(call.body) else call.body
            answer = self.http.exchange(call.method, url, where=where, headers=headers, body=body, is_upload=callable(call.body))
            target = answer.header("Location")
            if answer.status not in _REDIRECTS or call.method not in ("GET", "HEAD") or not target:
                return answer
            answer.close()
            url = urljoin(url, target)
        raise RegistryError(f"cannot {call.doing}: {endpoint.registry} redirects without end", where=where, mend="ask who runs the registry")

    def _check_plain(self, url: str, endpoint: Endpoint, where: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "https" or (parts.scheme == "http" and (endpoint.is_plain or speaks_plain(parts.netloc, self.options))):
            return
        mend = f"ask who runs the registry, or name {parts.netloc} as insecure if you trust the network"
        raise RegistryError(f"{endpoint.registry} sends us from HTTPS to {parts.scheme}://{parts.netloc.rpartition('@')[2]}", where=where, mend=mend)

    def tell(self, transfer: Transfer) -> None:
        if self.options.on_bytes is not None:
            self.options.on_bytes(transfer)


def same_origin(one: str, other: str) -> bool:
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
