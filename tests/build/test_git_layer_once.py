"""A git layer's key: equal for layers of the same bytes, and only for those."""

from __future__ import annotations

import io
import itertools

from layerwright.build.git_layer import GitEntries
from layerwright.layers.entry import DIRECTORY, FILE, SYMLINK, Entry, NewEntry


def key(*entries: Entry, **objects: str) -> str:
    return GitEntries([NewEntry(one) for one in entries], {name.encode(): oid for name, oid in objects.items()}).key()


def test_equal_entries_and_objects_give_one_key_whoever_opens_the_contents() -> None:
    entry = Entry(b"a", FILE, 0o644, size=3)
    one = GitEntries([NewEntry(entry, lambda: io.BytesIO(b"abc"))], {b"a": "1"})
    assert one.key() == key(entry, a="1")


def test_every_difference_gives_another_key() -> None:
    file = Entry(b"a", FILE, 0o644, size=3)
    keys = [
        key(),
        key(file, a="1"),
        key(file, a="2"),
        key(file),
        key(file._replace(mtime_ns=10**9), a="1"),
        key(file._replace(uid=1), a="1"),
        key(file._replace(gid=1), a="1"),
        key(file._replace(mode=0o755), a="1"),
        key(file._replace(size=4), a="1"),
        key(file._replace(xattrs=((b"user.a", b"b"),)), a="1"),
        key(file._replace(xattrs=((b"user.ab", b""),)), a="1"),
        key(Entry(b"", DIRECTORY, 0o755), file, a="1"),
        key(Entry(b"a", SYMLINK, link=b"b")),
        key(Entry(b"a", SYMLINK, link=b"\xff")),
        key(Entry(b"a", SYMLINK, link=rb"\xff")),
        key(Entry(b"a", FILE), Entry(b"b", FILE), a="1", b="2"),
        key(Entry(b"a", FILE), Entry(b"b", FILE), a="2", b="1"),
        key(Entry(b"b", FILE), Entry(b"a", FILE), a="1", b="2"),
    ]
    assert all(one != other for one, other in itertools.combinations(keys, 2))
