"""The file index of one layer, as blobs and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.layers.entry import BLOCK, CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from layerwright.layers.index import BadIndex, FileIndex, encode_index, load_index
from layerwright.oci.digest import DiffId, digest_of
from tests.layers.trees import directory, file, hardlink, layer, opaque, symlink, whiteout

DIFF_ID = DiffId("sha256:" + "ab" * 32)
NUMBERS = st.integers(0, 2**32 - 2)
NAMES = st.binary(min_size=1, max_size=8)


@st.composite
def any_entry(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from([FILE, FILE, HARDLINK, DIRECTORY, SYMLINK, CHAR, BLOCK, FIFO, WHITEOUT, OPAQUE]))
    path = b"/".join(draw(st.lists(NAMES, min_size=1, max_size=3)))
    entry = Entry(path, kind, draw(st.integers(0, 0o7777)), draw(NUMBERS), draw(NUMBERS), draw(st.integers(-(2**70), 2**70)))
    if kind in (CHAR, BLOCK):
        entry = entry._replace(device=(draw(NUMBERS), draw(NUMBERS)))
    if kind in (SYMLINK, HARDLINK):
        entry = entry._replace(link=draw(st.binary(max_size=300)))
    if kind == FILE:
        digest = draw(st.sampled_from(["", digest_of(b"1"), digest_of(b"2")]))
        entry = entry._replace(size=draw(st.integers(0, 2**64)), offset=draw(st.integers(-1, 2**64)), digest=str(digest))
    return entry._replace(xattrs=tuple(sorted(draw(st.dictionaries(st.binary(min_size=1, max_size=9), st.binary(max_size=9), max_size=2)).items())))


@given(st.lists(any_entry(), max_size=12), st.dictionaries(NAMES, st.binary(max_size=20), max_size=2))
def test_what_is_encoded_is_decoded(entries: list[Entry], texts: dict[bytes, bytes]) -> None:
    index = FileIndex(DIFF_ID, entries, texts)
    parts = encode_index(index)
    stored = load_index(DIFF_ID, parts.get)
    assert stored is not None
    assert stored.entries == index.entries == tuple(entries)
    assert (stored.texts, stored.implied) == (texts, index.implied)
    assert encode_index(stored) == parts
    for directory_path in {b"", *index.implied, *(entry.path for entry in entries)}:
        assert sorted(stored.inside(directory_path, digest=True), key=lambda pair: pair[0]) == sorted(index.inside(directory_path), key=lambda pair: pair[0])


INDEX = layer(
    directory("usr"),
    file("usr/a", "a"),
    symlink("lib", "usr"),
    hardlink("usr/b", "usr/a"),
    whiteout("usr/c"),
    opaque("usr/d"),
    file("usr/e", "e" * 700, offset=4096),
)


def test_each_part_holds_what_its_name_says() -> None:
    parts = encode_index(INDEX)
    asked: list[str] = []
    stored = load_index(INDEX.diff_id, lambda name: (asked.append(name), parts[name])[1])
    assert stored is not None
    assert stored.at(b"lib", b"") == symlink("lib", "usr")
    assert stored.at(b"x", b"") is None
    assert (stored.whiteout(b"usr/c"), stored.opaque(b"usr/d"), stored.is_implied(b"usr/d")) == (whiteout("usr/c"), opaque("usr/d"), True)
    assert asked == ["skeleton"]
    assert stored.at(b"usr/a", b"usr") == file("usr/a", "a")._replace(digest="")
    assert asked == ["skeleton", "files"]
    assert stored.at(b"usr/a", b"usr", digest=True) == file("usr/a", "a")
    assert asked == ["skeleton", "files", "digests"]
    assert stored.entries == INDEX.entries
    assert asked == ["skeleton", "files", "digests"]


def test_of_two_entries_for_a_path_the_later_counts() -> None:
    for entries in (
        [directory("a"), file("a", "x")],
        [file("a", "x"), directory("a")],
        [file("a", "x"), file("a", "yy")],
        [directory("a"), directory("a", 0o700)],
    ):
        index = layer(*entries)
        stored = load_index(index.diff_id, encode_index(index).get)
        assert stored is not None
        for one in (index, stored):
            assert one.at(b"a", b"", digest=True) == entries[-1]
            assert list(one.inside(b"", digest=True)) == [(b"a", entries[-1])]


def test_no_skeleton_is_no_index() -> None:
    assert load_index(DIFF_ID, {}.get) is None


@pytest.mark.parametrize("part", ["skeleton", "files", "digests"])
def test_every_changed_byte_is_noticed(part: str) -> None:
    parts = encode_index(INDEX)
    whole = parts[part]
    damaged = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    for blob in (*damaged, b"", whole[:-1], whole[:20], whole + b"x"):
        with pytest.raises(BadIndex, match=part):
            _ = loaded({**parts, part: blob}).entries


def loaded(parts: dict[str, bytes]) -> FileIndex:
    stored = load_index(INDEX.diff_id, parts.get)
    assert stored is not None
    return stored


@pytest.mark.parametrize("part", ["files", "digests"])
def test_a_part_of_another_index_of_the_layer_is_noticed(part: str) -> None:
    other = encode_index(FileIndex(INDEX.diff_id, INDEX.entries[:3]))
    with pytest.raises(BadIndex, match="damaged"):
        _ = loaded({**encode_index(INDEX), part: other[part]}).entries


def test_a_part_of_another_layer_is_noticed() -> None:
    other = encode_index(FileIndex(DIFF_ID, INDEX.entries))
    with pytest.raises(BadIndex, match="another layer"):
        load_index(INDEX.diff_id, other.get)


def test_equal_indexes_are_equal_bytes() -> None:
    texts = {b"etc/passwd": b"x", b"etc/group": b"y"}
    one, other = FileIndex(DIFF_ID, INDEX.entries, texts), FileIndex(DIFF_ID, list(INDEX.entries), dict(reversed(texts.items())))
    assert encode_index(one) == encode_index(other)


def test_a_large_layer_is_small_and_each_part_smaller_than_the_next() -> None:
    entries = [directory(f"usr/lib/d{number}") for number in range(200)]
    entries += [file(f"usr/lib/d{number % 200}/module_{number}.py", str(number), offset=512 + 1024 * number) for number in range(2000)]
    sizes = {name: len(blob) for name, blob in encode_index(layer(*entries)).items()}
    assert sizes["skeleton"] < 2000 < sizes["files"] < 40_000 < sizes["digests"] < 75_000
