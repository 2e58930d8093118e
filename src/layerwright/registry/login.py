"""Answering a registry that asks who we are. Source: RFC 9110 (challenges), and Docker's token protocol (distribution, "Token Authentication")."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from layerwright.oci.reference import Reference
from layerwright.registry.auth import config_path, credentials
from layerwright.registry.credentials import Credentials
from layerwright.registry.endpoint import Endpoint, host_of, is_loopback
from layerwright.registry.errors import RegistryError, Unauthorized
from layerwright.registry.http import Answer, Http
from layerwright.registry.options import RegistryOptions
from layerwright.registry.refusal import refusal
from layerwright.registry.texts import shown

_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9_-]*)(?=\s+[A-Za-z0-9_-]+\s*=|\s*,|\s*\Z)")
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_LIMIT_BYTES = 1 << 20
_DEFAULT_LIFE_S, _LONGEST_LIFE_S, _USED_SHARE = 60.0, 86_400.0, 0.9  # of a token that names none; none is used in the last tenth of its life


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that a server offers."""

    scheme: str  # lower case
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of the WWW-Authenticate headers; what is malformed is left out."""
    found = []
    for header in headers:
        at = 0
        while scheme := _SCHEME.match(header, at):
            at = scheme.end()
            parameters = {}
            while parameter := _PARAMETER.match(header, at):
                at = parameter.end()
                quoted = parameter[2]
                parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else parameter[3]
            found.append(Challenge(scheme[1].lower(), parameters))
    return tuple(found)


def merged_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes with one line for each resource, its actions sorted: what a token is asked for and kept under."""
    actions: dict[str, set[str]] = {}
    for scope in scopes:
        resource, colon, wanted = scope.rpartition(":")
        actions.setdefault(resource if colon else scope, set()).update(one for one in wanted.split(",") if colon and one)
    return tuple(f"{resource}:{','.join(sorted(wanted))}" if wanted else resource for resource, wanted in sorted(actions.items()))


class Login:
    """The login at one endpoint. Thread-safe; nothing is read or asked before the registry demands it.

    `given`: the login to use, instead of looking for one; `is_insecure`: whether a host needs no trusted TLS.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        http: Http,
        options: RegistryOptions,
        *,
        given: Credentials | None = None,
        is_insecure: Callable[[str], bool] = lambda host: False,
    ) -> None:
        self._endpoint = endpoint
        self._http = http
        self._options = options
        self._given = given
        self._is_insecure = is_insecure
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._found: dict[str, Credentials | None] = {}  # by repository, once looked up
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}  # scopes -> token, and until when it is used

    def authorization(self, reference: Reference, scopes: tuple[str, ...], where: str) -> str | None:
        """The Authorization header to send at once; None while the registry has not asked for any."""
        challenge, wanted = self._challenge, merged_scopes(scopes)
        if challenge is None:
            return None
        if challenge.scheme == "bearer" and (token := self._token(wanted)):
            return f"Bearer {token}"  # without the lock: whoever fetches a token for something else holds it for long
        with self._lock:
            return self._answer(challenge, reference, wanted, None, where)

    def answer(self, challenges: tuple[Challenge, ...], reference: Reference, scopes: tuple[str, ...], refused: str | None, where: str) -> str | None:
        """The header that answers a 401, `refused` being the one that was sent; None if there is nothing better to send. Raises Unauthorized."""
        offered = {one.scheme: one for one in challenges}
        challenge = offered.get("bearer") or offered.get("basic")
        if challenge is None:
            return None
        with self._lock:
            self._challenge = challenge
            said = challenge.parameters.get("scope", "").split() if challenge.scheme == "bearer" else []
            fresh = self._answer(challenge, reference, merged_scopes((*scopes, *said)), refused, where)
            if fresh is not None and challenge.scheme == "bearer":
                self._tokens[merged_scopes(scopes)] = self._tokens[merged_scopes((*scopes, *said))]
        return None if fresh == refused else fresh

    def _answer(self, challenge: Challenge, reference: Reference, scopes: tuple[str, ...], refused: str | None, where: str) -> str | None:
        if challenge.scheme == "basic":
            found = self._lookup(reference.repository)
            return found.basic() if found is not None and found.username else None
        token = self._token(scopes)
        if not token or refused == f"Bearer {token}":
            token, life_s = self._fetch(challenge, reference.repository, scopes, where)
            self._tokens[scopes] = (token, time.monotonic() + life_s * _USED_SHARE)
        return f"Bearer {token}"

    def _token(self, scopes: tuple[str, ...]) -> str:
        """The token that is here for `scopes`, "" if there is none that is still good."""
        token, until = self._tokens.get(scopes, ("", 0.0))
        return token if time.monotonic() < until else ""

    def _lookup(self, repository: str) -> Credentials | None:
        if self._given is not None:
            return self._given
        if repository not in self._found:
            options = self._options
            self._found[repository] = credentials(
                options.config_dir,
                self._endpoint.registry,
                env=options.env,
                repository=repository,
                helper_timeout_s=options.helper_timeout_s,
                cancelled=options.cancelled,
            )
        return self._found[repository]

    def _fetch(self, challenge: Challenge, repository: str, scopes: tuple[str, ...], where: str) -> tuple[str, float]:
        """A new token from the server that the challenge names, and its life in seconds."""
        login = self._lookup(repository)
        if login is not None and login.registry_token:
            return login.registry_token, float("inf")
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm, where)
        service = challenge.parameters.get("service", "")
        if login is not None and login.identity_token:
            answer = self._exchange(realm, service, scopes, {"grant_type": "refresh_token", "refresh_token": login.identity_token}, where)
        else:
            answer = self._ask_token(realm, service, scopes, login, where)
        said = self._read_token(answer, repository, where)
        renewed = said.get("refresh_token")
        if login is not None and login.identity_token and isinstance(renewed, str) and renewed and self._given is None:
            self._found[repository] = replace(login, identity_token=renewed)
        return said["token"], _life_s(said)

    def _ask_token(self, realm: str, service: str, scopes: tuple[str, ...], login: Credentials | None, where: str) -> Answer:
        """By GET; from a server that knows OAuth2's form only, by that."""
        query = ([("service", service)] if service else []) + [("scope", scope) for scope in scopes]
        headers = {}
        if login is not None and login.username:
            query.append(("account", login.username))
            headers["Authorization"] = login.basic()
        url = f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}"
        answer = self._http.exchange("GET", url, where=where, headers=headers, doing="log in", verify=self._verify(realm))
        if answer.status in (404, 405) and login is not None and login.username:
            answer.close()
            return self._exchange(realm, service, scopes, {"grant_type": "password", "username": login.username, "password": login.password}, where)
        return answer

    def _exchange(self, realm: str, service: str, scopes: tuple[str, ...], grant: Mapping[str, str], where: str) -> Answer:
        form = {**grant, "client_id": "layerwright", "service": service, "scope": " ".join(scopes)}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        content = urllib.parse.urlencode(form).encode()
        return self._http.exchange("POST", realm, where=where, headers=headers, body=content, doing="log in", verify=self._verify(realm))

    def _verify(self, realm: str) -> bool:
        """Whether the login server's certificate must be trusted: one on the registry's own host is treated as the registry is."""
        host = urllib.parse.urlsplit(realm).netloc.rpartition("@")[2]
        is_same = host_of(host) == host_of(self._endpoint.base.partition("://")[2])
        return not ((is_same and not self._endpoint.verify) or self._is_insecure(host))

    def _check_realm(self, realm: str, where: str) -> None:
        parts = urllib.parse.urlsplit(realm)
        host = parts.netloc.rpartition("@")[2]
        mend = "ask who runs the registry: its WWW-Authenticate header is wrong"
        if parts.scheme not in ("http", "https") or not host:
            raise RegistryError(f"{self._endpoint.registry} names {shown(realm)!r} as the place to log in", where=where, mend=mend)
        if parts.scheme == "http" and not self._endpoint.is_plain and not is_loopback(host) and not self._is_insecure(host):
            raise RegistryError(f"{self._endpoint.registry} wants the login sent to {host} over plain HTTP", where=where, mend=mend)

    def _read_token(self, answer: Answer, repository: str, where: str) -> dict[str, Any]:
        """What the login server said, "token" being a token in any case."""
        if answer.status != 200:
            error = refusal(answer, doing="log in", where=where, login=self.advice(repository), secrets=self.secrets(), options=self._options)
            if 400 <= answer.status < 404:
                raise Unauthorized(error.what, where=where, mend=self.advice(repository))
            raise error
        try:
            said = json.loads(answer.body(_LIMIT_BYTES))
        except (ValueError, RecursionError):
            said = None  # the text of the error could hold a token
        token = (said.get("token") or said.get("access_token")) if isinstance(said, dict) else None
        if not isinstance(said, dict) or not isinstance(token, str) or not token:
            raise RegistryError(f"the login server of {self._endpoint.registry} gave no token", where=where, mend="ask who runs the registry", tries=2)
        return {**said, "token": token}

    def advice(self, repository: str = "") -> str:
        """What a user who is refused can do."""
        command = f"layerwright cr login {self._endpoint.login_name}".rstrip()
        if self._given is not None:
            return "check the user name and the password, and that this account may log in there"
        found = self._found.get(repository)
        if found is None:
            place = config_path(self._options.config_dir, self._options.env)
            return f"log in ({command}); " + (f"no login for it was found in {place}" if place else "set DOCKER_CONFIG to the directory of config.json")
        return f"the login from {found.source} was used: renew it ({command}), or ask for the right"

    def secrets(self) -> tuple[str, ...]:
        """What no message may show."""
        known = [one for one in (self._given, *list(self._found.values())) if one is not None]
        spelled = [text for one in known for text in (*one.secrets(), one.basic().partition(" ")[2])]
        return (*spelled, *(quote(text, safe="") for text in spelled), *(token for token, _ in list(self._tokens.values())))


def _life_s(said: Mapping[str, Any]) -> float:
    life_s = said.get("expires_in")
    return float(min(life_s, _LONGEST_LIFE_S)) if isinstance(life_s, int | float) and life_s > 0 else _DEFAULT_LIFE_S
