"""Maps of ids as values, and which way a process goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerwright.runtime import flavours
from layerwright.runtime.flavours import ROOT, Extent, Flavour, Map, decoded, holds, mapped, own_flavour, parse_map, through
from layerwright.runtime.subids import Range, line_for, ranges_of

WHOLE: Map = (Extent(0, 0, 2**32 - 1),)


@pytest.mark.parametrize(
    ("ranges", "within", "expected"),
    [
        ([], WHOLE, [(0, 1000, 1)]),
        ([(100_000, 65_536)], WHOLE, [(0, 1000, 1), (1, 100_000, 65_536)]),
        ([(100_000, 10), (300_000, 5)], WHOLE, [(0, 1000, 1), (1, 100_000, 10), (11, 300_000, 5)]),
        ([(100_000, 10), (100_000, 10)], WHOLE, [(0, 1000, 1), (1, 100_000, 10)]),  # by name and by number
        ([(100_000, 10), (100_005, 10)], WHOLE, [(0, 1000, 1), (1, 100_000, 10)]),  # the kernel takes no id twice
        ([(990, 20)], WHOLE, [(0, 1000, 1), (1, 990, 10), (11, 1001, 9)]),  # the user's own id is 0 already
        ([(1000, 5)], WHOLE, [(0, 1000, 1), (1, 1001, 4)]),
        ([(100_000, 65_536)], (Extent(0, 500, 65_537),), [(0, 1000, 1)]),  # a container without these ids
        ([(2000, 100)], (Extent(0, 500, 65_537),), [(0, 1000, 1), (1, 2000, 100)]),
    ],
)
def test_the_user_is_0_and_his_ranges_follow(ranges: list[Range], within: Map, expected: list[tuple[int, int, int]]) -> None:
    assert mapped(1000, ranges, within) == tuple(Extent(*one) for one in expected)


def test_an_id_is_held_between_the_ends_of_an_extent() -> None:
    ids = (Extent(0, 1000, 1), Extent(1, 100_000, 10))
    assert [number for number in range(20) if holds(ids, number)] == list(range(11))


def test_a_map_through_another_says_where_ids_lead_in_the_end() -> None:
    outer = (Extent(0, 1000, 1), Extent(1, 100_000, 65_536))
    assert through((Extent(0, 0, 3),), outer) == (Extent(0, 1000, 1), Extent(1, 100_000, 2))
    assert through((Extent(0, 7, 1), Extent(1, 70_000, 5)), outer) == (Extent(0, 100_006, 1),)
    assert through(outer, WHOLE) == outer


def test_a_flavour_survives_a_command_line() -> None:
    for one in (ROOT, Flavour(name="user-1", way="single", uids=(Extent(0, 5, 1),), gids=(Extent(0, 6, 1), Extent(1, 9, 3)), lacking="range")):
        assert decoded(one.encoded()) == one


def test_a_map_is_read_as_the_kernel_writes_it() -> None:
    assert parse_map("         0       1000          1\n         1     100000      65536\n") == (Extent(0, 1000, 1), Extent(1, 100_000, 65_536))


# Which way. What the kernel and the files say is put in their place.


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A user 1000 named alice with newuidmap; tests change the texts of files."""
    whole = "0 0 4294967295\n"
    files = {"/proc/self/uid_map": whole, "/proc/self/gid_map": whole, "/etc/subuid": "alice:100000:65536\n", "/etc/subgid": "alice:100000:65536\n"}
    files["/proc/self/status"] = "CapEff:\t0000000000000000\n"
    monkeypatch.setattr(flavours, "read_text", lambda path: files.get(path, ""))
    monkeypatch.setattr(flavours, "user_name", lambda uid: "alice")
    monkeypatch.setattr(flavours, "_ALSO_IN", ())
    for name in ("geteuid", "getegid"):
        monkeypatch.setattr(os, name, lambda: int(files.get("uid", "1000")))
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o4755)
    files["PATH"] = str(tmp_path)
    return files


def test_root_needs_no_user_namespace(machine: dict[str, str]) -> None:
    machine |= {"uid": "0", "/proc/self/status": "CapEff:\t000001ffffffffff\n"}
    assert own_flavour(machine["PATH"]) == ROOT


def test_root_of_a_user_namespace_stays_in_it(machine: dict[str, str]) -> None:
    ids = "0 1000 1\n1 100000 65536\n"
    machine |= {"uid": "0", "/proc/self/status": "CapEff:\t000001ffffffffff\n", "/proc/self/uid_map": ids, "/proc/self/gid_map": ids}
    inside = own_flavour(machine["PATH"])
    assert inside.way == "inside"
    assert holds(inside.uids, 65_536)
    outside = own_flavour_of_user(machine)
    assert inside.name == outside.name  # the ids are the same in the end, so the trees are


def own_flavour_of_user(machine: dict[str, str]) -> Flavour:
    whole = "0 0 4294967295\n"
    machine |= {"uid": "1000", "/proc/self/status": "CapEff:\t0\n", "/proc/self/uid_map": whole, "/proc/self/gid_map": whole}
    return own_flavour(machine["PATH"])


def test_root_of_a_container_maps_all_ids_but_the_last(machine: dict[str, str]) -> None:
    """By the map of all ids runc and crun take themselves to be root of the machine, and make device nodes."""
    machine |= {"uid": "0", "/proc/self/status": "CapEff:\t00000000800405fb\n"}
    found = own_flavour(machine["PATH"])
    assert (found.way, found.uids) == ("own", (Extent(0, 0, 2**32 - 2),))
    assert found.name != "root"


def test_a_user_with_a_range_has_helpers_map_it(machine: dict[str, str]) -> None:
    found = own_flavour(machine["PATH"])
    assert (found.way, found.uids, found.lacking) == ("helpers", (Extent(0, 1000, 1), Extent(1, 100_000, 65_536)), "")
    machine["/etc/subuid"] = "alice:200000:65536\n"
    assert own_flavour(machine["PATH"]).name != found.name


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        (lambda machine: machine.pop("/etc/subuid"), "range"),
        (lambda machine: machine.update({"/etc/subgid": "bob:1:2\n"}), "range"),
        (lambda machine: os.unlink(f"{machine['PATH']}/newgidmap"), "newuidmap"),
        (lambda machine: os.chmod(f"{machine['PATH']}/newuidmap", 0o755), "setuid"),
    ],
)
def test_a_user_who_lacks_something_has_one_id(machine: dict[str, str], change: object, lacking: str) -> None:
    change(machine)  # type: ignore[operator]
    found = own_flavour(machine["PATH"])
    assert (found.way, found.uids, found.gids, found.lacking) == ("single", (Extent(0, 1000, 1),), (Extent(0, 1000, 1),), lacking)


# The files of ranges.


def test_ranges_are_found_by_name_and_by_number_and_nonsense_gives_none() -> None:
    text = "# comment\nalice:100000:65536\nbob:1:2\n1000:300000:10\nalice:x:1\nalice:1\nalice:5:0\nalice:4294967290:100\n:1:2\n"
    assert ranges_of(text, name="alice", uid=1000) == ((100_000, 65_536), (300_000, 10))


def test_a_new_line_gives_ids_that_nobody_has() -> None:
    assert line_for("alice", more_ids=34, files=("", "")) == "alice:100000:65536"
    assert line_for("alice", more_ids=70_000, files=("bob:100000:65536\n", "carol:165536:65536\n")) == "alice:231072:70000"
    assert line_for("alice", more_ids=2**32, files=("", "")) is None
