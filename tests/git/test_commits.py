from __future__ import annotations

import pytest

from layerwright.git.commits import parse_commit

TREE = b"tree " + b"a" * 40 + b"\n"


@pytest.mark.parametrize(
    ("committer", "time_s", "zone_minutes"),
    [
        (b"A B <a@b> 1700000000 +0000", 1700000000, 0),
        (b"A B <a@b> 1700000000 +0530", 1700000000, 330),
        (b"A B <a@b> 1700000000 -0330", 1700000000, -210),
        (b"\xff\xfe > 3 +0100 <a@b> 12 -1200", 12, -720),
        (b" <> 0 +0000", 0, 0),
        (b"A <a@b> 99999999999999999 +0000", (1 << 33) - 1, 0),
        (b"A <a@b> -5 +0000", 0, 0),
        (b"A <a@b>", 0, 0),
    ],
)
def test_the_committer_time_is_read(committer: bytes, time_s: int, zone_minutes: int) -> None:
    content = TREE + b"parent " + b"b" * 40 + b"\nauthor X <x@y> 5 +0200\ncommitter " + committer + b"\nencoding latin1\n\ncommitter Y <y@z> 7 +0000\n"
    commit = parse_commit("c" * 40, content)
    assert (commit.id, commit.tree, commit.time_s, commit.zone_minutes) == ("c" * 40, "a" * 40, time_s, zone_minutes)


def test_a_signed_commit_is_read() -> None:
    content = TREE + b"author X <x@y> 5 +0200\ncommitter A <a@b> 6 +0100\ngpgsig -----BEGIN\n committer B <b@c> 9 +0000\n -----END\n\nmessage\n"
    assert parse_commit("c" * 40, content).time_s == 6
