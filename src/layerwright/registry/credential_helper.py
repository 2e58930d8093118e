"""The programs that keep logins: docker-credential-NAME. Source: docker/docker-credential-helpers, "Development" (get, store, erase)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layerwright.errors import Cancelled, MachineLacks, UsageError
from layerwright.host.run import Process
from layerwright.registry.credentials import Credentials
from layerwright.registry.errors import RegistryError
from layerwright.registry.texts import one_line, scrubbed

TOKEN_USER = "<token>"  # a helper's user name when its secret is an identity token
_MISSING = "credentials not found"  # what helpers say, on stdout and with exit code 1
_LAST_LINES = 3
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """One helper program. `config`: the file that names it; `env`: the whole environment it runs in."""

    name: str  # the part after docker-credential-
    config: str
    env: Mapping[str, str]
    timeout_s: float
    cancelled: Callable[[], bool] | None = None

    @property
    def program(self) -> str:
        return f"docker-credential-{self.name}"

    def get(self, server: str) -> Credentials | None:
        """What the program knows for `server`. Raises RegistryError, MachineLacks, UsageError."""
        code, said = self._run("get", server, server.encode())
        if code:
            if _MISSING in said or not said:
                return None
            raise self._failed("get", server, f"failed with exit code {code}: {said}")
        return self._read(said, server)

    def store(self, server: str, login: Credentials) -> None:
        """Let the program keep the login. Raises as `get` does."""
        secret = login.identity_token or login.password
        username = TOKEN_USER if login.identity_token else login.username
        content = json.dumps({"ServerURL": server, "Username": username, "Secret": secret}).encode()
        code, said = self._run("store", server, content)
        if code:
            raise self._failed("store", server, f"failed with exit code {code}: {scrubbed(said, (*login.secrets(), login.basic()[6:]))}")

    def erase(self, server: str) -> None:
        """Let the program forget the login, if it has one. Raises as `get` does."""
        code, said = self._run("erase", server, server.encode())
        if code and _MISSING not in said:
            raise self._failed("erase", server, f"failed with exit code {code}: {said}")

    def _run(self, action: str, server: str, stdin: bytes) -> tuple[int, str]:
        """Exit code and output: stdout if it is 0, else what was said on both; helpers tell of failures on stdout."""
        if "/" in self.name:
            raise UsageError(f"{self.name!r} is not the name of a credential helper", where=self.config, mend="write the part after docker-credential-")
        try:
            with Process((self.program, action), env=self.env, stdin=stdin, stdout="memory") as process:
                code = self._await_end(process)
                if code is None:
                    raise self._failed(action, server, f"gave no answer within {self.timeout_s:g} s")
                output = process.output().decode("utf-8", "replace")
                return code, output if code == 0 else _last_words((output, process.last_words()))
        except MachineLacks as error:
            raise MachineLacks(error.what, where=server, mend=self._mend()) from error

    def _await_end(self, process: Process) -> int | None:
        """Its exit code, None if it takes too long. Raises Cancelled."""
        until = time.monotonic() + self.timeout_s
        while (left_s := until - time.monotonic()) > 0:
            if (code := process.wait(min(left_s, _LOOK_S))) is not None:
                return code
            if self.cancelled is not None and self.cancelled():
                raise Cancelled(f"stopped while waiting for {self.program}")
        return None

    def _read(self, output: str, server: str) -> Credentials | None:
        try:
            said = json.loads(output)
            username, secret = str(said["Username"]), str(said["Secret"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._failed("get", server, "gave no Username and Secret") from None  # the text of the error could hold a secret
        if not secret:
            return None
        if username == TOKEN_USER:
            return Credentials(identity_token=secret, source=self.program)
        return Credentials(username=username, password=secret, source=self.program)

    def _failed(self, action: str, server: str, why: str) -> RegistryError:
        return RegistryError(f"the credential helper {self.program} {why}", where=f"{server}, {action}", mend=self._mend())

    def _mend(self) -> str:
        return f"install or mend {self.program}, or take it out of {self.config} and log in again"


def _last_words(texts: Sequence[str]) -> str:
    """The end of what a failed program said; what looks like its answer is left out: it may hold the secret."""
    lines = [line for text in texts for line in text.strip().splitlines()[-_LAST_LINES:] if not line.lstrip().startswith(("{", '"', "}"))]
    return one_line(" ".join(lines))
