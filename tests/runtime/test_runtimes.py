from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerwright.errors import MachineLacks, UsageError
from layerwright.runtime import runtimes
from layerwright.runtime.runtimes import Refusal, find_runtimes, none_works


@pytest.fixture(autouse=True)
def only_the_path_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_ALSO_IN", ())


def program(directory: Path, name: str) -> str:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text("#!/bin/sh\n")
    (directory / name).chmod(0o755)
    return str(directory / name)


def test_crun_comes_before_runc(tmp_path: Path) -> None:
    program(tmp_path, "runc")
    program(tmp_path, "crun")
    assert [runtime.kind for runtime in find_runtimes(None, path=str(tmp_path))] == ["crun", "runc"]


def test_what_is_known_to_work_comes_first(tmp_path: Path) -> None:
    works = program(tmp_path, "runc")
    program(tmp_path, "crun")
    found = find_runtimes(None, path=str(tmp_path), works=lambda key: key.startswith(f"runtime:{works}:"))
    assert [runtime.kind for runtime in found] == ["runc", "crun"]


def test_another_file_under_the_same_path_has_another_key(tmp_path: Path) -> None:
    path = program(tmp_path, "crun")
    before = find_runtimes(None, path=str(tmp_path))
    os.utime(path, ns=(1, 1))
    assert find_runtimes(None, path=str(tmp_path))[0].key != before[0].key


@pytest.mark.parametrize(("name", "kind"), [("crun-1.20", "crun"), ("runc", "runc"), ("runsc", "other")])
def test_the_one_asked_for_is_the_only_one(tmp_path: Path, name: str, kind: str) -> None:
    program(tmp_path, "crun")
    path = program(tmp_path / "other", name)
    (found,) = find_runtimes(path, path=str(tmp_path))
    assert (found.path, found.kind) == (path, kind)
    assert find_runtimes(name, path=str(tmp_path / "other")) == (found,)


def test_one_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kata"):
        find_runtimes("kata", path=str(tmp_path))


def test_none_at_all_is_something_the_machine_lacks(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks) as lacks:
        find_runtimes(None, path=str(tmp_path))
    assert "apt-get install runc" in lacks.value.mend


def test_when_none_works_each_has_its_say(tmp_path: Path) -> None:
    program(tmp_path, "runc")
    program(tmp_path, "crun")
    crun, runc = find_runtimes(None, path=str(tmp_path))
    text = str(none_works([Refusal(runtime=crun, said="no cgroups"), Refusal(runtime=runc, said="no devices")]))
    assert f"{crun.path}: no cgroups" in text
    assert f"{runc.path}: no devices" in text
    assert "apt-get install runc" in text
