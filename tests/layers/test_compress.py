from __future__ import annotations

import gzip
import hashlib
import io
import platform
import random
import subprocess
import sys
from typing import BinaryIO, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.layers.compress import Compressor, decompressed
from layerwright.layers.tar import BadLayer

Kind = Literal["gzip", "zstd", "none"]
KINDS: list[Kind] = ["gzip", "zstd", "none"]
TEXT = b"".join(b"line %d of some text\n" % number for number in range(200_000))  # 4.5 MB
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"


def compress(kind: Kind, content: bytes, piece: int = 1 << 16) -> bytes:
    out = io.BytesIO()
    compressor = Compressor(kind, out)
    for at in range(0, len(content), piece):
        compressor.write(content[at : at + piece])
    compressor.close()
    return out.getvalue()


def read(blob: bytes, size: int = 1 << 18) -> bytes:
    stream = decompressed(io.BytesIO(blob))
    pieces = []
    while piece := stream.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"x", TEXT], ids=["nothing", "a byte", "text"])
def test_what_is_compressed_comes_back(kind: Kind, content: bytes) -> None:
    blob = compress(kind, content)
    assert read(blob) == content
    assert decompressed(io.BytesIO(blob)).read() == content


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_do_not_depend_on_the_pieces_written(kind: Kind) -> None:
    assert len({compress(kind, TEXT, piece) for piece in (1000, 1 << 20, (1 << 20) + 1, 3 << 20, len(TEXT))}) == 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="known for x86_64 only")
def test_the_bytes_of_gzip_are_fixed() -> None:
    """Blobs are never compared by them, but equal layers of two machines should share one: igzip's level 0 to 2 keep them."""
    blob = compress("gzip", TEXT)
    assert blob[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert gzip.decompress(blob) == TEXT
    assert hashlib.sha256(blob).hexdigest() == GZIP_DIGEST


GZIP_DIGEST = "ae40ba5f623d7013b14dd60c31d81700c023ca90b4c888fd368d303d72d0fdd3"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_members_one_after_another_are_one_layer(kind: Kind) -> None:
    blob = compress(kind, b"one") + compress(kind, b"") + compress(kind, TEXT)
    assert read(blob) == b"one" + TEXT
    assert read(blob, 7) == b"one" + TEXT


def test_the_frames_that_zstd_chunked_appends_are_skipped() -> None:
    assert read(SKIPPABLE + compress("zstd", b"content") + SKIPPABLE) == b"content"


def test_zeros_after_the_last_member_are_padding() -> None:
    assert read(compress("gzip", b"content") + bytes(600_000)) == b"content"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_layer_that_ends_too_early_is_refused(kind: Kind) -> None:
    blob = compress(kind, random.Random(1).randbytes(3000))
    for end in (7, 11, 100, len(blob) - 9, len(blob) - 4, len(blob) - 1):
        with pytest.raises(BadLayer, match="ends too early") as caught:
            read(blob[:end])
        assert "compressed layer" in caught.value.where


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_damaged_layer_is_refused(kind: Kind) -> None:
    blob = compress(kind, TEXT)
    for at in (len(blob) // 2, len(blob) - 3):
        with pytest.raises(BadLayer, match="damaged"):
            read(blob[:at] + bytes([blob[at] ^ 0xFF]) + blob[at + 1 :])
    with pytest.raises(BadLayer):
        read(blob + b"what is this")


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"]))
def test_garbage_is_refused_or_plain(garbage: bytes, head: bytes) -> None:
    try:
        read(head + garbage)
    except BadLayer:
        pass


@pytest.mark.parametrize("blob", [b"BZh91AY", b"\xfd7zXZ\0\0", b"\x04\x22\x4d\x18..."])
def test_other_compressions_are_named(blob: bytes) -> None:
    with pytest.raises(BadLayer, match="compressed with"):
        decompressed(io.BytesIO(blob), "application/vnd.oci.image.layer.v1.tar+xz")


def test_plain_bytes_go_through() -> None:
    for content in (b"", b"x", b"\x1f", b"plain text"):
        assert read(content) == content
        assert read(content, 1) == content


def test_a_stream_that_gives_little_at_a_time_is_read() -> None:
    class Trickle(io.RawIOBase):
        def __init__(self, content: bytes) -> None:
            self.stream = io.BytesIO(content)

        def read(self, size: int | None = -1, /) -> bytes:
            return self.stream.read(min(3, size or 0))

    for kind in KINDS:
        assert decompressed(cast(BinaryIO, Trickle(compress(kind, TEXT[:5000])))).read() == TEXT[:5000]


def test_a_bomb_is_read_piece_by_piece() -> None:
    bomb = compress("gzip", bytes(200 << 20), 1 << 20)
    stream = decompressed(io.BytesIO(bomb))
    assert len(stream.read(1000)) <= 1000
    assert len(stream.read(1 << 18)) <= 1 << 18


def test_closing_closes_the_source() -> None:
    for kind in KINDS:
        source = io.BytesIO(compress(kind, b"content"))
        with decompressed(source) as stream:
            stream.read()
        assert source.closed


def test_no_codec_is_loaded_before_it_is_used() -> None:
    code = "import sys, layerwright.layers.compress; print([name for name in sys.modules if 'isal' in name or 'zstd' in name])"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True).stdout == "[]\n"
