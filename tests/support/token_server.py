"""A server that gives out tokens for a registry, as distribution's "Token Authentication" has it. On loopback, in a thread of the test.

Tokens are JSON Web Tokens (RS256), signed by openssl; the registry trusts the certificate of `TokenServer.certificate`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.machine import find_program

ISSUER, SERVICE = "tests' tokens", "tests' registry"
LEEWAY_S = 60  # that docker-registry adds to the life of a token (registry/auth/token/token.go, Leeway)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """One wish for a token. `user` is "" for nobody; `given`: the server gave one."""

    method: str
    user: str
    scopes: tuple[str, ...]
    given: bool


class TokenServer(LoopbackServer):
    """`users` (name: password) may do anything, everybody may pull from repositories below `public`. `life_s` is what tokens claim to live.
    `true_life_s`: after so long the registry takes them no more, by its own clock. `rights` of a user are all that he has then: below which repository
    names he may do what ("team": "pull").

    A refresh token is "refresh-NAME" for each user.
    """

    def __init__(
        self,
        directory: Path,
        *,
        users: Mapping[str, str],
        public: str = "",
        life_s: int = 300,
        true_life_s: int = 300,
        rights: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._users = dict(users)
        self._public = public
        self._rights = dict(rights or {})
        self._life_s, self._true_life_s = life_s, true_life_s
        self._key = directory / "tokens.key"
        self.certificate = directory / "tokens.crt"
        command = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens", "-keyout", self._key, "-out", self.certificate)
        subprocess.run((find_program("openssl"), *map(str, command)), check=True, capture_output=True, stdin=subprocess.DEVNULL)
        self.asked: list[TokenRequest] = []
        self.tokens: list[str] = []
        self._guard = threading.Lock()
        super().__init__(self._handler())

    @property
    def realm(self) -> str:
        return f"http://{self.address}/token"

    def answer(self, method: str, user: str | None, scopes: tuple[str, ...]) -> tuple[int, dict[str, object]]:
        """Status and body; `user` is None for somebody who shows a wrong password."""
        with self._guard:
            self.asked.append(TokenRequest(method=method, user=user or "", scopes=scopes, given=user is not None))
        if user is None:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "the token server does not know this password"}]}
        token = self._signed({"access": [access for scope in scopes if (access := self._access(scope, user))], "sub": user})
        with self._guard:
            self.tokens.append(token)
        return 200, {"token": token, "access_token": token, "expires_in": self._life_s}

    def _access(self, scope: str, user: str) -> dict[str, object] | None:
        kind, name, actions = scope.split(":")
        if self._public and name.startswith(f"{self._public}/") and not user:
            allowed = ["pull"]
        elif user in self._rights:
            granted = {action for below, given in self._rights[user].items() if name.startswith(f"{below}/") for action in given.split(",")}
            allowed = [action for action in actions.split(",") if action in granted]
        else:
            allowed = actions.split(",") if user else []
        return {"type": kind, "name": name, "actions": allowed} if allowed else None

    def _signed(self, claims: Mapping[str, object]) -> str:
        now = int(time.time())
        certificate = "".join(line for line in self.certificate.read_text().splitlines() if not line.startswith("-"))
        header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        body = {"iss": ISSUER, "aud": SERVICE, "iat": now, "nbf": now, "exp": now + self._true_life_s - LEEWAY_S, "jti": uuid.uuid4().hex, **claims}
        content = b".".join(_encoded(json.dumps(part).encode()) for part in (header, body))
        sign = (find_program("openssl"), "dgst", "-sha256", "-sign", str(self._key))
        return (content + b"." + _encoded(subprocess.run(sign, input=content, check=True, capture_output=True).stdout)).decode()

    def user_of(self, authorization: str) -> str | None:
        if not authorization:
            return ""
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return name if name in self._users and self._users[name] == password else None

    def user_of_form(self, form: Mapping[str, list[str]]) -> str | None:
        token = form.get("refresh_token", [""])[0]
        return next((name for name in self._users if token == f"refresh-{name}"), None)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                self._answer("GET", server.user_of(self.headers.get("Authorization", "")), tuple(query.get("scope", [])))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self._answer("POST", server.user_of_form(form), tuple(form.get("scope", [""])[0].split()))

            def _answer(self, method: str, user: str | None, scopes: tuple[str, ...]) -> None:
                status, said = server.answer(method, user, scopes)
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler


def _encoded(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
