"""How what is going on is laid out in lines of a terminal: never wider than it, columns aligned, the less important left out first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from layerwright.cli.activity import Row, Totals, Transfer
from layerwright.cli.shown import part_text, printable, size_text, time_text

ROOM_FOR_A_BAR = 72  # columns
ROOM_FOR_STAGES = 50
BAR = 20
WIDEST = 120  # columns; wider, the eye loses the line
_ROOM_FOR_A_NAME = 12
MOST_LINES = 20
_NAMES = 28  # columns that names of images and stages may take at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`simple`: the terminal may not know how to show more than ASCII."""

    colours: bool
    simple: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of one look; `style` is an SGR parameter or ""."""

    text: str
    style: str = ""


def lines(rows: Sequence[Row], totals: Totals, now: float, *, width: int, height: int, look: Look) -> list[str]:
    """The lines of the live area, each narrower than `width`; at most half of `height`, and the last one tells the totals."""
    width = min(width, WIDEST)
    room = max(1, min(MOST_LINES, height // 2) - 1)
    shown = list(rows if len(rows) <= room else rows[: max(room - 1, 0)])
    names = _width([row.image for row in shown], min(_NAMES, width // 3))
    stages = _width([row.stage for row in shown], min(_NAMES, width // 4)) if width >= ROOM_FOR_STAGES else 0
    laid = [_row(row, now, names=names, stages=stages, width=width - 1, look=look) for row in shown]
    if len(shown) < len(rows):
        laid.append(_painted([Cell(_cut(f" and {len(rows) - len(shown)} more", width - 1, look), "2")], look))
    return [*laid, _painted([Cell(_cut(_totals_text(totals, width, look), width - 1, look), "2")], look)]


def _width(texts: Sequence[str], most: int) -> int:
    return min(max((cell_len(printable(text, colours=False)) for text in texts), default=0), most)


def _row(row: Row, now: float, *, names: int, stages: int, width: int, look: Look) -> str:
    left = [Cell(" "), Cell(_fitted(row.image, names, look), "1"), Cell("  ")] if names and row.image else [Cell(" ")]
    if stages and row.image:
        left += [Cell(_fitted(row.stage, stages, look), "36"), Cell("  ")]
    seconds = Cell(f" {time_text(row.seconds):>5}", "2")
    room = width - sum(cell_len(cell.text) for cell in left) - len(seconds.text)
    middle = _transfer(row.transfer, now, room, look) if row.transfer else [Cell(_fitted(row.doing or ("running" if row.stage else "preparing"), room, look))]
    return _painted([*left, *middle, seconds], look)


def _transfer(transfer: Transfer, now: float, room: int, look: Look) -> list[Cell]:
    """`pull NAME  ━━━━━━──── 34.2/120 MiB  18 MiB/s`: the amount stays longest, then the name."""
    amount = part_text(transfer.done, transfer.total)
    speed = transfer.speed(now)
    right: list[Cell] = []
    if transfer.action == "unpack":
        amount = size_text(transfer.total) if transfer.total else ""
    elif room >= 44:
        right = [Cell(f"  {size_text(speed) + '/s' if speed else '':>10}", "32")]
    right.insert(0, Cell(f"  {amount:>15}" if room >= 34 else f" {amount}"))
    if transfer.total and transfer.action != "unpack" and room >= ROOM_FOR_A_BAR:
        right[:0] = [Cell("  "), *_bar(transfer.done / transfer.total, look)]
    left = room - sum(cell_len(cell.text) for cell in right)
    if left < len(transfer.action):
        return [Cell(_fitted("".join(cell.text for cell in right).strip(), room, look))]
    name = f" {transfer.subject}" if transfer.subject and left - len(transfer.action) >= _ROOM_FOR_A_NAME else ""
    return [Cell(_fitted_end(transfer.action + name, left, look)), *right]


def _bar(part: float, look: Look) -> list[Cell]:
    full = min(BAR, max(0, round(part * BAR)))
    filled, empty = ("#", "-") if look.simple else ("━", "─")
    return [Cell(filled * full, "32"), Cell(empty * (BAR - full), "2")]


def _totals_text(totals: Totals, width: int, look: Look) -> str:
    dot = " | " if look.simple else " · "
    images = f"{totals.done} done" + (f", {totals.waiting} waiting" if totals.waiting else "")
    parts = [f"images: {images}" if width >= 80 else images]
    if width >= 60:
        parts.append(f"stages: {totals.built} built, {totals.reused} reused")
    for size, direction in ((totals.pulled_bytes, "down"), (totals.pushed_bytes, "up")):
        if size:
            parts.append(f"{size_text(size)} {direction}")
    if totals.speed and width >= 80:
        parts[-1] += f", {size_text(totals.speed)}/s"
    parts.append(time_text(totals.seconds))
    return " " + dot.join(parts)


def _fitted(text: str, size: int, look: Look) -> str:
    """`text` in exactly `size` columns, as plain text: cut with an ellipsis, or filled up."""
    cut = _cut(text, size, look)
    return cut + " " * (size - cell_len(cut))


def _fitted_end(text: str, size: int, look: Look) -> str:
    """The same, but the end is what says most: of a long repository the last parts."""
    text = _clean(text, look)
    if cell_len(text) <= size:
        return text + " " * (size - cell_len(text))
    first, _, rest = text.partition(" ")
    mark = "~" if look.simple else "…"
    room = size - len(first) - 2
    while cell_len(rest) > room:
        rest = rest.partition("/")[2] if "/" in rest and room >= 8 else rest[1:]
    return _fitted(f"{first} {mark}{rest}", size, look)


def _cut(text: str, size: int, look: Look) -> str:
    text = _clean(text, look)
    if cell_len(text) <= size:
        return text
    mark = "~" if look.simple else "…"
    return set_cell_size(text, size - 1).rstrip() + mark if size > 1 else set_cell_size(text, max(size, 0))


def _clean(text: str, look: Look) -> str:
    plain = printable(text, colours=False).expandtabs(2)
    return plain.encode("ascii", "replace").decode() if look.simple else plain.encode("utf-8", "replace").decode()


def _painted(cells: Sequence[Cell], look: Look) -> str:
    if not look.colours:
        return "".join(cell.text for cell in cells).rstrip()
    return "".join(f"\x1b[{cell.style}m{cell.text}\x1b[0m" if cell.style and cell.text else cell.text for cell in cells).rstrip()
