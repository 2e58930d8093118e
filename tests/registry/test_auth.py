from __future__ import annotations

import json
import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from layerwright.errors import LayerwrightError, MachineLacks, UsageError
from layerwright.registry.auth import config_path, credentials, login_files
from layerwright.registry.credentials import Credentials
from layerwright.registry.errors import RegistryError


def basic(text: str) -> str:
    return b64encode(text.encode()).decode()


def write(directory: Path, config: Any) -> Path:
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return directory


def add_helper(directory: Path, name: str, script: str) -> dict[str, str]:
    """An environment whose PATH has one credential helper besides the system's programs."""
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


def look(directory: Path, registry: str, env: dict[str, str] | None = None) -> tuple[str, str] | None:
    found = credentials(str(directory), registry, env=env or {})
    return None if found is None else (found.username, found.password)


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry.example:5000", "registry.example:5000"),
        ("https://registry.example:5000", "registry.example:5000"),
        ("http://registry.example/v2/", "registry.example"),
    ],
)
def test_a_login_is_found_however_its_key_is_written(tmp_path: Path, key: str, registry: str) -> None:
    write(tmp_path, {"auths": {key: {"auth": basic("ann:a:b")}}})
    assert look(tmp_path, registry) == ("ann", "a:b")
    assert look(tmp_path, "other.example") is None


def test_the_exact_key_goes_first(tmp_path: Path) -> None:
    write(tmp_path, {"auths": {"https://r.example/v1/": {"auth": basic("old:x")}, "r.example": {"username": "new", "password": "y"}}})
    assert look(tmp_path, "r.example") == ("new", "y")


def test_no_file_and_an_empty_entry_are_no_login(tmp_path: Path) -> None:
    assert look(tmp_path, "r.example") is None
    assert look(tmp_path / "nothing", "r.example") is None
    write(tmp_path, {"auths": {"r.example": {}}})
    assert look(tmp_path, "r.example") is None


def test_tokens_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"auths": {"a.example": {"identitytoken": "id"}, "b.example": {"registrytoken": "reg"}}})
    assert credentials(str(tmp_path), "a.example", env={}) == Credentials(identity_token="id", source=str(tmp_path / "config.json"))
    assert credentials(str(tmp_path), "b.example", env={}) == Credentials(registry_token="reg", source=str(tmp_path / "config.json"))


def test_where_the_file_is() -> None:
    assert config_path("/a", {"DOCKER_CONFIG": "/b", "HOME": "/c"}) == "/a/config.json"
    assert config_path("", {"DOCKER_CONFIG": "/b", "HOME": "/c"}) == "/b/config.json"
    assert config_path("", {"HOME": "/c"}) == "/c/.docker/config.json"
    assert config_path("", {}) == ""


@pytest.mark.parametrize(
    "text", ['{"auths": {"r.example": {"auth": "c2VjcmV0"', "[]", '{"auths": []x', '{"auths": ["secret"]}', '{"auths": {"r.example": {"auth": "not base64"}}}']
)
def test_a_damaged_file_is_told_without_its_contents(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        look(tmp_path, "r.example")
    assert caught.value.where.partition(":")[0] == str(tmp_path / "config.json")
    assert "c2VjcmV0" not in str(caught.value)


def test_repr_shows_no_secret() -> None:
    shown = repr(Credentials(username="ann", password="hunter2", identity_token="hunter3", registry_token="hunter4"))
    assert "ann" in shown
    assert "hunter" not in shown


def test_the_common_store_is_asked_with_the_registrys_key(tmp_path: Path) -> None:
    write(tmp_path, {"credsStore": "box"})
    env = add_helper(tmp_path, "box", f'[ "$1" = get ] && cat >{tmp_path}/asked && echo \'{{"Username": "ann", "Secret": "s"}}\'')
    assert look(tmp_path, "docker.io", env) == ("ann", "s")
    assert (tmp_path / "asked").read_text() == "https://index.docker.io/v1/"


def test_a_helper_of_its_own_goes_before_the_common_store_and_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"credsStore": "nosuch", "credHelpers": {"r.example": "own"}, "auths": {"r.example": {"auth": basic("file:x")}}})
    env = add_helper(tmp_path, "own", 'cat >/dev/null; echo \'{"Username": "<token>", "Secret": "t"}\'')
    found = credentials(str(tmp_path), "r.example", env=env)
    assert found is not None
    assert found.identity_token == "t"


def test_a_helper_that_knows_nothing_leaves_it_to_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"credsStore": "box", "auths": {"r.example": {"auth": basic("file:x")}}})
    env = add_helper(tmp_path, "box", "cat >/dev/null; echo credentials not found in native keychain; exit 1")
    assert look(tmp_path, "r.example", env) == ("file", "x")


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("echo locked >&2; exit 2", RegistryError, "docker-credential-box failed"),
        ("echo hello", RegistryError, "gave no Username and Secret"),
        ('echo \'{"Secret": "hunter2"}\'', RegistryError, "gave no Username and Secret"),
    ],
)
def test_a_helper_that_fails_is_told(tmp_path: Path, script: str, error: type[LayerwrightError], said: str) -> None:
    write(tmp_path, {"credsStore": "box"})
    with pytest.raises(error, match=said) as caught:
        look(tmp_path, "r.example", add_helper(tmp_path, "box", f"cat >/dev/null; {script}"))
    assert "hunter2" not in str(caught.value)


def test_a_helper_that_is_not_there_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"credsStore": "desktop"})
    with pytest.raises(MachineLacks, match="docker-credential-desktop") as caught:
        look(tmp_path, "r.example", {"PATH": str(tmp_path)})
    assert "config.json" in caught.value.mend


def test_a_helper_is_a_name_not_a_path(tmp_path: Path) -> None:
    write(tmp_path, {"credsStore": "../evil"})
    with pytest.raises(UsageError, match="not the name of a credential helper"):
        look(tmp_path, "r.example", {"PATH": "/usr/bin"})


def test_dockers_login_goes_before_podmans(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    files = login_files("", env)
    assert files == (f"{tmp_path}/home/.docker/config.json", f"{tmp_path}/run/containers/auth.json", f"{tmp_path}/home/.config/containers/auth.json")
    for number, path in reversed(list(enumerate(files))):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(json.dumps({"auths": {"r.example": {"auth": basic(f"u{number}:p")}}}))
        found = credentials("", "r.example", env=env)
        assert found is not None
        assert (found.username, found.source) == (f"u{number}", path)
    named = str(tmp_path / "named.json")
    assert login_files("/dir", {**env, "REGISTRY_AUTH_FILE": named}) == ("/dir/config.json", named)
    assert login_files("", {})[-1] == f"/run/containers/{os.getuid()}/auth.json"


@pytest.mark.parametrize(
    ("repository", "user"), [("team/app", "app"), ("team/app/sub", "app"), ("team/other", "team"), ("teams/x", "all"), ("x", "all"), ("", "all")]
)
def test_a_part_of_a_registry_may_have_a_login_of_its_own(tmp_path: Path, repository: str, user: str) -> None:
    keys = {"r.example": "all", "r.example/team": "team", "r.example/team/app": "app"}
    write(tmp_path, {"auths": {key: {"auth": basic(f"{name}:p")} for key, name in keys.items()}})
    found = credentials(str(tmp_path), "r.example", env={}, repository=repository)
    assert found is not None
    assert found.username == user


def test_a_login_for_a_part_is_not_for_the_rest(tmp_path: Path) -> None:
    write(tmp_path, {"auths": {"r.example/team": {"auth": basic("team:p")}, "docker.io/library": {"auth": basic("hub:p")}}})
    assert look(tmp_path, "r.example") is None
    found = credentials(str(tmp_path), "docker.io", env={}, repository="library/alpine")
    assert found is not None
    assert found.username == "hub"
