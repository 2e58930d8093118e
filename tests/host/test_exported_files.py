from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from layerwright.errors import UsageError
from layerwright.host import exported_files
from layerwright.host.exported_files import NoDirectory, exported_file, is_terminal
from layerwright.host.files import DiskFull


@pytest.fixture(params=[True, False], ids=["unnamed", "named"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of file systems: those with files that have no name yet, and the others."""
    if not request.param:
        monkeypatch.setattr(exported_files, "_unnamed", lambda directory: None)


@pytest.mark.usefixtures("kind")
def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with exported_file(str(path)) as out:
        out.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with pytest.raises(TypeError), exported_file(str(path)) as out:
        out.writelines([b"two", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"one"
    with exported_file(str(path)) as out:
        out.write(b"three")
    assert path.read_bytes() == b"three"
    assert os.listdir(tmp_path) == ["file"]


def test_until_then_the_directory_is_empty(tmp_path: Path) -> None:
    with exported_file(str(tmp_path / "file")) as out:
        out.write(b"x")
        out.flush()
        assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("kind")
def test_a_symbolic_link_leads_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    with exported_file(str(tmp_path / "link")) as out:
        out.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/file").read_bytes() == b"x"


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    with exported_file("/dev/null") as out:
        out.write(b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        with exported_file(str(fifo)) as out:
            out.write(b"through")
        assert reader.communicate()[0] == b"through"
    assert fifo.is_fifo()


def test_a_missing_directory_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(NoDirectory) as told, exported_file(str(tmp_path / "no/such/file")):
        pass
    assert told.value.mend == f"mkdir -p {tmp_path}/no/such"
    assert os.listdir(tmp_path) == []
    with pytest.raises(UsageError, match="directory"), exported_file(str(tmp_path)):
        pass


def test_a_full_disk_is_told_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as told, exported_file("/dev/full", needed_bytes=7) as out:
        out.write(b"x")
    assert told.value.where == "/dev/full"


def test_what_is_no_terminal() -> None:
    with open(os.devnull, "wb") as out:
        assert not is_terminal(out)
