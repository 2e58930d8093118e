"""Logging in and out: proving a login to the registry, and keeping or removing it where Docker keeps its own."""

from __future__ import annotations

import fcntl
import json
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from layerwright.errors import MachineLacks, UsageError
from layerwright.host.files import NotWritable, replacing
from layerwright.oci.reference import Reference, parse_reference, without_login
from layerwright.registry.auth import config_path, credentials, helper_for, keys_of, read_config
from layerwright.registry.config_files import without_scheme
from layerwright.registry.credential_helper import Helper
from layerwright.registry.credentials import Credentials
from layerwright.registry.doors import Doors
from layerwright.registry.endpoint import HUB, Endpoint, auth_keys
from layerwright.registry.errors import RegistryError
from layerwright.registry.hosts import Hosts
from layerwright.registry.http import Answer, Http
from layerwright.registry.login import Login, parse_challenges
from layerwright.registry.options import RegistryOptions
from layerwright.registry.refusal import refusal
from layerwright.registry.retry import with_retries

_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")


def registry_of(text: str) -> str:
    """The registry that a user names: "host:port", an address, or "" for Docker Hub. Raises UsageError."""
    host = without_login(without_scheme(text)[1]).partition("/")[0]
    if not text or host in _HUB_NAMES:
        return HUB
    try:
        parse_reference(f"{host if ':' in host else f'{host}:443'}/x")
    except UsageError as error:
        raise UsageError(
            f"{host!r} is not a registry", where="REGISTRY", mend="write HOST or HOST:PORT; a login goes to --username and --password-stdin"
        ) from error
    return host


def prove(options: RegistryOptions, registry: str, login: Credentials) -> bool:
    """Log in at the registry; False if it asks nobody who he is. Raises Unauthorized and other RegistryErrors, in the registry's own words."""
    http = Http(options)
    try:
        return with_retries(lambda: _prove_once(options, http, registry, login), options)
    finally:
        http.close()


def _prove_once(options: RegistryOptions, http: Http, registry: str, given: Credentials) -> bool:
    hosts = Hosts(options)
    doors = Doors(options, http, hosts)
    route = hosts.origin(Reference(registry=registry, repository=""))
    door = doors.door(route)
    try:
        return _prove_there(options, http, door.endpoint, Login(door.endpoint, http, options, given=given, is_insecure=hosts.is_insecure))
    except RegistryError as error:
        if not doors.turns_to_tls(door, error):
            raise
    return _prove_there(options, http, door.endpoint, Login(door.endpoint, http, options, given=given, is_insecure=hosts.is_insecure))


def _prove_there(options: RegistryOptions, http: Http, endpoint: Endpoint, login: Login) -> bool:
    registry = endpoint.registry
    answer = _ask(http, endpoint, None)
    asked = answer.status == 401
    if asked:
        header = login.answer(parse_challenges(answer.headers("WWW-Authenticate")), Reference(registry=registry, repository=""), (), None, registry)
        if header is not None:
            answer.close()
            answer = _ask(http, endpoint, header)
    if answer.status != 200:
        raise refusal(answer, doing="log in", where=registry, login=login.advice(), secrets=login.secrets(), options=options)
    answer.close()
    return asked


def _ask(http: Http, endpoint: Endpoint, authorization: str | None) -> Answer:
    headers = {"Authorization": authorization} if authorization else {}
    return http.exchange("GET", f"{endpoint.base}/v2/", where=endpoint.registry, headers=headers, doing="log in", verify=endpoint.verify)


def keep(options: RegistryOptions, registry: str, login: Credentials) -> str:
    """Store a login: through the helper that the configuration names, else in the file itself. Returns where it is now. Raises LayerwrightError."""
    with _changed(options) as (path, config):
        auths = _auths(config, path)
        key = auth_keys(registry)[0]
        entry: dict[str, str] = {}
        if name := helper_for(config, registry):
            helper = _helper(name, path, options)
            helper.store(key, login)
        else:
            entry = {"auth": b64encode(f"{login.username}:{login.password}".encode()).decode()}
        for old in list(keys_of(auths, registry)):
            del auths[old]
        auths[key] = entry
    return f"docker-credential-{name}" if name else path


def forget(options: RegistryOptions, registry: str) -> Credentials | None:
    """Remove the logins of a registry from the helper and the file; returns one that another file still has. Raises LayerwrightError."""
    path = config_path(options.config_dir, options.env)
    config = read_config(path) if path else {}
    if name := helper_for(config, registry):
        for key in auth_keys(registry):
            _helper(name, path, options).erase(key)
    if list(keys_of(_auths(config, path), registry)):
        with _changed(options) as (path, config):
            auths = _auths(config, path)
            for old in list(keys_of(auths, registry)):
                del auths[old]
    try:
        return credentials(options.config_dir, registry, env=options.env, helper_timeout_s=options.helper_timeout_s)
    except (UsageError, RegistryError, MachineLacks):
        return None  # what another file says is no business of this command


def _helper(name: str, path: str, options: RegistryOptions) -> Helper:
    return Helper(name=name, config=path, env=options.env, timeout_s=options.helper_timeout_s)


def _auths(config: dict[str, Any], path: str) -> dict[str, Any]:
    auths = config.setdefault("auths", {})
    if not isinstance(auths, dict):
        raise UsageError("auths is not an object", where=path, mend="correct the file, or delete it and log in again")
    return auths


@contextmanager
def _changed(options: RegistryOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Docker's config.json, to be changed inside the block and then written whole, for nobody else to read. Two at once do not lose each other's change."""
    shown = config_path(options.config_dir, options.env)
    if not shown:
        raise UsageError("there is no place for logins: HOME is not set", where="config.json", mend="set HOME, or name a directory with --docker-config")
    path = os.path.realpath(shown)  # a link to a file elsewhere stays one
    directory = os.path.dirname(path)
    with _locked(directory):
        config = read_config(path)
        yield shown, config
        with replacing(path, mode=0o600) as out:
            _keep_owner(path, out.fileno())
            out.write(_encoded(config))


def _keep_owner(path: str, fd: int) -> None:
    """What root writes for somebody (sudo) stays theirs: nobody else may read the file."""
    with suppress(OSError):
        there = os.stat(path)
        if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, there.st_uid, there.st_gid)


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """A lock on the directory itself leaves no file behind; the kernel frees it."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        mend = "name a directory that you may write with --docker-config"
        raise NotWritable(f"cannot keep logins there: {error.strerror}", where=directory, mend=mend) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(fd)


def _encoded(config: Mapping[str, Any]) -> bytes:
    """As docker writes it, so that its next change is no change of form."""
    return (json.dumps(config, indent="\t", ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
