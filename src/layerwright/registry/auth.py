"""Logins as Docker keeps them: config.json and the credential helpers it names.

Source: docker/cli config.json ("auths", "credsStore", "credHelpers") and docker-credential-helpers ("get").
"""

from __future__ import annotations

import binascii
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layerwright.errors import MachineLacks, UsageError
from layerwright.host.run import CommandFailed, run
from layerwright.registry.endpoint import auth_keys
from layerwright.registry.errors import RegistryError

_MISSING = "credentials not found"  # what helpers say, on stdout and with exit code 1
_TOKEN_USER = "<token>"  # a helper's user name when its secret is an identity token


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


def config_path(config_dir: str, env: Mapping[str, str]) -> str:
    """Docker's config.json: in `config_dir`, else where DOCKER_CONFIG says, else in ~/.docker; "" where there is no home."""
    directory = config_dir or env.get("DOCKER_CONFIG", "")
    if not directory and env.get("HOME"):
        directory = os.path.join(env["HOME"], ".docker")
    return os.path.join(directory, "config.json") if directory else ""


def credentials(config_dir: str, registry: str, *, env: Mapping[str, str]) -> Credentials | None:
    """The login for `registry` ("docker.io", "host:port"), None without one. A helper of its own goes before the common store, and that before the file.

    Raises UsageError for a config.json that cannot be read, RegistryError for a helper that fails, MachineLacks for one that is not there.
    """
    path = config_path(config_dir, env)
    config = read_config(path)
    if (helper := helper_for(config, registry)) and (found := _ask_helper(helper, registry, path, env)):
        return found
    return _from_file(_object(config, "auths", path), registry, path)


def read_config(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(
            f"cannot read the registry logins: {error.strerror}", where=path, mend="make the file readable, or name another directory with DOCKER_CONFIG"
        ) from error
    try:
        config = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError):
        config = None  # the text of the error could hold a part of a secret
    if not isinstance(config, dict):
        raise UsageError("the registry logins are not a JSON object", where=path, mend="correct the file, or delete it and log in again")
    return config


def helper_for(config: Mapping[str, Any], registry: str) -> str:
    """The suffix of the helper program for a registry, "" if it has none."""
    helpers = config.get("credHelpers")
    if isinstance(helpers, dict):
        for key in auth_keys(registry):
            if isinstance(named := helpers.get(key), str) and named:
                return named
    common = config.get("credsStore")
    return common if isinstance(common, str) else ""


def _ask_helper(helper: str, registry: str, path: str, env: Mapping[str, str]) -> Credentials | None:
    program = f"docker-credential-{helper}"
    mend = f"install or mend it, or take it out of {path} and log in again"
    if "/" in helper:
        raise UsageError(f"{helper!r} is not the name of a credential helper", where=path, mend="write the part after docker-credential-")
    try:
        answer = run([program, "get"], env=env, stdin=auth_keys(registry)[0].encode())
    except CommandFailed as error:
        if _MISSING in str(error) or (error.code == 1 and not error.stderr):
            return None
        raise RegistryError(f"the credential helper {program} failed: {error.what}", where=registry, mend=mend) from error
    except MachineLacks as error:
        raise MachineLacks(error.what, where=registry, mend=mend) from error
    return _helper_answer(answer, program, registry, mend)


def _helper_answer(answer: bytes, program: str, registry: str, mend: str) -> Credentials | None:
    try:
        said = json.loads(answer)
        username, secret = str(said["Username"]), str(said["Secret"])
    except (ValueError, KeyError, TypeError):
        raise RegistryError(f"the credential helper {program} gave no Username and Secret", where=registry, mend=mend) from None
    if not secret:
        return None
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret, source=program)
    return Credentials(username=username, password=secret, source=program)


def _from_file(auths: Mapping[str, Any], registry: str, path: str) -> Credentials | None:
    wanted = auth_keys(registry)
    by_host = {_host(key): value for key, value in auths.items()}
    for raw in (*(auths.get(key) for key in wanted), *(by_host.get(key) for key in wanted)):
        if isinstance(raw, dict) and (found := _entry(raw, registry, path)):
            return found
    return None


def _entry(raw: Mapping[str, Any], registry: str, path: str) -> Credentials | None:
    username, password = str(raw.get("username") or ""), str(raw.get("password") or "")
    if auth := str(raw.get("auth") or ""):
        try:
            username, colon, password = b64decode(auth, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise UsageError(
                f"the login for {registry} is not USER:PASSWORD in base64", where=path, mend="log in again (docker login), which rewrites it"
            ) from None
    found = Credentials(
        username=username,
        password=password,
        identity_token=str(raw.get("identitytoken") or ""),
        registry_token=str(raw.get("registrytoken") or ""),
        source=path,
    )
    return found if found.username or found.secrets() else None


def _host(key: str) -> str:
    """The host of a key written as an address: "https://host:port/v1/" is "host:port"."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _object(config: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    raw = config.get(key) or {}
    if not isinstance(raw, dict):
        raise UsageError(f"{key} is not an object", where=path, mend="correct the file, or delete it and log in again")
    return raw
