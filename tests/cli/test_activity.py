"""What is going on, from events; and how it is laid out."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from layerwright.build.events import BuildStarted, ImageDone, ImageStarted, Progress, StageBuilt, StageOutput, StageReused, StageStarted
from layerwright.cli.activity import Activity, Row, Totals, Transfer
from layerwright.cli.layout import Look, lines
from layerwright.cli.pulse import beat

MIB = 1 << 20
PLAIN = Look(colours=False)


def pulled(image: str, part: str, done: int, total: int = 10 * MIB, *, finished: bool = False) -> Progress:
    return Progress(image=image, action="pull", subject="example.com/base", part=part, done=done, total=total, finished=finished)


def test_an_image_is_one_row_with_all_that_moves_for_it() -> None:
    activity = Activity(0.0)
    activity.told(BuildStarted(commit="c", sets=(("app", "other"), ("last",))), 0.0)
    activity.told(ImageStarted(image="app"), 0.0)
    activity.told(pulled("app", "one", 2 * MIB), 1.0)
    activity.told(pulled("app", "two", 1 * MIB, 5 * MIB), 1.0)
    activity.told(pulled("app", "one", 10 * MIB, finished=True), 3.0)
    (row,) = activity.rows(3.0)
    assert row.transfer is not None
    assert (row.image, row.transfer.done, row.transfer.total) == ("app", 11 * MIB, 15 * MIB)
    assert row.transfer.speed(3.0) == (11 - 2) * MIB / 2
    totals = activity.totals(3.0)
    assert (totals.done, totals.waiting, totals.pulled_bytes) == (0, 2, 11 * MIB)
    activity.told(pulled("app", "two", 5 * MIB, 5 * MIB, finished=True), 4.0)
    assert activity.rows(4.0)[0].transfer is None
    activity.told(ImageDone(image="app", content_digest="d", rebuilt=True), 5.0)
    assert (activity.rows(5.0), activity.totals(5.0).done) == ([], 1)


def test_a_transfer_that_starts_again_counts_what_came_twice() -> None:
    activity = Activity(0.0)
    for done in (4 * MIB, 0, 3 * MIB):
        activity.told(pulled("", "one", done), 1.0)
    (row,) = activity.rows(1.0)
    assert row.transfer is not None
    assert (row.image, row.transfer.done, activity.totals(1.0).pulled_bytes) == ("", 3 * MIB, 7 * MIB)


def test_a_stage_shows_what_it_printed_last_until_it_is_built() -> None:
    activity = Activity(0.0)
    activity.told(ImageStarted(image=""), 0.0)
    activity.told(StageReused(image="", stage="from", digest="d", commit="c", size_bytes=1, added_bytes=1), 0.0)
    activity.told(StageStarted(image="", stage="install", reason="new"), 1.0)
    for text in ("first", "last", "  "):
        activity.told(StageOutput(image="", stage="install", text=text), 2.0)
    assert activity.rows(5.0) == [Row(image="~", stage="install", doing="last", seconds=4.0)]
    activity.told(StageBuilt(image="", stage="install", digest="d", commit="c", size_bytes=1, added_bytes=1, seconds=1.0), 6.0)
    assert (activity.rows(6.0)[0].doing, activity.totals(6.0).built, activity.totals(6.0).reused) == ("", 1, 1)


def a_transfer(subject: str = "example.com/base") -> Transfer:
    transfer = Transfer("pull", subject, 0.0)
    for at in (0.0, 1.0, 2.0):
        transfer.told(Progress(image="", action="pull", subject=subject, part="p", done=int(at) * MIB, total=10 * MIB), at)
    return transfer


TOTALS = Totals(done=1, waiting=2, built=3, reused=4, pulled_bytes=5 * MIB, pushed_bytes=6 * MIB, speed=MIB, seconds=70.0)
ROWS = [
    Row(image="app", stage="install", doing="npm ci", seconds=3.0),
    Row(image="back", stage="", doing="", seconds=4.0, transfer=a_transfer()),
]


def test_the_layout_of_a_wide_and_of_a_narrow_terminal() -> None:
    install, pull, totals = lines(ROWS, TOTALS, 2.0, width=100, height=30, look=PLAIN)
    assert re.fullmatch(r" app   install  npm ci {64,}3s", install)
    assert re.fullmatch(r" back           pull example\.com/base +━━━━─{16} +2\.0/10\.0 MiB   1\.0 MiB/s    4s", pull)
    assert len(install) == len(pull) == 99
    assert totals == " images: 1 done, 2 waiting · stages: 3 built, 4 reused · 5.0 MiB down · 6.0 MiB up, 1.0 MiB/s · 1m10s"[:98] + "…"
    narrow = lines(ROWS, TOTALS, 2.0, width=40, height=30, look=PLAIN)
    assert narrow[0].split() == ["app", "npm", "ci", "3s"]
    assert "2.0/10.0 MiB" in narrow[1]
    wide = lines(ROWS, TOTALS, 2.0, width=200, height=30, look=PLAIN)
    assert "━━━━────────────────" in wide[1]
    assert lines(ROWS, TOTALS, 2.0, width=200, height=30, look=Look(colours=False, simple=True))[1].isascii()


def test_of_a_long_name_the_end_stays() -> None:
    row = Row(image="app", stage="", doing="", seconds=4.0, transfer=a_transfer("registry.example.com/very/long/path/to/some/python"))
    assert "pull …to/some/python " in lines([row], TOTALS, 2.0, width=64, height=30, look=PLAIN)[0]


@given(
    st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40), st.text(max_size=200), st.booleans()), max_size=30),
    st.integers(8, 250),
    st.integers(1, 60),
    st.booleans(),
)
def test_no_line_is_ever_as_wide_as_the_terminal(rows: list[tuple[str, str, str, bool]], width: int, height: int, simple: bool) -> None:
    many = [Row(image=image, stage=stage, doing=doing, seconds=1.0, transfer=a_transfer(doing) if moves else None) for image, stage, doing, moves in rows]
    shown = lines(many, TOTALS, 2.0, width=width, height=height, look=Look(colours=True, simple=simple))
    assert len(shown) <= max(2, height // 2)
    for line in shown:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
        assert cell_len(plain) < width or width < 20
        assert plain.isprintable()


def test_signs_of_life_are_for_what_takes_long() -> None:
    moving = Row(image="back", stage="", doing="", seconds=4.0, transfer=a_transfer())
    silent = Row(image="app", stage="install", doing="", seconds=61.0)
    assert beat([moving, silent], 2.0, 1.0, silent=False) == ["back: pull example.com/base  2.0/10.0 MiB, 1.0 MiB/s, 2s"]
    assert beat([silent], 2.0, 1.0, silent=True) == ["app/install: at work for 1m01s"]
    assert beat([moving], 0.5, 1.0, silent=True) == []
