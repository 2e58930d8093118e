from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import pytest

from layerwright.git.loose import LARGE_BYTES, is_large_loose, open_loose
from layerwright.git.program import GitFailed

OID = "ab" + "0" * 38
CONTENT = os.urandom(9 << 20)


def write_object(directory: Path, content: bytes) -> str:
    (directory / "ab").mkdir()
    (directory / "ab" / OID[2:]).write_bytes(content)
    return str(directory)


def compressed(content: bytes = CONTENT, size: int | None = None, level: int = 0) -> bytes:
    return zlib.compress(b"blob %d\0" % (len(content) if size is None else size) + content, level)


@pytest.mark.parametrize("level", [0, 1])
def test_a_large_object_is_streamed(tmp_path: Path, level: int) -> None:
    directory = write_object(tmp_path, compressed(level=level))
    assert is_large_loose(directory, OID)
    with open_loose(directory, OID, "here") as (size, stream):
        assert size == len(CONTENT)
        total = hashlib.sha256()
        while part := stream.read(100_003):
            assert len(part) <= 100_003
            total.update(part)
    assert total.digest() == hashlib.sha256(CONTENT).digest()


def test_the_whole_is_read_at_once_if_asked(tmp_path: Path) -> None:
    directory = write_object(tmp_path, compressed(b"abc" * 10))
    with open_loose(directory, OID, "here") as (_, stream):
        assert stream.read(-1) == b"abc" * 10


def test_small_and_absent_objects_are_left_to_git(tmp_path: Path) -> None:
    assert not is_large_loose(str(tmp_path), OID)
    directory = write_object(tmp_path, b"x" * (LARGE_BYTES - 1))
    assert not is_large_loose(directory, OID)


@pytest.mark.parametrize(
    "content",
    [b"", b"no zlib", compressed(b"x", size=2), compressed(b"xyz", size=2), zlib.compress(b"blob"), zlib.compress(b"blob x\0"), compressed()[: 1 << 20]],
    ids=["empty", "garbage", "short", "long", "no header", "no size", "cut off"],
)
def test_a_damaged_object_is_an_error(tmp_path: Path, content: bytes) -> None:
    directory = write_object(tmp_path, content)
    with pytest.raises(GitFailed, match=f"git object {OID} is damaged"):
        read_all(directory)


def read_all(directory: str) -> None:
    with open_loose(directory, OID, "here") as (_, stream):
        while stream.read(1 << 16):
            pass
