from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from layerwright.errors import Cancelled, MachineLacks
from layerwright.registry.credential_helper import Helper
from layerwright.registry.credentials import Credentials
from layerwright.registry.errors import RegistryError
from tests.registry.test_auth import add_helper

LOGIN = Credentials(username="ann", password="hunter2")


def helper(directory: Path, script: str, timeout_s: float = 20.0) -> Helper:
    return Helper(name="box", config="/x/config.json", env=add_helper(directory, "box", script), timeout_s=timeout_s)


def test_a_login_is_stored_as_helpers_want_it(tmp_path: Path) -> None:
    box = helper(tmp_path, f'[ "$1" = store ] && cat >{tmp_path}/login')
    box.store("r.example", LOGIN)
    assert json.loads((tmp_path / "login").read_text()) == {"ServerURL": "r.example", "Username": "ann", "Secret": "hunter2"}
    box.store("r.example", Credentials(identity_token="token"))
    assert json.loads((tmp_path / "login").read_text()) == {"ServerURL": "r.example", "Username": "<token>", "Secret": "token"}


def test_what_is_not_there_need_not_be_erased(tmp_path: Path) -> None:
    helper(tmp_path, f'cat >{tmp_path}/"$1"').erase("r.example")
    assert (tmp_path / "erase").read_text() == "r.example"
    helper(tmp_path, "cat >/dev/null; echo credentials not found in native keychain; exit 1").erase("r.example")


def test_the_words_of_a_helper_are_told_without_the_secret(tmp_path: Path) -> None:
    box = helper(tmp_path, "cat >/dev/null; echo no room for hunter2; echo key ring locked >&2; exit 3")
    with pytest.raises(
        RegistryError, match=r"r\.example, store: .*docker-credential-box failed with exit code 3: no room for \*\*\* key ring locked"
    ) as caught:
        box.store("r.example", LOGIN)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(RegistryError, match="key ring locked"):
        box.erase("r.example")


def test_an_answer_is_not_shown_with_the_failure(tmp_path: Path) -> None:
    box = helper(tmp_path, 'cat >/dev/null; echo \'{"Username": "ann", "Secret": "hunter2"}\'; echo late failure >&2; exit 1')
    with pytest.raises(RegistryError, match="late failure") as caught:
        box.get("r.example")
    assert "hunter2" not in str(caught.value)


def test_a_helper_that_hangs_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"docker-credential-box gave no answer within 0\.2 s"):
        helper(tmp_path, "exec sleep 60", timeout_s=0.2).get("r.example")


def test_nobody_waits_for_a_helper_when_it_is_stopped(tmp_path: Path) -> None:
    until = time.monotonic() + 0.2
    box = replace(helper(tmp_path, "exec sleep 60"), cancelled=lambda: time.monotonic() > until)
    with pytest.raises(Cancelled):
        box.get("r.example")
    assert time.monotonic() - until < 10


def test_a_helper_that_is_missing_is_named(tmp_path: Path) -> None:
    box = Helper(name="nosuch", config="/x/config.json", env={"PATH": str(tmp_path)}, timeout_s=1)
    with pytest.raises(MachineLacks, match="docker-credential-nosuch") as caught:
        box.store("r.example", LOGIN)
    assert "/x/config.json" in caught.value.mend
