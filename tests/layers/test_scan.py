from __future__ import annotations

import hashlib
import io

import pytest

from layerwright.layers.entry import DIRECTORY, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT
from layerwright.layers.scan import index_tar
from layerwright.layers.tar import BadLayer, Limits
from layerwright.layers.texts import TEXT_MAX
from tests.layers.tars import archive, index_of, member


def test_a_layer_is_indexed_as_it_stands() -> None:
    tar = archive(
        member("./", "dir", mode=0o755),
        member("./no/parent", content=b"x" * 600, mtime=1.25, pax={"SCHILY.xattr.user.a": "1"}),
        member("s", "sym", link="/no"),
        member("h", "hard", link="./nowhere"),
        member("no/.wh.gone"),
        member("no/.wh..wh..opq"),
    )
    index = index_of(tar)
    assert index.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert [(entry.path, entry.kind) for entry in index.entries] == [
        (b"", DIRECTORY),
        (b"no/parent", FILE),
        (b"s", SYMLINK),
        (b"h", HARDLINK),
        (b"no/gone", WHITEOUT),
        (b"no", OPAQUE),
    ]
    file = index.entries[1]
    assert file.digest == "sha256:" + hashlib.sha256(b"x" * 600).hexdigest()
    assert tar[file.offset : file.offset + file.size] == b"x" * 600
    assert (file.mtime_ns, file.xattrs) == (1_250_000_000, ((b"user.a", b"1"),))
    assert index.entries[3].link == b"nowhere"
    assert all(entry.digest == "" for entry in index.entries if entry.kind != FILE)


def test_what_follows_the_end_of_the_tar_is_part_of_the_diff_id() -> None:
    tar = archive(member("a")) + bytes(10_240) + b"and more"
    assert index_of(tar).diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()


def test_accounts_and_package_databases_are_kept_as_text() -> None:
    tar = archive(
        member("etc/passwd", content=b"old"),
        member("etc/passwd", content=b"root:x:0:0::/:/bin/sh\n"),
        member("etc/group", "sym", link="elsewhere"),
        member("var/lib/dpkg/status", content=b"Package: a\n"),
        member("etc/shadow", content=b"secret"),
    )
    assert index_of(tar).texts == {b"etc/passwd": b"root:x:0:0::/:/bin/sh\n", b"var/lib/dpkg/status": b"Package: a\n"}


def test_a_text_that_a_later_entry_replaces_is_not_kept() -> None:
    assert index_of(archive(member("etc/passwd", content=b"old"), member("etc/passwd", "sym", link="x"))).texts == {}


def test_a_text_of_enormous_length_is_not_kept() -> None:
    assert index_of(archive(member("etc/passwd", content=b"x" * (TEXT_MAX + 1)))).texts == {}


def test_limits_hold() -> None:
    with pytest.raises(BadLayer, match="more than 1 entries"):
        index_tar(io.BytesIO(archive(member("a"), member("b"))), Limits(layer_entries=1))
