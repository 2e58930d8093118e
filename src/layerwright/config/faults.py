"""Faults of the configuration: collected one by one, told together, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from layerwright.config.model import Position, Warn
from layerwright.errors import UsageError


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong, where, and how to mend it. `mend` may hold more lines, to be copied as they are."""

    position: Position
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.position}: {self.what}, {self.mend}"


class ConfigError(UsageError):
    """The configuration is wrong: every fault of it, sorted by position."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        first = self.faults[0]
        super().__init__(first.what, where=str(first.position), mend=first.mend)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class Faults:
    """What has been found wrong or odd so far."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.warnings: list[Warn] = []
        self._told: set[str] = set()

    def add(self, position: Position, what: str, mend: str) -> None:
        self.found.append(Fault(position, what, mend))

    def warn(self, position: Position, text: str) -> None:
        self.warnings.append(Warn(position=position, text=text))

    def warn_once(self, subject: str, position: Position, text: str) -> None:
        """Warn of the first of several like ones."""
        if subject not in self._told:
            self._told.add(subject)
            self.warn(position, text)

    def unsupported(self, position: Position, subject: str, instead: str) -> None:
        """`subject` is good werf, but not built yet."""
        self.add(position, f"{subject} not supported yet", instead)

    def raise_if_any(self) -> None:
        if self.found:
            raise ConfigError(self.found)


def suggestion(word: str, known: Iterable[str]) -> str:
    """The one of `known` that `word` was most likely meant to be, or ""."""
    from difflib import get_close_matches  # costs milliseconds, and only who mistypes pays

    names = list(known)
    folded = {name.casefold().replace("_", "").replace("-", ""): name for name in reversed(names)}
    close = get_close_matches(word.casefold().replace("_", "").replace("-", ""), folded, n=1, cutoff=0.65)
    return folded[close[0]] if close else ""


def quoted(text: str, most: int = 60) -> str:
    """`text` in double quotes on one line, shortened."""
    line = "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text.replace("\n", "\\n"))
    return f'"{line if len(line) <= most else line[: most - 1] + "…"}"'


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last
