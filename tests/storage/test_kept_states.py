"""Kept states: whole or not there, few, and removed by nobody while somebody is in one."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from layerwright.host.locks import release, try_lock
from layerwright.oci.digest import DiffId
from layerwright.storage.kept_states import KEPT_MS, MOST_KEPT, Failure, KeptState, StateGone, StateInUse
from layerwright.storage.local import LocalStore

LAYER = DiffId("sha256:" + "a" * 64)
NOW_MS = time.time_ns() // 1_000_000
STATE = KeptState(
    moment="error",
    project="shop",
    image="back/api",
    stage="install",
    commit="c" * 40,
    kept_ms=NOW_MS,
    size_bytes=5,
    flavour="root",
    layers=(LAYER,),
    env=("PATH=/bin", "ODD=\udcff"),
    mounts=(("tmp_dir", "/scratch"),),
    network="host",
    runtime="/usr/bin/crun",
    shell="/bin/sh",
    commands=("true", "false"),
    failure=Failure(what="`false` failed", where="werf.yaml:3", status=1, command=1),
    cwd="/srv",
    exports="export A='b'\n",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(str(tmp_path / "home")) as store:
        yield store


def made(tmp_path: Path) -> str:
    (tmp_path / "made" / "upper").mkdir(parents=True)
    (tmp_path / "made" / "upper" / "file").write_text("x")
    return str(tmp_path / "made")


def test_a_state_is_found_as_it_was_kept(store: LocalStore, tmp_path: Path) -> None:
    kept = store.kept_states.keep(STATE, made(tmp_path))
    assert kept == replace(STATE, id=kept.id)
    assert kept.id.startswith("back-api-install-")
    assert store.kept_states.find(kept.id) == kept
    assert store.kept_states.all() == (kept,)
    assert store.kept_states.layers() == {LAYER}
    assert Path(store.kept_states.path(kept.id), "upper", "file").read_text() == "x"
    assert Path(store.kept_states.path(kept.id)).stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("image", "stage", "begins"),
    [
        ("", "install", "install-"),
        ("A_B", "from", "a-b-from-"),
        ("ü" * 9, "setup", "setup-"),
        ("x" * 99, "setup", "x" * 34 + "-setup-"),
        ("..", "from", "from-"),
    ],
)
def test_ids_are_short_and_plain(store: LocalStore, image: str, stage: str, begins: str) -> None:
    kept = store.kept_states.keep(replace(STATE, image=image, stage=stage))
    assert kept.id[:-4] == begins
    assert store.kept_states.find(kept.id) is not None


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "A", "-x", "x" * 65])
def test_what_is_no_id_is_not_looked_for(store: LocalStore, name: str) -> None:
    assert store.kept_states.find(name) is None


def test_the_oldest_go_when_there_are_too_many_and_so_do_old_ones(store: LocalStore) -> None:
    kept = [store.kept_states.keep(replace(STATE, kept_ms=NOW_MS + number)).id for number in range(MOST_KEPT + 2)]
    assert [state.id for state in store.kept_states.all()] == kept[2:]
    old = store.kept_states.keep(replace(STATE, kept_ms=NOW_MS - KEPT_MS - 1000))
    assert old.id in {state.id for state in store.kept_states.all()}, "what was just kept stays until the next time"
    assert old.id in store.kept_states.prune()
    assert old.id not in {state.id for state in store.kept_states.all()}


def test_what_cannot_be_read_is_no_state_and_goes_when_it_is_old(store: LocalStore) -> None:
    damaged, other = (store.kept_states.keep(STATE).id for _ in range(2))
    path = Path(store.kept_states.path(damaged))
    (path / "state.json").write_text((path / "state.json").read_text().replace("shop", "shoq"))
    assert [state.id for state in store.kept_states.all()] == [other]
    assert store.kept_states.prune() == ()
    os.utime(path, (1, 1))
    assert store.kept_states.prune() == (damaged,)
    assert not path.exists()


def test_a_state_of_another_version_is_left_alone(store: LocalStore) -> None:
    from layerwright.storage.seals import sealed

    kept = store.kept_states.keep(STATE)
    path = Path(store.kept_states.path(kept.id), "state.json")
    content = json.loads(path.read_text().splitlines()[0]) | {"schema": 99}
    path.write_bytes(sealed("state.json", json.dumps(content).encode()))
    assert store.kept_states.find(kept.id) is None
    assert store.kept_states.prune() == ()
    assert path.exists()


def test_nobody_removes_a_state_that_somebody_is_in(store: LocalStore) -> None:
    kept = store.kept_states.keep(STATE)
    with store.kept_states.held(kept.id), store.kept_states.held(kept.id):
        with pytest.raises(StateInUse, match="is in use"):
            store.kept_states.remove(kept.id)
        for number in range(MOST_KEPT):
            store.kept_states.keep(replace(STATE, kept_ms=NOW_MS + 1 + number))
        assert store.kept_states.find(kept.id) == kept
    store.kept_states.remove(kept.id)
    store.kept_states.remove(kept.id)
    assert store.kept_states.find(kept.id) is None
    with pytest.raises(StateGone, match="was removed meanwhile"), store.kept_states.held(kept.id):
        pass


def test_removal_is_left_to_who_may(tmp_path: Path) -> None:
    asked: list[str] = []

    def remove(path: str) -> tuple[str, ...]:
        asked.append(path)
        return ()

    with LocalStore(str(tmp_path / "home"), remove=remove) as store:
        kept = store.kept_states.keep(STATE)
        store.kept_states.remove(kept.id)
        assert store.kept_states.all() == ()
        (path,) = asked
        assert os.path.exists(os.path.join(path, "state.json"))


def test_who_only_looks_whether_it_is_in_use_keeps_nobody_out(store: LocalStore) -> None:
    """A clean-up, also one that removes nothing, takes the lock for a moment to see whether it is free."""
    kept = store.kept_states.keep(STATE)
    fd = os.open(store.kept_states.path(kept.id), os.O_RDONLY)
    assert try_lock(fd)
    timer = threading.Timer(0.05, lambda: release(fd))
    timer.start()
    with store.kept_states.held(kept.id):
        pass
    timer.join()
