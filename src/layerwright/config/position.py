"""A place in a file. Apart from the model, because what reports places is imported on the path where nothing is done."""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """A place in a file of the project; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"
