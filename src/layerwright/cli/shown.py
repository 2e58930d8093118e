"""How sizes, times and foreign text are written for people. Pure, and light: loaded at every start."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size_bytes: float) -> str:
    """`1.5 MiB`; "?" where the size is not known."""
    if size_bytes < 0:
        return "?"
    size, unit = _scaled(size_bytes)
    return f"{_number(size, unit)} {_UNITS[unit]}"


def part_text(done_bytes: float, total_bytes: float) -> str:
    """`34.2/120 MiB`: both in the unit of the whole; what is moved alone where the whole is not known."""
    if total_bytes <= 0:
        return size_text(done_bytes)
    total, unit = _scaled(total_bytes)
    return f"{_number(done_bytes / 1024**unit, unit)}/{_number(total, unit)} {_UNITS[unit]}"


def time_text(seconds: float) -> str:
    """`12s`, `3m07s`, `1h02m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def counted(number: int, what: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def printable(text: str, *, colours: bool) -> str:
    """A line of foreign text as it may be shown: colours stay where they are wanted, and end with the line; what moves the cursor, clears, sets a title
    or changes the direction of writing goes. Source: ECMA-48, xterm's ctlseqs."""
    if text.isprintable():
        return text
    import re

    text = re.sub(r"\x1b[PX^_].*?(?:\x1b\\|$)|\x1b\].*?(?:\x07|\x1b\\|$)", "", text)
    text = re.sub(r"(?:\x1b\[|\x9b)(?![0-9;:]*m)[0-?]*[ -/]*(?:[@-~]|$)|\x1b(?!\[)[ -/]*[0-~]?", "", text)
    text = re.sub(r"\x1b(?!\[[0-9;:]*m)" if colours else r"\x1b(?:\[[0-9;:]*m)?", "", text)
    kept = "".join(one for one in text if one in "\t\x1b" or one.isprintable())
    return f"{kept}\x1b[0m" if "\x1b" in kept else kept


def visible(text: str) -> str:
    """Foreign text of several lines with everything that is not printable written out: it cannot move the cursor or change colours."""
    return "".join(one if one in "\n\t" or one.isprintable() else repr(one)[1:-1] for one in text)


def _scaled(size_bytes: float) -> tuple[float, int]:
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return size, unit


def _number(size: float, unit: int) -> str:
    return f"{size:.0f}" if unit == 0 or size >= 100 else f"{size:.1f}"
