"""A real registry (docker-registry) on a free port of loopback or of a network namespace, its storage in a directory of the test's."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.machine import find_program
from tests.support.tls import Certificate
from tests.support.token_server import ISSUER, SERVICE, TokenServer

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
LISTENING = re.compile(rb"listening on (\d+\.\d+\.\d+\.\d+:\d+)")


class RegistryServer:
    """One server process; a context manager. `users` (name: password) makes it ask for basic authentication, `tokens` for a token of that server.

    `certificate` makes it speak TLS, and `client_authority` ask for a certificate which that authority signed.
    The same directory can be served again: what was pushed is still there. Another server's `storage` can be served at the same time.
    `host` is another address than loopback's, `prefix` what to start the server with: something that enters a namespace.
    """

    def __init__(
        self,
        directory: Path,
        *,
        users: Mapping[str, str] | None = None,
        tokens: TokenServer | None = None,
        certificate: Certificate | None = None,
        client_authority: Path | None = None,
        storage: Path | None = None,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self.storage = storage or directory / "storage"
        self._host, self._prefix = host, tuple(prefix)
        self._users = dict(users or {})
        self._tokens, self._certificate, self._client_authority = tokens, certificate, client_authority
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """ "HOST:PORT"; the server picks the port when it starts."""
        assert self._address, "the registry is not started"
        return self._address

    @property
    def log(self) -> str:
        """What the server has written so far: one line for each request among it."""
        return (self._directory / "server.log").read_text(errors="replace")

    def reference(self, name: str) -> str:
        """`name` ("base/busybox:1") as a reference to this registry."""
        return f"{self.address}/{name}"

    def __enter__(self) -> RegistryServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers; fails with the end of its log if it does not."""
        assert self._process is None, "the registry is started already"
        self._directory.mkdir(parents=True, exist_ok=True)
        self.storage.mkdir(parents=True, exist_ok=True)
        settings = self._directory / "registry.yml"
        settings.write_text(self._settings())
        # The registry of Debian 12 complains about a missing trace collector unless told that there is none.
        env = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        with (self._directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                (*self._prefix, find_program("docker-registry"), "serve", str(settings)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
            )
        self._address = self._await_address()

    def stop(self) -> None:
        """End the process that `start` made, by its id; nothing happens if there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await_address(self) -> str:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := LISTENING.search((self._directory / "server.log").read_bytes()):
                return found[1].decode()
            time.sleep(0.02)
        self.stop()
        raise AssertionError(f"docker-registry did not start: {self.log[-2000:]}")

    def _settings(self) -> str:
        lines = [
            "version: 0.1",
            "log: {level: info, accesslog: {disabled: false}}",
            f"storage: {{filesystem: {{rootdirectory: {self.storage}}}, delete: {{enabled: true}}}}",
            f'http: {{addr: "{self._host}:0"{self._tls()}}}',
        ]
        if self._tokens:
            names = f'service: "{SERVICE}", issuer: "{ISSUER}"'
            lines.append(f"auth: {{token: {{realm: '{self._tokens.realm}', {names}, rootcertbundle: {self._tokens.certificate}}}}}")
        if self._users:
            passwords = self._directory / "htpasswd"
            passwords.write_bytes(b"".join(self._password_line(*user) for user in self._users.items()))
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {passwords}}}}}")
        return "\n".join(lines) + "\n"

    def _tls(self) -> str:
        if self._certificate is None:
            return ""
        clients = f", clientcas: [{self._client_authority}]" if self._client_authority else ""
        return f", tls: {{certificate: {self._certificate.path}, key: {self._certificate.key}{clients}}}"

    @staticmethod
    def _password_line(name: str, password: str) -> bytes:
        return subprocess.run((find_program("htpasswd"), "-nbB", name, password), check=True, capture_output=True).stdout.strip() + b"\n"
