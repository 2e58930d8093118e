"""How foreign text, sizes and times are written."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.cli.shown import part_text, printable, size_text, time_text, visible


@pytest.mark.parametrize(
    ("text", "plain", "coloured"),
    [
        ("plain", "plain", "plain"),
        ("a\tb", "a\tb", "a\tb"),
        ("\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b[38;5;8mgrey", "grey", "\x1b[38;5;8mgrey\x1b[0m"),
        ("a\x1b[2J\x1b[10;10Hb", "ab", "ab"),
        ("\x1b]0;title\x07a", "a", "a"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link", "link"),
        ("a\x1b]0;no end", "a", "a"),
        ("\x1bPq#sixel\x1b\\a\x1b_apc\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\", "a", "a"),
        ("\x1b[?1049h\x1b[?25l\x1b7\x1b8\x1bc\x1b(0a", "a", "a"),
        ("\x9b31mC1 \x85\x90", "31mC1 ", "31mC1 "),
        ("a\rb\x08c\x07\x00", "abc", "abc"),
        ("right \u202eto left\u2066", "right to left", "right to left"),
        ("\x1b[31", "", ""),
        ("end\x1b", "end", "end"),
    ],
)
def test_what_moves_the_cursor_goes_and_colours_may_stay(text: str, plain: str, coloured: str) -> None:
    assert printable(text, colours=False) == plain
    assert printable(text, colours=True) == coloured


@given(st.text(st.sampled_from("\x1b[]0;31mHJ?hP\\\x07\x9b\u202e a界\x00\r\n"), max_size=40))
def test_nothing_but_colours_is_left_of_any_text(text: str) -> None:
    assert all(one == "\t" or unicodedata.category(one)[0] != "C" for one in printable(text, colours=False))
    coloured = printable(text, colours=True)
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;:]*m", "", coloured)
    assert "\x1b" not in coloured or coloured.endswith("\x1b[0m")


def test_sizes_and_times() -> None:
    assert [size_text(one) for one in (-1, 0, 1023, 1536, 150 << 20, 3 << 40)] == ["?", "0 B", "1023 B", "1.5 KiB", "150 MiB", "3.0 TiB"]
    assert part_text(35_860_000, 120 << 20) == "34.2/120 MiB"
    assert part_text(5, 0) == "5 B"
    assert [time_text(one) for one in (0, 59.9, 60, 3599, 3600)] == ["0s", "59s", "1m00s", "59m59s", "1h00m"]
    assert visible("a\x1b[2Jb\nc") == "a\\x1b[2Jb\nc"
