from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from layerwright.runtime import script
from layerwright.runtime.script import Failed

SHELLS = {"bash": ["bash"], "dash": ["dash"], "busybox": ["busybox", "sh"]}


class Shell:
    """Runs scripts under one shell, outside of any container."""

    def __init__(self, name: str, directory: Path) -> None:
        self._argv = SHELLS[name]
        self._path = f"/bin/{'bash' if name == 'bash' else 'sh'}"
        self._directory = directory
        self.knows_lines = name != "dash"

    def evaluate(self, text: str) -> str:
        return subprocess.run([*self._argv, "-c", text], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True).stdout

    def run(self, *commands: str, remembers: bool = False) -> tuple[int, str, Failed | None]:
        """Exit status, what it printed, and the command that was running at the end."""
        place = self._directory
        text = script.script(commands, self._path, remembers=remembers).replace(script.PLACE.encode(), os.fsencode(place))
        (place / script.SCRIPT).write_bytes(text)
        (place / script.MARK).unlink(missing_ok=True)
        env = {"PATH": os.environ["PATH"]}
        ended = subprocess.run([*self._argv, "-e", place / script.SCRIPT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
        mark = (place / script.MARK).read_bytes() if (place / script.MARK).exists() else b""
        return ended.returncode, ended.stdout.decode(), script.failed(mark, commands)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    if shutil.which(SHELLS[request.param][0]) is None:
        pytest.skip(f"{request.param} is not installed")
    return Shell(request.param, tmp_path)


@pytest.mark.parametrize(
    ("commands", "printed"),
    [
        (["cd /tmp", "export A=1; b=2", "pwd; echo $A$b"], "/tmp\n12\n"),
        (["f() { echo $1; }", "f x"], "x\n"),
        (["echo a # comment", "echo b"], "a\nb\n"),
        (["echo a \\", "echo b"], "a\nb\n"),
        (["echo 'it'\\''s'", 'echo "a  b"'], "it's\na  b\n"),
        (["cat <<E\nhi $((1+1))\nE", "cat <<'E'\n$x '\nE"], "hi 2\n$x '\n"),
        (["false && true", "[ -f /nope ] && echo no", "echo yes"], "yes\n"),
        (["for i in 1 2; do\n  echo $i\ndone"], "1\n2\n"),
        (["set -Cu", "echo a"], "a\n"),
        (["exec 3>&1", "echo a >&3"], "a\n"),
        (["trap 'echo bye' EXIT", "echo a"], "a\nbye\n"),
        (["false || echo caught", "! true || echo no"], "caught\nno\n"),
        (["", "# only a comment", "echo ü"], "ü\n"),
        (["set -- a b", "echo $2"], "b\n"),
        (["exit 0", "echo no"], ""),
    ],
)
def test_commands_run_in_one_shell(shell: Shell, commands: list[str], printed: str) -> None:
    status, output, _ = shell.run(*commands)
    assert (status, output) == (0, printed)


def test_an_open_here_document_swallows_no_other_command(shell: Shell) -> None:
    status, output, _ = shell.run("cat <<E\nopen", "echo next")
    assert status == 0
    assert output.endswith("next\n")


@pytest.mark.parametrize(
    ("commands", "status", "command", "line"),
    [
        (["true", "exit 3", "true"], 3, 1, None),
        (["true", "false", "true"], 1, 1, 1),
        (["true\n\n(exit 5)\ntrue"], 5, 0, 3),
        (["true", "x='\n\n'\nfalse | true\ntest 1 = 2\ntrue"], 1, 1, 5),
        (["f() {\n true\n (exit 9)\n}", "true\nf"], 9, 1, None),
        (["true", "echo 'open", "true"], 2, 1, None),
        (["true", "no-such-program"], 127, 1, 1),
        (["true", "false && true"], 1, 1, 1),
        (["set -x", "false"], 1, 1, 1),
    ],
)
def test_the_failing_command_and_its_status_are_known(shell: Shell, commands: list[str], status: int, command: int, line: int | None) -> None:
    ended, _, failed = shell.run(*commands)
    assert ended == status
    assert failed is not None
    assert failed.command == command
    if line is not None:
        assert failed.line == (line if shell.knows_lines else None)


def test_a_script_that_traces_shows_no_mark(shell: Shell) -> None:
    _, output, _ = shell.run("set -x", "echo a", "echo b")
    assert "mark" not in output
    assert "+ :" not in output


def test_a_command_that_needs_more_than_one_argument_page_runs(shell: Shell) -> None:
    status, output, _ = shell.run(f"x={'y' * 200_000}", "echo ${#x}")
    assert (status, output) == (0, "200000\n")


@pytest.mark.parametrize("mark", [b"", b"x y\n", b"7 3\n", b"-1 3\n", b"1\n"])
def test_a_mark_that_says_nothing_is_no_failure_of_ours(mark: bytes) -> None:
    assert script.failed(mark, ["a", "b"]) is None


def test_a_line_that_cannot_be_is_not_told() -> None:
    assert script.failed(b"1 10\n99\n", ["a", "b\nc"]) == Failed(command=1, line=None)


def test_bytes_that_are_not_utf8_reach_the_shell() -> None:
    assert b"echo \xff" in script.script(["echo \udcff"], "/bin/sh")


@pytest.mark.parametrize(
    ("commands", "left"),
    [
        (["cd /usr; export A='x y'", "false"], ("/usr", "x y")),
        (["cd /usr; export A='x y'; exit 3"], ("/usr", "x y")),
        (["export A='x y'; f() { cd /usr; false; }", "f"], ("/usr", "x y")),
        (["set -Cux; cd /usr; export A='x y'", "false"], ("/usr", "x y")),
        (["trap 'echo bye' EXIT; false"], None),
        (["kill -9 $$"], None),
    ],
)
def test_a_script_that_remembers_notes_where_it_was_and_what_it_exported(
    shell: Shell, tmp_path: Path, commands: list[str], left: tuple[str, str] | None
) -> None:
    shell.run(*commands, remembers=True)
    if left is None and not shell.knows_lines:
        return  # dash may have noted before it was killed
    noted = {name: (tmp_path / name).read_text() if (tmp_path / name).exists() else "" for name in (script.CWD, script.EXPORTS)}
    if left is None:
        assert noted == {script.CWD: "", script.EXPORTS: ""}
        return
    assert noted[script.CWD] == f"{left[0]}\n"
    assert shell.evaluate(f'{noted[script.EXPORTS]}\necho "$A"') == f"{left[1]}\n"


def test_a_script_that_does_not_remember_notes_nothing(shell: Shell, tmp_path: Path) -> None:
    shell.run("cd /usr; false")
    assert not (tmp_path / script.CWD).exists()
    assert not (tmp_path / script.EXPORTS).exists()
