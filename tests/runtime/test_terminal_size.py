"""The size of a terminal reaches another one, whose place only a file tells."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwright.runtime.terminal_size import SizeKeeper, size_of


@pytest.fixture
def terminals() -> Iterator[list[int]]:
    """Two, each with the end of who shows it and the end of programs on it."""
    opened = [*os.openpty(), *os.openpty()]
    yield opened
    for fd in opened:
        os.close(fd)


def resize(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def test_a_file_that_is_no_terminal_has_no_size(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert size_of(file.fileno()) == b""


def test_the_size_is_given_once_the_program_is_there_and_when_it_changes(terminals: list[int], tmp_path: Path) -> None:
    ours, _, shown, inner = terminals
    resize(ours, 40, 120)
    keeper = SizeKeeper(ours, os.getpid(), str(tmp_path / "pid"))
    keeper.look()
    assert size_of(shown) != size_of(ours), "nobody has said where to"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=inner, stdout=subprocess.DEVNULL) as program:
        (tmp_path / "pid").write_text(str(program.pid))
        for rows, columns in ((40, 120), (33, 99)):
            resize(ours, rows, columns)
            keeper.look()
            assert struct.unpack("4H", size_of(shown))[:2] == (rows, columns)
        program.kill()
    keeper.look()
    resize(ours, 1, 1)
