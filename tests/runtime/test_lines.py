from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.runtime.lines import LONGEST_BYTES, Lines


def cut(*pieces: bytes) -> list[bytes]:
    lines = Lines()
    return [line for piece in pieces for line in lines.feed(piece)] + lines.finish()


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([], []),
        ([b"one\ntwo\n"], [b"one", b"two"]),
        ([b"on", b"e\n\ntwo"], [b"one", b"", b"two"]),
        ([b"windows\r", b"\n"], [b"windows"]),
        ([b"10%\r20%", b"\r30%\r", b"done\nnext"], [b"done", b"next"]),
        ([b"last\r"], [b"last"]),
        ([b"\r\n"], [b""]),
        ([b"x" * LONGEST_BYTES + b"\n"], [b"x" * LONGEST_BYTES]),
        ([b"x" * (2 * LONGEST_BYTES + 1)], [b"x" * LONGEST_BYTES, b"x" * LONGEST_BYTES, b"x"]),
        ([b"\xff\xfe\n"], [b"\xff\xfe"]),
    ],
)
def test_cuts(pieces: list[bytes], lines: list[bytes]) -> None:
    assert cut(*pieces) == lines


@given(st.lists(st.binary(max_size=20)))
def test_how_output_arrives_changes_nothing(pieces: list[bytes]) -> None:
    assert cut(*pieces) == cut(b"".join(pieces))


def test_memory_is_bounded() -> None:
    lines = Lines()
    for _ in range(100):
        lines.feed(b"x" * LONGEST_BYTES)
        lines.feed(b"50%\r" * 1000)
    assert len(lines._begun) <= LONGEST_BYTES
