from __future__ import annotations

import io
import os
import subprocess
import threading
from pathlib import Path

import pytest

from layerwright.host.exported_files import exported_file
from layerwright.host.pipes import stoppable


class Stopped(Exception):
    pass


class Stop:
    """Set after a while, as by a signal."""

    def __init__(self, after_s: float = 0.2) -> None:
        self._is_set = threading.Event()
        timer = threading.Timer(after_s, self._is_set.set)
        timer.daemon = True
        timer.start()

    def check(self) -> None:
        if self._is_set.is_set():
            raise Stopped


def go_on() -> None:
    pass


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_a_pipe_that_nobody_reads_can_be_given_up(fifo: Path) -> None:
    with pytest.raises(Stopped), exported_file(str(fifo), check=Stop().check):
        pass


def test_a_reader_that_does_not_read_can_be_given_up(fifo: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(Stopped), exported_file(str(fifo), check=Stop().check) as out:
            out.write(bytes(1 << 20))
    finally:
        os.close(reader)


def test_a_stream_that_is_a_pipe_can_be_given_up_and_goes_on_blocking() -> None:
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as stream:
            stream.write(b"first ")
            with stoppable(stream, Stop().check) as out:
                out.write(b"second")
                assert os.read(reader, 100) == b"first second"
                with pytest.raises(Stopped):
                    out.write(bytes(1 << 20))
            assert os.get_blocking(writer), "it is shared with whoever gave it to us"
    finally:
        os.close(reader)


def test_all_of_it_gets_through(fifo: Path, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    with subprocess.Popen(["cp", fifo, tmp_path / "copy"]) as reader:
        with exported_file(str(fifo), check=go_on) as out:
            assert out.write(content) == len(content)
        assert reader.wait(60) == 0
    assert (tmp_path / "copy").read_bytes() == content


def test_a_reader_that_leaves_is_told(fifo: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with exported_file(str(fifo), check=go_on) as out:
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            out.write(b"x")


def test_other_streams_are_taken_as_they_are(tmp_path: Path) -> None:
    memory = io.BytesIO()
    with stoppable(memory, go_on) as out:
        assert out is memory
    with (tmp_path / "file").open("wb") as file, stoppable(file, go_on) as out:
        assert out is file
