"""Where a registry's login is found: Docker's config.json, Podman's auth.json, and the credential helpers they name.

Source: docker/cli config.json ("auths", "credsStore", "credHelpers"); containers-auth.json(5).
"""

from __future__ import annotations

import binascii
import json
import os
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from layerwright.errors import UsageError
from layerwright.registry.config_files import below, user_config_dir
from layerwright.registry.credential_helper import Helper
from layerwright.registry.credentials import Credentials
from layerwright.registry.endpoint import auth_keys

HELPER_TIMEOUT_S = 60.0  # somebody may have to unlock a key ring


def config_path(config_dir: str, env: Mapping[str, str]) -> str:
    """Docker's config.json: in `config_dir`, else where DOCKER_CONFIG says, else in ~/.docker; "" where there is no home."""
    directory = config_dir or env.get("DOCKER_CONFIG", "")
    if not directory and env.get("HOME"):
        directory = os.path.join(env["HOME"], ".docker")
    return os.path.join(directory, "config.json") if directory else ""


def login_files(config_dir: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """The files that are asked for a login, in this order: Docker's, then Podman's (REGISTRY_AUTH_FILE alone if it is set)."""
    docker = config_path(config_dir, env)
    if named := env.get("REGISTRY_AUTH_FILE", ""):
        return (*((docker,) if docker else ()), named)
    runtime_dir = env.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    podman = (os.path.join(runtime_dir, "containers", "auth.json") if env.get("XDG_RUNTIME_DIR") else os.path.join(runtime_dir, "auth.json"),)
    return (*((docker,) if docker else ()), *podman, *below(user_config_dir(env), "containers", "auth.json"))


def credentials(
    config_dir: str,
    registry: str,
    *,
    env: Mapping[str, str],
    repository: str = "",
    helper_timeout_s: float = HELPER_TIMEOUT_S,
    cancelled: Callable[[], bool] | None = None,
) -> Credentials | None:
    """The login for `registry` ("docker.io", "host:port"), or for a repository of it; None without one.

    The first file that has one counts. In a file a helper of the registry's own goes before the common store, and that before what the file holds.
    Raises UsageError for a file that cannot be read, RegistryError for a helper that fails or hangs, MachineLacks for one that is not there.
    """
    for path in login_files(config_dir, env):
        config = read_config(path)
        if name := helper_for(config, registry):
            helper = Helper(name=name, config=path, env=env, timeout_s=helper_timeout_s, cancelled=cancelled)
            if (found := helper.get(auth_keys(registry)[0])) is not None:
                return found
        if (found := _from_file(_object(config, "auths", path), registry, repository, path)) is not None:
            return found
    return None


def read_config(path: str) -> dict[str, Any]:
    """The whole object of a file with logins, {} if there is none. Raises UsageError, which shows nothing of what it holds."""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(
            f"cannot read the registry logins: {error.strerror}", where=path, mend="make the file readable, or name another directory with DOCKER_CONFIG"
        ) from error
    mend = "correct the file, or delete it and log in again"
    try:
        config = json.loads(content) if content.strip() else {}
    except json.JSONDecodeError as error:  # its text could hold a part of a secret, its place does not
        raise UsageError("the registry logins are not a JSON object", where=f"{path}:{error.lineno}", mend=mend) from None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise UsageError("the registry logins are not a JSON object", where=path, mend=mend)
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


def keys_of(auths: Mapping[str, Any], registry: str, repository: str = "") -> Iterator[str]:
    """The keys of `auths` that mean the registry, the best first: of a part of it that holds the repository, its plain name, an address with its name."""
    path = repository
    while path:
        yield from (key for host in _names(registry) if (key := f"{host}/{path}") in auths)
        path = path.rpartition("/")[0]
    wanted = auth_keys(registry)
    yield from (key for key in wanted if key in auths)
    yield from (key for key in auths if key not in wanted and _host(key) in wanted)


def _names(registry: str) -> tuple[str, ...]:
    return tuple(key for key in auth_keys(registry) if "://" not in key)


def _host(key: str) -> str:
    """The host of a key written as an address: "https://host:port/v1/" is "host:port"; "" of one that means a part of a registry."""
    bare = key.removeprefix("https://").removeprefix("http://")
    host, _, path = bare.partition("/")
    return host if bare != key or path.strip("/") in ("", "v1", "v2") else ""


def _from_file(auths: Mapping[str, Any], registry: str, repository: str, path: str) -> Credentials | None:
    for key in keys_of(auths, registry, repository):
        raw = auths[key]
        if isinstance(raw, dict) and (found := _entry(raw, registry, path)) is not None:
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
            mend = f"log in again (layerwright cr login {registry}), which rewrites it"
            raise UsageError(f"the login for {registry} is not USER:PASSWORD in base64", where=path, mend=mend) from None
    found = Credentials(
        username=username,
        password=password,
        identity_token=str(raw.get("identitytoken") or ""),
        registry_token=str(raw.get("registrytoken") or ""),
        source=path,
    )
    return found if found.username or found.secrets() else None


def _object(config: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    raw = config.get(key) or {}
    if not isinstance(raw, dict):
        raise UsageError(f"{key} is not an object", where=path, mend="correct the file, or delete it and log in again")
    return raw
