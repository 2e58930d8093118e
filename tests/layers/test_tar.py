"""Our writer against other readers, our reader against other writers, and both against each other and against garbage."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from layerwright.layers.entry import CHAR, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry, NewEntry
from layerwright.layers.tar import BadLayer, Limits, TarWriter, UnwritableEntry, read_tar
from layerwright.layers.ustar import BadField, decode_header, decode_number, decode_records, decode_time, encode_header, encode_record
from tests.layers.tars import archive, index_of, member, new_file, write

LONG = "long/" + "/".join(f"directory{number:02}" for number in range(30)) + "/end"


def read(tar: bytes, limits: Limits | None = None) -> list[tuple[Entry, bytes]]:
    return [(entry, content.read()) for entry, content in read_tar(io.BytesIO(tar), limits)]


def read_one(tar: bytes) -> Entry:
    ((entry, _),) = read(tar)
    return entry


def test_an_empty_layer_is_two_zero_blocks() -> None:
    tar, summary = write()
    assert tar == bytes(1024)
    assert summary.diff_id == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    assert read(tar) == []


def test_the_bytes_of_a_layer_are_fixed() -> None:
    """A change here changes the diff id of every layer ever made: think twice."""
    tar, summary = write(
        Entry(b"", DIRECTORY, 0o755, mtime_ns=1_600_000_000 * 10**9),
        Entry(b"a", DIRECTORY, 0o1777, 1, 2, 1_700_000_000_987_654_321),
        Entry(b"a", OPAQUE),
        Entry(b"a/gone", WHITEOUT),
        new_file(b"a/\xd1\x8f", b"content", mode=0o4755, mtime_ns=-(10**9), uid=3_000_000),
        new_file(b"a/\xff", b"", xattrs=((b"user.b", b"2\0"), (b"user.a", b"1"))),
        Entry(b"a/hard", HARDLINK, 0o644, link=b"a/\xff"),
        Entry(b"l", SYMLINK, 0o777, link=b"/a"),
        Entry(b"null", CHAR, 0o666, device=(1, 3)),
        Entry(b"p", FIFO, 0o600),
        new_file(LONG, b"x"),
    )
    assert summary.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert summary.size == len(tar)
    assert summary.diff_id == DIFF_ID


DIFF_ID = "sha256:41d4af0017a32e5734d38d141cdfae44aee959044053c7ee7f5899551c336201"


def test_the_writer_tells_the_digest_and_the_place_of_each_content() -> None:
    tar, summary = write(Entry(b"d", DIRECTORY, 0o755), new_file("d/a", b"one"), new_file("d/b", b"two" * 1000))
    for entry, content in ((summary.entries[1], b"one"), (summary.entries[2], b"two" * 1000)):
        assert tar[entry.offset : entry.offset + entry.size] == content
        assert entry.digest == "sha256:" + hashlib.sha256(content).hexdigest()
    assert summary.entries == index_of(tar).entries


def test_the_writer_keeps_the_texts_that_the_index_keeps() -> None:
    tar, summary = write(new_file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), new_file("etc/shadow", b"secret"))
    assert summary.texts == {b"etc/passwd": b"root:x:0:0::/:/bin/sh\n"} == index_of(tar).texts


@pytest.mark.parametrize(("promised", "content"), [(5, b"four"), (5, b"sixsix"), (0, b"x"), (3_000_000, b"")])
def test_a_content_that_is_not_as_long_as_promised_is_an_error_naming_the_path(promised: int, content: bytes) -> None:
    with pytest.raises(UnwritableEntry, match="/d/file"):
        write(new_file("d/file", content, size=promised))


def test_a_content_that_is_not_the_indexed_one_is_an_error_naming_the_path() -> None:
    with pytest.raises(UnwritableEntry, match="/d/file"):
        write(new_file("d/file", b"other", digest="sha256:" + "0" * 64))


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"/a", FILE),
        Entry(b"a/", DIRECTORY),
        Entry(b"a/../b", FILE),
        Entry(b"./a", FILE),
        Entry(b"a//b", FILE),
        Entry(b"a\0b", FILE),
        Entry(b"", FILE),
        Entry(b"a/.wh.b", FILE),
        Entry(b".wh.d/x", FILE),
        Entry(b"l", SYMLINK),
        Entry(b"h", HARDLINK, link=b"../x"),
        Entry(b"x", FILE, xattrs=((b"user.a=b", b"1"),)),
    ],
)
def test_what_no_tar_can_hold_is_not_written(entry: Entry) -> None:
    with pytest.raises(UnwritableEntry):
        write(entry)


class Sparse:
    """Takes a huge layer and keeps only what it does not need to count."""

    def __init__(self) -> None:
        self.head = b""
        self.size = 0

    def write(self, piece: bytes) -> None:
        self.head = self.head or piece[:2048]
        self.size += len(piece)


class Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int | None = -1, /) -> bytes:
        size = min(size or 0, self.left)
        self.left -= size
        return bytes(size)


@pytest.mark.slow
def test_files_of_more_than_8_gib_are_written_and_read() -> None:
    size = 8 * 2**30 + 1
    out = Sparse()
    writer = TarWriter(out)
    writer.add(NewEntry(Entry(b"big", FILE, 0o644, size=size), lambda: cast(BinaryIO, Zeros(size))))
    writer.close()
    assert out.size == 512 + 512 + 512 + 8 * 2**30 + 512 + 1024
    entry, _ = next(read_tar(io.BytesIO(out.head)))
    assert (entry.size, entry.offset) == (size, 1536)


def sample(directory: Path) -> bytes:
    """A layer with every kind of entry that a file system can hold, written by us."""
    tar, _ = write(
        Entry(b"d", DIRECTORY, 0o1777, 1, 2, 1_500_000_000 * 10**9),
        new_file("d/plain", b"plain", mode=0o4755, uid=33, gid=44, mtime_ns=1_600_000_000 * 10**9),
        new_file("d/имя с пробелом\n", b"name"),
        new_file(b"d/\xff\xfe", b"no utf-8"),
        new_file("d/" + "n" * 200, b"name of more than 100 bytes"),
        new_file(LONG, b"path of more than 256 bytes"),
        new_file("d/owned", b"", uid=4_000_000, gid=3_000_000_000),
        new_file("d/early", b"", mtime_ns=-5 * 10**9),
        Entry(b"d/zz-hard", HARDLINK, 0o4755, link=b"d/plain"),
        Entry(b"d/zz-long-hard", HARDLINK, 0o644, link=b"d/" + b"n" * 200),
        Entry(b"d/zz-sym", SYMLINK, 0o777, link=b"plain"),
        Entry(b"d/zz-sym-long", SYMLINK, 0o777, link=b"t/" * 100 + b"\xd1\x8f\xff"),
        Entry(b"d/zzfifo", FIFO, 0o640),
        Entry(b"d/zznull", CHAR, 0o666, device=(1, 3)),
    )
    path = directory / "layer.tar"
    path.write_bytes(tar)
    return tar


def check_sample(root: bytes) -> None:
    def state(name: bytes) -> os.stat_result:
        return os.lstat(root + b"/" + name)

    assert state(b"d").st_mode & 0o7777 == 0o1777
    assert (state(b"d/plain").st_uid, state(b"d/plain").st_gid, state(b"d/plain").st_mode & 0o7777) == (33, 44, 0o4755)
    assert state(b"d/plain").st_mtime == 1_600_000_000
    names = os.listdir(root + b"/d")
    assert "имя с пробелом\n".encode() in names
    assert b"\xff\xfe" in names
    assert b"n" * 200 in names
    assert Path(os.fsdecode(root), LONG).read_bytes() == b"path of more than 256 bytes"
    assert (state(b"d/owned").st_uid, state(b"d/owned").st_gid) == (4_000_000, 3_000_000_000)
    assert state(b"d/early").st_mtime == -5
    assert state(b"d/zz-hard").st_ino == state(b"d/plain").st_ino
    assert state(b"d/zz-long-hard").st_ino == state(b"d/" + b"n" * 200).st_ino
    assert os.readlink(root + b"/d/zz-sym-long") == b"t/" * 100 + b"\xd1\x8f\xff"
    assert state(b"d/zznull").st_rdev == os.makedev(1, 3)


@pytest.mark.needs_root
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_gnu_tar_unpacks_what_we_write_without_a_word(tmp_path: Path, locale: str) -> None:
    sample(tmp_path)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        ["tar", "--xattrs", "--numeric-owner", "-xpf", tmp_path / "layer.tar", "-C", tmp_path / "out"],
        env={"PATH": os.environ["PATH"], "LC_ALL": locale},
        capture_output=True,
        check=True,
    )
    # It remarks on the time before 1970, and on nothing else.
    assert [line for line in done.stderr.splitlines() if b"implausibly old" not in line] == []
    check_sample(os.fsencode(tmp_path / "out"))


@pytest.mark.needs_root
def test_gnu_tar_restores_our_extended_attributes(tmp_path: Path) -> None:
    tar, _ = write(new_file("f", b"x", xattrs=((b"user.a", b"\0\xff\n"), (b"trusted.t", b"1"))))
    subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-xpf", "-", "-C", tmp_path], input=tar, check=True)
    assert os.getxattr(tmp_path / "f", "user.a") == b"\0\xff\n"
    assert os.getxattr(tmp_path / "f", "trusted.t") == b"1"


def test_python_reads_what_we_write(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(sample(tmp_path))) as tar:
        names = [os.fsencode(info.name) for info in tar]
        assert LONG.encode() in names
        assert b"d/\xff\xfe" in names
        assert tar.getmember("d/owned").gid == 3_000_000_000


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "options", [["--format=gnu"], ["--format=pax"], ["--format=ustar"], ["--format=v7"], ["--format=pax", "--xattrs", "--xattrs-include=*"]]
)
def test_we_read_what_gnu_tar_writes(tmp_path: Path, options: list[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    short = "ustar" in options[0] or "v7" in options[0]
    names = ["a", "b c", "x" * 90] + ([] if short else ["y" * 180, "имя", LONG])
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode() * 100)
    os.setxattr(source / "a", "user.a", b"\0value\n")
    os.chown(source / "a", 1234, 5678)
    os.link(source / "a", source / "hard")
    os.symlink("z" * (80 if short else 180), source / "sym")
    os.mkfifo(source / "fifo") if "v7" not in options[0] else None
    tar = subprocess.run(["tar", *options, "--sort=name", "-c", "."], cwd=source, capture_output=True, check=True).stdout
    found = {entry.path: (entry, content) for entry, content in read(tar)}
    for path, (entry, _) in found.items():
        state = os.lstat(os.fsencode(source) + b"/" + path)
        assert (entry.mode, entry.uid, entry.gid) == (state.st_mode & 0o7777, state.st_uid, state.st_gid)
        assert entry.mtime_ns == (state.st_mtime_ns if "pax" in options[0] else state.st_mtime_ns // 10**9 * 10**9)
    assert {os.fsencode(name) for name in names} <= found.keys()
    for name in names[1:]:
        assert found[os.fsencode(name)][1] == name.encode() * 100
    assert found[b"hard"][0] == found[b"a"][0]._replace(path=b"hard", kind=HARDLINK, link=b"a", size=0, offset=-1, xattrs=())
    assert found[b"sym"][0].link == b"z" * (80 if short else 180)
    if "--xattrs" in options:
        assert found[b"a"][0].xattrs == ((b"user.a", b"\0value\n"),)


def test_libarchives_attributes_are_read() -> None:
    pax = {"LIBARCHIVE.xattr.user.a%3Db": "AP8K", "LIBARCHIVE.xattr.security.selinux": "AA"}
    assert read_one(archive(member("f", pax=pax))).xattrs == ((b"user.a=b", b"\0\xff\n"),)


def test_attributes_of_the_machine_are_dropped() -> None:
    names = ["trusted.overlay.opaque", "user.overlay.opaque", "security.selinux", "security.ima", "user.mine", "security.capability"]
    entry = read_one(archive(member("f", pax={f"SCHILY.xattr.{name}": "y" for name in names})))
    assert [name for name, _ in entry.xattrs] == [b"security.capability", b"user.mine"]


def test_global_pax_headers_hold_until_they_are_overridden() -> None:
    headers = encode_record(b"uid", b"7") + encode_record(b"comment", b"of git archive")
    tar = archive(
        encode_header(name=b"pax_global_header", typeflag=b"g", size=len(headers)) + headers + bytes(-len(headers) % 512),
        member("a"),
        member("b", pax={"uid": "9"}),
        member("c"),
    )
    assert [entry.uid for entry, _ in read(tar)] == [7, 9, 7]


@pytest.mark.parametrize(
    ("name", "path"),
    [("./a/b", b"a/b"), ("/a/b", b"a/b"), ("//a//b/", b"a/b"), ("a/./b", b"a/b"), (".a/..b/...", b".a/..b/..."), ("a/.b", b"a/.b"), ("././a", b"a")],
)
def test_names_are_cleaned(name: str, path: bytes) -> None:
    assert read_one(archive(member(name, "dir"))).path == path


def test_the_root_itself_may_be_a_member() -> None:
    assert [read_one(archive(member(name, "dir"))).path for name in ("./", ".", "/")] == [b"", b"", b""]


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("a/.wh.b", WHITEOUT, b"a/b"),
        (".wh.b", WHITEOUT, b"b"),
        ("./.wh..b", WHITEOUT, b".b"),
        ("a/.wh..wh..opq", OPAQUE, b"a"),
        (".wh..wh..opq", OPAQUE, b""),
        ("a.wh.b", FILE, b"a.wh.b"),
        ("a/.wh", FILE, b"a/.wh"),
    ],
)
def test_whiteouts_are_recognised(name: str, kind: str, path: bytes) -> None:
    ((entry, content),) = read(archive(member(name, content=b"")))
    assert (entry.kind, entry.path, content) == (kind, path, b"")


def test_a_whiteout_with_content_is_a_whiteout() -> None:
    assert [entry.path for entry, _ in read(archive(member(".wh.a", content=b"x" * 700), member("b", content=b"y")))] == [b"a", b"b"]


def test_the_files_of_aufs_are_left_out() -> None:
    tar = archive(member(".wh..wh.aufs"), member(".wh..wh.plnk", "dir"), member(".wh..wh.plnk/1.2", content=b"x"), member("a"))
    assert [entry.path for entry, _ in read(tar)] == [b"a"]


@pytest.mark.parametrize(
    ("tar", "what"),
    [
        (archive(member("../a")), "out of the root"),
        (archive(member("a/../../b")), "out of the root"),
        (archive(member("a/..", "dir")), "out of the root"),
        (archive(member("h", "hard", link="../../etc/passwd")), "out of the root"),
        (archive(member("x", pax={"path": "a/../b"})), "out of the root"),
        (archive(member("s", "sym")), "symlink"),
        (archive(member("a/.wh.", content=b"")), "whiteout of nothing"),
        (archive(member("a/.wh..", content=b"")), "whiteout of nothing"),
        (archive(member("a/.wh...", content=b"")), "whiteout of nothing"),
        (archive(member("a/.wh.b/c")), "below a whiteout"),
        (archive(member("s", "S")), "sparse"),
        (archive(member("s", "M")), "multi-volume"),
        (archive(member("s", "?")), "unknown type"),
        (archive(member("s", pax={"GNU.sparse.major": "1"})), "sparse"),
        (archive(member(".", "file")), "root as a"),
        (archive(member("f", pax={"size": "-1"})), "size"),
        (archive(member("f", pax={"uid": "4294967295"})), "owner out of range"),
        (archive(member("f", pax={"mtime": "1e9"})), "mtime"),
        (archive(member("a/" + "n" * 256)), "longer than 255"),
        (archive(member("a/" * 2100)), "a name of"),
        (archive(member("s", "sym", link="t/" * 2100)), "target"),
        (member("a") + bytes(512) + member("b"), "one zero block"),
        (b"\1" * 512, "checksum"),
        (b"x" * 511, "middle of a header"),
        (member("a", content=b"x" * 600)[:-1], "middle of a file"),
        (member("a", content=b"x" * 600)[:700], "middle of a file"),
        (member("n" * 300)[:700], "middle of an extended header"),
    ],
)
def test_what_is_wrong_with_a_layer_is_said_with_its_place(tar: bytes, what: str) -> None:
    with pytest.raises(BadLayer, match=what) as caught:
        read(tar)
    assert caught.value.where.startswith("byte ")
    with pytest.raises(BadLayer, match=what):
        index_of(tar)


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(layer_entries=2), "more than 2 entries"),
        (Limits(layer_bytes=3000), "larger than 3,000 bytes"),
        (Limits(metadata_bytes=204), "attributes are larger than 204 bytes"),
    ],
)
def test_limits_are_kept(limits: Limits, what: str) -> None:
    tar = archive(member("abcd" * 30 + "/" + "efgh" * 20 + "/xy", content=b"x" * 100), member("b", content=b"x" * 100), member("c", content=b"x" * 100))
    assert len(read(tar)) == 3
    with pytest.raises(BadLayer, match=what):
        read(tar, limits)


def test_headers_without_an_end_are_limited() -> None:
    def stream() -> Iterator[bytes]:
        while True:
            yield member("x", "V")

    class Endless(io.RawIOBase):
        def read(self, size: int | None = -1, /) -> bytes:
            return b"".join(next(pieces) for _ in range(100))

    pieces = stream()
    with pytest.raises(BadLayer, match="entries"):
        list(read_tar(cast(BinaryIO, Endless()), Limits(layer_entries=1000)))


def test_a_layer_without_an_end_mark_is_read() -> None:
    assert [entry.path for entry, _ in read(member("a") + member("b", content=b"x"))] == [b"a", b"b"]


def test_contents_need_not_be_read() -> None:
    tar = archive(*(member(f"f{number}", content=b"x" * number * 300) for number in range(9)))
    assert [entry.path for entry, _ in read_tar(io.BytesIO(tar))] == [b"f%d" % number for number in range(9)]


def test_a_content_can_be_read_like_any_file() -> None:
    for _, content in read_tar(io.BytesIO(archive(member("a", content=b"0123456789")))):
        assert content.read(3) == b"012"
        assert io.BufferedReader(cast(io.RawIOBase, content)).read(2) == b"34"
        assert content.read() == b""


# --- properties -------------------------------------------------------------------------------------------------------------------

NAME = st.one_of(
    st.text(alphabet="ab.", min_size=1, max_size=3).map(str.encode),
    st.binary(min_size=1, max_size=20),
    st.sampled_from([b"n" * 99, b"n" * 100, b"n" * 101, b"n" * 155, b"n" * 156, b"n" * 255, "имя".encode()]),
).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and not name.startswith(b".wh."))
PATH = st.lists(NAME, min_size=1, max_size=4).map(b"/".join)
NUMBER = st.sampled_from([0, 1, 1000, 8**7 - 1, 8**7, 2**32 - 2])
MTIME = st.one_of(st.sampled_from([0, -1, -(10**12), 8**11 - 1, 8**11]), st.integers(-(10**12), 10**12)).map(lambda seconds: seconds * 10**9)
XATTRS = st.dictionaries(st.sampled_from([b"user.a", b"user.\xff", b"security.capability", b"trusted.x"]), st.binary(max_size=30), max_size=3)


@st.composite
def entries(draw: st.DrawFn) -> NewEntry:
    kind = draw(st.sampled_from([FILE, FILE, DIRECTORY, SYMLINK, HARDLINK, CHAR, FIFO, WHITEOUT, OPAQUE]))
    entry = Entry(draw(PATH), kind, draw(st.integers(0, 0o7777)), draw(NUMBER), draw(NUMBER), draw(MTIME))
    if kind in (WHITEOUT, OPAQUE):
        return NewEntry(entry)
    entry = entry._replace(xattrs=tuple(sorted(draw(XATTRS).items())))
    if kind == FILE:
        content = draw(st.one_of(st.binary(max_size=40), st.sampled_from([b"x" * 512, b"y" * 513, b"z" * 300_000])))
        return NewEntry(entry._replace(size=len(content)), lambda: io.BytesIO(content))
    if kind == CHAR:
        entry = entry._replace(device=(draw(st.integers(1, 4095)), draw(st.integers(0, 2**20 - 1))))
    if kind in (SYMLINK, HARDLINK):
        entry = entry._replace(link=draw(PATH))
    return NewEntry(entry)


@given(st.lists(entries(), max_size=6))
@settings(max_examples=200)
def test_what_is_written_is_read_back(new: list[NewEntry]) -> None:
    tar, summary = write(*new)
    found = read(tar)
    assert [entry for entry, _ in found] == [entry._replace(digest="") for entry in summary.entries]
    for (entry, content), one in zip(found, new, strict=True):
        assert content == (one.content().read() if one.content else b"")
        assert entry == one.entry._replace(offset=entry.offset)
    assert write(*new)[0] == tar


GOOD = archive(member("a/b", content=b"x" * 700, pax={"mtime": "1.5", "SCHILY.xattr.user.a": "1"}), member("n" * 200, "dir"), member("s", "sym", link="t"))


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, len(GOOD)))
@settings(max_examples=500)
def test_a_damaged_layer_is_read_or_refused_but_breaks_nothing(changes: list[tuple[int, int]], end: int) -> None:
    damaged = bytearray(GOOD)
    for at, value in changes:
        damaged[at] = value
    _read_or_refuse(_with_checksums(bytes(damaged)))
    _read_or_refuse(bytes(damaged[:end]))


@given(st.binary(max_size=3000))
@example(bytes(512) + b"x")
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_garbage_is_refused(garbage: bytes) -> None:
    _read_or_refuse(garbage)
    _read_or_refuse(_with_checksums(garbage))


def _read_or_refuse(tar: bytes) -> None:
    try:
        read(tar)
    except BadLayer:
        pass


def _with_checksums(tar: bytes) -> bytes:
    """Every block made a header whose checksum is right, so that the reader looks further."""
    blocks = [tar[at : at + 512] for at in range(0, len(tar), 512)]
    return b"".join(_with_checksum(block) if len(block) == 512 and any(block) else block for block in blocks)


def _with_checksum(block: bytes) -> bytes:
    cleared = block[:148] + b" " * 8 + block[156:]
    return cleared[:148] + b"%06o\0 " % sum(cleared) + cleared[156:]


# --- blocks and records -----------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=120).filter(lambda key: b"=" not in key), st.binary(max_size=1200))
def test_records_come_back(key: bytes, value: bytes) -> None:
    record = encode_record(key, value)
    assert int(record.split(b" ")[0]) == len(record)
    assert list(decode_records(record * 2)) == [(key, value)] * 2


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"644\0junk", 0o644),
        (bytes(8), 0),
        (b"        ", 0),
        (b"\x80\0\0\0\0\0\0\x07", 7),
        (b"\xff" * 8, -1),
        (b"\xff" * 7 + b"\xfe", -2),
        (b"\x80\0\0\0" + (2**40).to_bytes(8, "big"), 2**40),
    ],
)
def test_numbers_are_read(field: bytes, number: int) -> None:
    assert decode_number(field, "size") == number


@pytest.mark.parametrize("field", [b"0x10\0", b"1_0\0", b"-1\0\0", b"9\0", b"6 4\0", b"\x81abc"])
def test_what_is_no_number_is_refused(field: bytes) -> None:
    with pytest.raises(BadField):
        decode_number(field, "size")


@pytest.mark.parametrize(
    ("text", "ns"), [(b"1", 10**9), (b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"0.1234567899", 123_456_789), (b"3.", 3 * 10**9)]
)
def test_times_are_read(text: bytes, ns: int) -> None:
    assert decode_time(text) == ns


def test_a_time_far_out_of_range_is_the_furthest_that_is_kept() -> None:
    assert read_one(archive(member("f", pax={"mtime": "9" * 18}))).mtime_ns == 10**21
    assert read_one(archive(member("f", mtime=-(2.0**70)))).mtime_ns == -(10**21)


def test_checksums_of_signed_bytes_are_taken() -> None:
    block = bytearray(encode_header(name=b"\xff" * 50, typeflag=b"0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in block)
    assert decode_header(bytes(block)).name == b"\xff" * 50
