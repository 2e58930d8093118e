"""One login for a registry."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One login. Its secrets stay out of `repr`; `source` says where it was found."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)  # exchanged for bearer tokens (OAuth2 refresh token)
    registry_token: str = field(default="", repr=False)  # a bearer token to send as it is
    source: str = ""

    def basic(self) -> str:
        """The Authorization header of the Basic scheme."""
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode()

    def secrets(self) -> tuple[str, ...]:
        return tuple(one for one in (self.password, self.identity_token, self.registry_token) if one)
