from __future__ import annotations

import json
import os
import stat
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from layerwright.errors import MachineLacks, UsageError
from layerwright.registry.account import forget, keep, prove, registry_of
from layerwright.registry.credentials import Credentials
from layerwright.registry.errors import RegistryError, Unauthorized
from layerwright.registry.options import RegistryOptions
from tests.registry.faulty import FaultyServer, Say
from tests.registry.images import quick
from tests.registry.test_auth import add_helper, write

LOGIN = Credentials(username="ann", password="hunter2")
BASIC = b64encode(b"ann:hunter2").decode()


@pytest.mark.parametrize(
    ("text", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("", "docker.io"),
        ("r.example", "r.example"),
        ("https://r.example:5000/v2/", "r.example:5000"),
        ("http://r.example/team/app", "r.example"),
        ("mirror", "mirror"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_which_registry_is_meant(text: str, registry: str) -> None:
    assert registry_of(text) == registry


@pytest.mark.parametrize("text", ["a b", "https://", "ann:pass@r.example"])
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a registry"):
        registry_of(text)


def test_a_login_is_shown_to_the_registry(faulty: FaultyServer) -> None:
    refused = Say(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}, body=b'{"errors": [{"code": "UNAUTHORIZED", "message": "no such user"}]}')
    faulty.on("GET /v2/", lambda asked: Say() if asked.headers.get("authorization") == f"Basic {BASIC}" else refused)
    assert prove(quick(), faulty.address, LOGIN)
    with pytest.raises(Unauthorized, match=r"cannot log in: .*no such user") as caught:
        prove(quick(), faulty.address, Credentials(username="ann", password="mistaken"))
    assert "mistaken" not in str(caught.value)
    assert "check the user name and the password" in caught.value.mend


def test_a_login_is_shown_to_the_token_server(faulty: FaultyServer, storage: FaultyServer) -> None:
    refused = Say(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{storage.address}/token",service="s"'})
    faulty.on("GET /v2/", lambda asked: Say() if asked.headers.get("authorization") == "Bearer t" else refused)
    storage.on("GET /token", Say(body=b'{"token": "t"}'))
    assert prove(quick(), faulty.address, LOGIN)
    assert storage.asked[0].headers["authorization"] == f"Basic {BASIC}"
    storage.on("GET /token", Say(status=401, body=b'{"details": "incorrect username or password"}'))
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        prove(quick(), faulty.address, LOGIN)


def test_a_registry_that_asks_nobody_and_one_that_is_none(faulty: FaultyServer) -> None:
    faulty.on("GET /v2/", Say())
    assert not prove(quick(), faulty.address, LOGIN)
    faulty.on("GET /v2/", Say(status=404))
    with pytest.raises(RegistryError, match="answers 404"):
        prove(quick(), faulty.address, LOGIN)
    faulty.on("GET /v2/", Say(status=401, headers={"WWW-Authenticate": "Negotiate"}))
    with pytest.raises(Unauthorized):
        prove(quick(), faulty.address, LOGIN)


def options(directory: Path, **changes: Any) -> RegistryOptions:
    return quick(config_dir=str(directory), **changes)


def read(directory: Path) -> Any:
    return json.loads((directory / "config.json").read_text())


def test_a_login_is_kept_beside_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, {"x": [1], "auths": {"a.example": {"auth": "eDp5"}, "https://r.example/v1/": {"auth": "b2xkOm9sZA=="}, "r.example/team": {"auth": "eDp5"}}})
    (tmp_path / "config.json").chmod(0o644)
    assert keep(options(tmp_path), "r.example", LOGIN) == str(tmp_path / "config.json")
    assert read(tmp_path) == {"x": [1], "auths": {"a.example": {"auth": "eDp5"}, "r.example/team": {"auth": "eDp5"}, "r.example": {"auth": BASIC}}}
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["config.json"]
    forget(options(tmp_path), "r.example")
    assert list(read(tmp_path)["auths"]) == ["a.example", "r.example/team"]


def test_docker_hub_has_its_key(tmp_path: Path) -> None:
    keep(options(tmp_path / "new"), "docker.io", LOGIN)
    assert read(tmp_path / "new") == {"auths": {"https://index.docker.io/v1/": {"auth": BASIC}}}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere", {})
    (tmp_path / "config.json").symlink_to("elsewhere/config.json")
    keep(options(tmp_path), "r.example", LOGIN)
    assert (tmp_path / "config.json").is_symlink()
    assert "r.example" in read(tmp_path)["auths"]


def test_logins_at_once_do_not_lose_one_another(tmp_path: Path) -> None:
    threads = [threading.Thread(target=keep, args=(options(tmp_path), f"r{number}.example", LOGIN)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(read(tmp_path)["auths"]) == 8


def test_a_helper_keeps_it_and_the_file_only_says_that_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, {"credsStore": "box", "auths": {"r.example": {"auth": BASIC}}})
    env = add_helper(tmp_path, "box", f"cat >{tmp_path}/$1")
    assert keep(options(tmp_path, env=env), "r.example", LOGIN) == "docker-credential-box"
    assert read(tmp_path) == {"credsStore": "box", "auths": {"r.example": {}}}
    assert "hunter2" in (tmp_path / "store").read_text()
    add_helper(tmp_path, "box", f"cat >{tmp_path}/$1; test $1 = erase || {{ echo credentials not found; exit 1; }}")
    assert forget(options(tmp_path, env=env), "r.example") is None
    assert (tmp_path / "erase").read_text() == "r.example"
    assert read(tmp_path) == {"credsStore": "box", "auths": {}}


def test_nothing_is_kept_by_a_helper_that_fails(tmp_path: Path) -> None:
    before = {"credsStore": "box", "auths": {"r.example": {"auth": BASIC}}}
    write(tmp_path, before)
    with pytest.raises(RegistryError):
        keep(options(tmp_path, env=add_helper(tmp_path, "box", "cat >/dev/null; exit 2")), "r.example", LOGIN)
    assert read(tmp_path) == before


def test_a_login_that_another_file_has_is_told(tmp_path: Path) -> None:
    write(tmp_path, {})
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"r.example": {"auth": BASIC}}}))
    left = forget(options(tmp_path, env={"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}), "r.example")
    assert left is not None
    assert left.source == str(tmp_path / "auth.json")
    assert read(tmp_path) == {}


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineLacks, match="cannot keep logins there"):
        keep(options(tmp_path / "file"), "r.example", LOGIN)
    with pytest.raises(UsageError, match="HOME is not set"):
        keep(quick(config_dir=""), "r.example", LOGIN)


@pytest.mark.needs_root
def test_what_root_changes_for_somebody_stays_theirs(tmp_path: Path) -> None:
    write(tmp_path, {})
    os.chown(tmp_path / "config.json", 4321, 4321)
    keep(options(tmp_path), "r.example", LOGIN)
    there = (tmp_path / "config.json").stat()
    assert (there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode)) == (4321, 4321, 0o600)
