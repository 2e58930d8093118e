"""Files that say how registries are reached: where they lie, how they are read, and what is told of a broken one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from layerwright.errors import UsageError


def user_config_dir(env: Mapping[str, str]) -> str:
    """$XDG_CONFIG_HOME, else ~/.config; "" where there is no home."""
    if directory := env.get("XDG_CONFIG_HOME", ""):
        return directory
    return os.path.join(env["HOME"], ".config") if env.get("HOME") else ""


def below(directory: str, *names: str) -> tuple[str, ...]:
    """The path in `directory`, none where there is no such directory to speak of."""
    return (os.path.join(directory, *names),) if directory else ()


def read_text(path: str) -> str | None:
    """The file as text; None if it is not there. Raises UsageError."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read the settings of registries: {error.strerror}", where=path, mend="make the file readable, or remove it") from error
    except UnicodeDecodeError as error:
        raise UsageError("the settings of registries are not UTF-8 text", where=path, mend="correct the file, or remove it") from error


class Wrong(Exception):
    """What is wrong in a file that is being read, and in which line of it; `settings_of` makes the error of it that users see."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


@contextmanager
def settings_of(path: str, *, manual: str) -> Iterator[None]:
    """Turn Wrong inside the block into a UsageError that names file and line. `manual`: where the right form is described."""
    try:
        yield
    except Wrong as wrong:
        raise UsageError(wrong.what, where=f"{path}:{wrong.line}", mend=f"correct the file ({manual}), or remove it") from wrong


def line_of(text: str, wanted: str, *, count: int = 1) -> int:
    """The number of the `count`-th line that starts with `wanted`, blanks aside; 1 if there is none."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.replace(" ", "").lstrip().startswith(wanted):
            count -= 1
            if not count:
                return number
    return 1


def without_scheme(location: str) -> tuple[str, str]:
    """("http", "https" or "", the rest without trailing slashes) of an address or a bare name."""
    scheme, separator, rest = location.partition("://")
    return (scheme.lower(), rest.rstrip("/")) if separator else ("", location.rstrip("/"))
