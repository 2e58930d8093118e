from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from layerwright.errors import MachineLacks
from layerwright.host.run import CommandFailed, Process, run

ENV = {"PATH": os.environ.get("PATH", os.defpath)}
PYTHON = sys.executable


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_stdout_is_returned_and_stdin_is_what_was_given() -> None:
    assert run(["cat"], env=ENV, stdin=b"a\0b\n") == b"a\0b\n"


def test_stdin_is_empty_unless_given() -> None:
    assert run(["cat"], env=ENV) == b""


def test_the_environment_is_the_given_one_and_nothing_else() -> None:
    assert run(["env"], env={**ENV, "ONE": "1"}).splitlines() == [b"PATH=" + ENV["PATH"].encode(), b"ONE=1"]


def test_it_runs_in_the_given_directory(tmp_path: Path) -> None:
    assert run(["pwd", "-P"], env=ENV, cwd=str(tmp_path)).strip() == bytes(tmp_path.resolve())


def test_a_program_that_writes_and_reads_megabytes_at_once_does_not_hang() -> None:
    big = b"x" * (8 << 20)
    script = "import sys; sys.stderr.write('e' * (4 << 20)); d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d + d)"
    assert run([PYTHON, "-c", script], env=ENV, stdin=big) == big + big


def test_a_failure_names_program_code_and_its_last_lines() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "seq 1 100 >&2; echo it broke >&2; exit 7"], env=ENV)
    assert caught.value.code == 7
    assert caught.value.argv[0] == "sh"
    assert caught.value.stderr.splitlines()[-2:] == ["100", "it broke"]
    assert len(caught.value.stderr.splitlines()) < 20
    assert "failed with exit code 7" in str(caught.value)


def test_bytes_that_are_not_utf8_are_shown_in_a_failure() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "printf '\\377 bad' >&2; exit 1", os.fsdecode(b"\xff")], env=ENV)
    str(caught.value).encode("utf-8")
    assert "\\xff bad" in caught.value.stderr


def test_a_signal_is_named() -> None:
    with pytest.raises(CommandFailed, match="was ended by SIGTERM") as caught:
        run(["sh", "-c", "kill -TERM $$"], env=ENV)
    assert caught.value.code == -signal.SIGTERM


@pytest.mark.parametrize(("program", "package"), [("no-such-program", "no-such-program"), ("newuidmap", "uidmap")])
def test_a_missing_program_names_the_package_that_has_it(program: str, package: str, tmp_path: Path) -> None:
    with pytest.raises(MachineLacks) as caught:
        run([program], env={"PATH": str(tmp_path)})
    assert caught.value.exit_code == 3
    assert program in caught.value.what
    assert f"apt-get install {package}" in caught.value.mend


def test_a_file_that_is_not_executable_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    with pytest.raises(MachineLacks, match="Permission denied"):
        run([str(tmp_path / "tool")], env=ENV)


def test_a_missing_working_directory_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="working directory"):
        run(["true"], env=ENV, cwd=str(tmp_path / "gone"))


def test_no_descriptor_is_left_open_by_success_or_failure(tmp_path: Path) -> None:
    run(["true"], env=ENV)
    before = open_descriptors()
    run(["cat"], env=ENV, stdin=b"x")
    with pytest.raises(CommandFailed):
        run(["false"], env=ENV, stdin=b"x")
    with pytest.raises(MachineLacks):
        run(["no-such-program"], env=ENV, stdin=b"x")
    assert open_descriptors() == before


def test_waiting_ends_at_the_timeout_and_at_the_end_of_the_program() -> None:
    with Process(["sleep", "60"], env=ENV) as process:
        began = time.monotonic()
        assert process.wait(0.02) is None
        assert time.monotonic() - began < 5
        process.kill()
        assert process.wait(30) == -signal.SIGKILL


def test_without_process_descriptors_waiting_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with Process(["sleep", "60"], env=ENV) as process:
        assert process.wait(0.02) is None
        process.kill()
        assert process.wait(30) == -signal.SIGKILL


def test_output_kept_in_memory_is_whole_after_the_end_however_large() -> None:
    with Process([PYTHON, "-c", "import sys; sys.stdout.write('y' * (3 << 20))"], env=ENV, stdout="memory") as process:
        assert process.wait(60) == 0
        assert process.output() == b"y" * (3 << 20)


def test_leaving_the_block_kills_and_reaps_a_program_that_still_runs() -> None:
    before = open_descriptors()
    with Process(["sleep", "60"], env=ENV, stdin="pipe") as process:
        pid = process._popen.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert open_descriptors() == before
    process.close()


def test_a_conversation_over_pipes() -> None:
    with Process(["cat"], env=ENV, stdin="pipe") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hello\n"


def test_many_threads_may_start_programs_at_once() -> None:
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda n=n: results.append(run(["cat"], env=ENV, stdin=b"%d" % n))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results, key=int) == [b"%d" % n for n in range(16)]
